"""Search an index of documents: by vectors and by words, the two ranks fused. Reads only."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from penstock.core import validate
from penstock.durable.sqlite import StoreError
from penstock.engines.local import kind_of
from penstock.functions import stream
from penstock.sinks.finding import Found, words_of
from penstock.sinks.store import check_place, database
from penstock.sinks.vectors import SqliteVectors
from penstock.sources.files import path_of
from penstock.workflows.documents.embedders import Embedder, EmbedError, Vectors
from penstock.workflows.documents.embedders.hashing import HashEmbedder
from penstock.workflows.documents.index import check_embedder

_SNIPPET = 200


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found; `score` is the fused rank, of use for comparing hits of one question only."""

    path: str
    first_line: int
    last_line: int
    heading: str
    score: float
    snippet: str
    text: str


def search(index: str | os.PathLike[str], question: str, *, k: int = 5, embedder: Embedder | None = None) -> list[Hit]:
    """The `k` (an int >= 1) best chunks of `index` for `question`, best first; any text is a question.

    Chunks near the question's vector and chunks with its words are ranked apart and fused by reciprocal rank
    (Cormack, Clarke and Buettcher, SIGIR 2009). A question without anything to look for finds nothing.

    Raises:
        OptionError: `k` breaks its rule.
        StoreError: `index` is missing, is no index, or was made with another embedder.
        EmbedError: the embedder could not embed the question.
    """
    k = validate.whole("k", k, least=1)
    path = database("index", index)
    embedder = embedder or HashEmbedder()
    if not Path(path).is_file():
        check_place(path)
        raise StoreError(f"{path}: no such index; `penstock embed PATH --to {path}` makes one")
    vectors = SqliteVectors(path)
    made = vectors.made()
    check_embedder(path, made, embedder.name, embedder.dimensions)
    if not question.strip():
        return []
    vector = _vector(embedder, question)
    check_embedder(path, made, embedder.name, len(vector))
    words = words_of(question)
    return [_hit(found, words) for found in vectors.search(vector, question, k=k)]


def _vector(embedder: Embedder, question: str) -> Vectors:
    """The question's vector; an async embedder has a loop of its own for it."""
    if kind_of(embedder.embed) == "plain":
        given: object = embedder.embed([question])
    else:
        with stream([[question]]).map(embedder.embed).sync() as answers:
            given = next(answers)
    rows = np.asarray(given, np.float32)
    if rows.ndim != 2 or len(rows) != 1:  # noqa: PLR2004 -- a row per text
        raise EmbedError(f"the embedder {embedder.name} gave an array of {rows.shape} for one text")
    vector: Vectors = rows[0]
    return vector


def _hit(found: Found, words: list[str]) -> Hit:
    row = found.row
    return Hit(
        path=path_of(str(found.key)),
        first_line=row.get("first_line", 1),
        last_line=row.get("last_line", 1),
        heading=row.get("heading") or "",
        score=found.score,
        snippet=snippet(row["text"], words),
        text=row["text"],
    )


def snippet(text: str, words: Iterable[str]) -> str:
    """Up to 200 characters of the text on one line, from the line that has most of the words."""
    wanted = list(words)
    lines = [line for line in text.split("\n") if line.strip()]
    found = [sum(word in line.casefold() for word in wanted) for line in lines]
    best = found.index(max(found)) if found else 0
    shown = " ".join(" ".join(lines[best:]).split())
    return shown if len(shown) <= _SNIPPET else f"{shown[:_SNIPPET].rsplit(' ', 1)[0]} ..."
