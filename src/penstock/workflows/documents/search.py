"""Searches an index of documents by vectors and by words, and fuses both ranks. It only reads."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.durable.sqlite.connection import shown
from penstock.durable.store_errors import DamageError, StoreError
from penstock.engines.local import kind_of
from penstock.sinks.finding import POOL, Found
from penstock.sinks.sqlite_store import check_place, database
from penstock.sinks.vectors import SqliteVectors
from penstock.sinks.words import MOST
from penstock.sources.paths import path_of
from penstock.workflows.documents.embedders import Embedder, EmbedError, Vectors
from penstock.workflows.documents.embedders.named import embedder_named
from penstock.workflows.documents.index import check_embedder
from penstock.workflows.secret import Secret, Unchecked

_SNIPPET = 200
_READ = 10_000
"""Characters of a question that are used to find the best line."""

_SHOWN_FIRST, _OF_A_FILE = 5, 2
"""Of the first five hits, at most two are of one file."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found; `score` is that of `SqliteVectors.search`, and compares hits of one question only."""

    path: str
    first_line: int
    last_line: int
    heading: str
    score: float
    snippet: str
    text: str


def search(index: str | os.PathLike[str], question: str, *, k: int = 5, embedder: Embedder | None = None) -> list[Hit]:
    """Return the `k` (an int >= 1) best chunks of `index` for `question`, best first; any text is a question.

    If no embedder is given, `embedder_of` finds the one that the index was made with.

    Chunks near the question's vector and chunks with its words are ranked apart, and fused by reciprocal rank (Cormack,
    Clarke and Buettcher, SIGIR 2009); chunks that have its rare words come first, as `SqliteVectors.search` explains.
    Of the first five hits at most two are of one file, if the index has others; hits that give way come after the five.
    A question without anything to look for finds nothing.

    Raises:
        OptionError: `k` breaks its rule.
        StoreError: `index` is missing, is no index, or was made with another embedder.
        EmbedError: the embedder could not embed the question.
        OptionError, EmbedderUnavailableError, ModuleNotFoundError: as `embedder_of` does.
    """
    k = validate.whole("k", k, least=1)
    path = database("index", index)
    if not Path(path).is_file():
        check_place(path)
        raise StoreError(f"{path}: no such index; `penstock embed PATH --to {path}` makes one")
    embedder = embedder or embedder_of(path)
    vectors = SqliteVectors(path)
    made = vectors.made()
    check_embedder(path, made, embedder.name, embedder.dimensions)
    if not question.strip():
        return []
    vector = _vector(embedder, question)
    check_embedder(path, made, embedder.name, len(vector))
    words = list(dict.fromkeys(re.findall(r"\w+", question[:_READ].casefold())))[:MOST]
    return [_hit(path, found, words) for found in _found(vectors, vector, question, k)]


def _found(vectors: SqliteVectors, vector: Vectors, question: str, k: int) -> list[Found]:
    """Return the best `k`, from as many as it takes for the first ones to be of several files."""
    count = max(k, POOL)
    while True:
        found = vectors.search(vector, question, k=count)
        first = spread(found)
        if len(first) >= min(k, _SHOWN_FIRST) or len(found) < count:
            return [*first, *(each for each in found if each not in first)][:k]
        count *= 4


def spread(found: Sequence[Found]) -> list[Found]:
    """Return the first five of those found, without the third of any file."""
    first, of = list[Found](), Counter[Any]()
    for each in found:
        if len(first) < _SHOWN_FIRST and of[each.key] < _OF_A_FILE:
            of[each.key] += 1
            first.append(each)
    return first


def embedder_of(
    index: str | os.PathLike[str],
    *,
    model: str | None = None,
    base_url: str | None = None,
    key: str | Secret | None = None,
) -> Embedder:
    """Return the embedder that `index` was made with, by its name there; other options are those of `embedder_named`.

    The index tells neither the server nor the directory: it may come from others. So the address of a server comes from
    `base_url` or the environment, as the key does, and a local model has to be named. Without an index, or if its name
    is not known, the default is returned: `search` then says what is wrong.

    Raises:
        OptionError: an option is missing, or is not one of this embedder, or a local model has to be named.
        StoreError: what is there is no index.
        ModuleNotFoundError: a library is missing; the message says what to install.
    """
    hidden = Unchecked(key)
    del key  # the frame of an error may be shown
    path = database("index", index)
    made = SqliteVectors(path).made().embedder if Path(path).is_file() else None
    kind, _, rest = (made or "").partition(":")
    if kind == "sentence-transformers":
        raise OptionError(
            f"embedder must be 'sentence-transformers:PATH' for {path}, with the model of the digest {rest[:16]}"
        )
    name = made if made and kind == "openai" and rest else "hash"
    return embedder_named(name, model=model, base_url=base_url, key=hidden.checked())


def _vector(embedder: Embedder, question: str) -> Vectors:
    """Return the question's vector; an async embedder gets a loop of its own for it."""
    if kind_of(embedder.embed) == "plain":
        given: object = embedder.embed([question])
    else:
        from penstock.functions import stream  # noqa: PLC0415 -- takes as long to load as a search

        with stream([[question]]).map(embedder.embed).sync() as answers:
            given = next(answers)
    rows = np.asarray(given, np.float32)
    if rows.ndim != 2 or len(rows) != 1:  # noqa: PLR2004 -- a row per text
        raise EmbedError(f"the embedder {embedder.name} gave an array of {rows.shape} for one text")
    vector: Vectors = rows[0]
    return vector


def _hit(index: str, found: Found, words: Sequence[str]) -> Hit:
    row = found.row
    text, heading = row.get("text"), row.get("heading")
    if not isinstance(text, str):
        raise DamageError(f"{index}: the database is damaged: {shown(text)} stands for 'text'")
    return Hit(
        path=path_of(str(found.key)),
        first_line=_line(row.get("first_line")),
        last_line=_line(row.get("last_line")),
        heading=heading if isinstance(heading, str) else "",
        score=found.score,
        snippet=snippet(text, words),
        text=text,
    )


def _line(value: object) -> int:
    return value if isinstance(value, int) else 1


def snippet(text: str, words: Iterable[str]) -> str:
    """Return up to 200 characters of the text on one line, from the line that has most of the words."""
    wanted = list(words)
    lines = [line for line in text.split("\n") if line.strip()]
    found = [sum(word in line.casefold() for word in wanted) for line in lines]
    best = found.index(max(found)) if found else 0
    shown = " ".join(" ".join(lines[best:]).split())
    return shown if len(shown) <= _SNIPPET else f"{shown[:_SNIPPET].rsplit(' ', 1)[0]} ..."
