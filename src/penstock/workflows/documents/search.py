"""Search an index: by vectors and by words, the two ranks fused. Reads only."""

import os
import re
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from penstock.core import validate
from penstock.engines.local import kind_of
from penstock.durable.sqlite import Connection, StoreError, connect_reader, named_errors
from penstock.functions import stream
from penstock.workflows.documents import schema
from penstock.workflows.documents.embedders import Embedder, EmbedError, Vectors
from penstock.workflows.documents.embedders.hashing import HashEmbedder

_POOL = 50
"""Hits that each of the two ways of searching contributes."""

_DAMPING = 60
_MOST_WORDS = 64
_SNIPPET = 200

_NEAREST = "SELECT chunk FROM vectors ORDER BY vec_distance_cosine(vector, ?), chunk LIMIT ?"
_MATCHING = "SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words, 4.0, 1.0), rowid LIMIT ?"
_CHUNK = """
SELECT directory, name, first_line, last_line, heading, text
FROM chunks JOIN files ON files.id = chunks.file WHERE chunks.id = ?
"""


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
    validate.whole("k", k, least=1)
    path = os.fspath(index)
    embedder = embedder or HashEmbedder()
    if not Path(path).is_file():
        schema.check_place(path)
        raise StoreError(f"{path}: no such index; `penstock embed PATH --to {path}` makes one")
    with closing(connect_reader(path)) as connection:
        made = schema.check(path, connection)
        schema.check_embedder(path, made, embedder.name, embedder.dimensions)
        if not question.strip():
            return []
        vector = _vector(embedder, question)
        schema.check_embedder(path, made, embedder.name, len(vector))
        with named_errors(path):
            return _search(connection, question, k, vector)


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


def _search(connection: Connection, question: str, k: int, vector: Vectors) -> list[Hit]:
    words = list(dict.fromkeys(re.findall(r"\w+", question.casefold())))[:_MOST_WORDS]
    pool = max(k, _POOL)
    rankings = [[chunk for (chunk,) in connection.execute(_NEAREST, (vector.tobytes(), pool))]]
    if words:
        asked = " OR ".join(f'"{word}"' for word in words)
        rankings.append([chunk for (chunk,) in connection.execute(_MATCHING, (asked, pool))])
    scores = fuse(rankings)
    best = sorted(scores, key=lambda chunk: (-scores[chunk], chunk))[:k]
    return [_hit(connection, chunk, scores[chunk], words) for chunk in best]


def fuse(rankings: Iterable[Iterable[int]]) -> dict[int, float]:
    """Reciprocal rank fusion: the sum of 1 / (60 + rank) over the rankings, ranks from 1."""
    scores = dict[int, float]()
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + 1 / (_DAMPING + rank)
    return scores


def _hit(connection: Connection, chunk: int, score: float, words: list[str]) -> Hit:
    directory, name, first, last, heading, text = next(connection.execute(_CHUNK, (chunk,)))
    path = str(Path(schema.loaded(directory), schema.loaded(name)))
    return Hit(path, first, last, heading, score, snippet(text, words), text)


def snippet(text: str, words: Iterable[str]) -> str:
    """Up to 200 characters of the text on one line, from the line that has most of the words."""
    wanted = list(words)
    lines = [line for line in text.split("\n") if line.strip()]
    found = [sum(word in line.casefold() for word in wanted) for line in lines]
    best = found.index(max(found)) if found else 0
    shown = " ".join(" ".join(lines[best:]).split())
    return shown if len(shown) <= _SNIPPET else f"{shown[:_SNIPPET].rsplit(' ', 1)[0]} ..."
