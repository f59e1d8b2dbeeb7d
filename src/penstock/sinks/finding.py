"""Finds rows of an index: by the nearness of vectors, by words, and by both."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.durable.roots import Key
from penstock.durable.sqlite.connection import Connection, shown
from penstock.durable.store_errors import DamageError
from penstock.sinks.sqlite_store import ROOT
from penstock.sinks.words import Word

POOL = 50
"""Rows that each of the two ways gives, at least."""

RARE = 0.05
"""What a rare word adds to the score: more than both ways give together, 2 / 61 at most."""

_DAMPING = 60
_RAREST, _ONE_IN, _FEWEST = 4, 100, 10
"""A rare word is in one root of a hundred, at least in one, at most in four; not where there are fewer than ten."""

_FEW = 300
"""Rows with a word's stem, at most, in which the word itself is looked for."""

_NEAREST = """
SELECT id, max(-1.0, min(1.0, 1 - distance)) FROM (
    SELECT id, vec_distance_cosine(coalesce((SELECT vector FROM scaled WHERE id = vectors.id), vector), ?) AS distance
    FROM vectors LIMIT -1
) WHERE distance IS NOT NULL ORDER BY distance, id LIMIT ?
"""
"""With a limit, the inner query is not merged into the outer one, which would ask for each distance twice."""

_MATCHING = """
SELECT rowid, -bm25(words, 4.0, 1.0) AS score FROM words WHERE words MATCH ? ORDER BY score DESC, rowid LIMIT ?
"""
_ROOTS = f"SELECT count(*) FROM (SELECT 1 FROM penstock_roots LIMIT {_RAREST * _ONE_IN})"  # noqa: S608 -- a constant
_NUMBER = f"SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT {_FEW + 1})"  # noqa: S608 -- a constant
_HAVING = "SELECT * FROM entries WHERE id IN (SELECT rowid FROM words WHERE words MATCH ?)"
_ROW = f"""
SELECT entries.*, penstock_roots.key FROM entries JOIN penstock_roots ON penstock_roots.id = {ROOT} WHERE entries.id = ?
"""  # noqa: S608 -- a constant
_ROWS = "SELECT entries.*, vector FROM entries JOIN vectors USING (id) ORDER BY id"

type Scores = Sequence[tuple[int, float]]
"""Ids of rows with their scores, the best first."""


@dataclass(frozen=True, slots=True)
class Found:
    """A row that was found.

    Attributes:
        key: of the root that it came from.
        score: the greater, the better; it compares rows of one question only.
        row: its columns, without the vector.
    """

    key: Key
    score: float
    row: dict[str, Any]


def near(connection: Connection, vector: bytes, count: int) -> Scores:
    """Return the rows with the nearest vectors, with the cosine."""
    return [(number, score) for number, score in connection.select(_NEAREST, (vector, count), int, float)]


def having(connection: Connection, words: Sequence[Word], count: int) -> Scores:
    """Return the rows that have some of the words, with the score of BM25."""
    asked = " OR ".join(dict.fromkeys(word.match for word in words))
    found = connection.select(_MATCHING, (asked, count), int, float) if words else ()
    return [(number, score) for number, score in found]


def fused(connection: Connection, vector: bytes, words: Sequence[Word], count: int) -> Scores:
    """Return the best of both ways; rows with rare words come first: who asks for one wants to see where it is."""
    pool = max(count, POOL)
    rankings = (near(connection, vector, pool), having(connection, words, pool))
    scores = fuse([number for number, _ in ranking] for ranking in rankings)
    for word in words:
        for number in _rows_of_rare(connection, word):
            scores[number] = scores.get(number, 0.0) + RARE
    return sorted(scores.items(), key=lambda each: (-each[1], each[0]))[:count]


def _rows_of_rare(connection: Connection, word: Word) -> Sequence[int]:
    """Return the rows that have the word, or else its stem, if they are of few roots; none if they are of more."""
    roots: int
    number: int
    (roots,) = connection.one(_ROOTS, (), int)
    (number,) = connection.one(_NUMBER, (word.match,), int)
    if roots < _FEWEST or not 0 < number <= _FEW:
        return ()
    rows = list(connection.execute(_HAVING, (word.match,)))
    exact = [row for row in rows if any(isinstance(value, str) and word.is_in(value) for value in row[2:])]
    found: dict[int, int] = {row[0]: row[1] for row in exact or rows}
    return list(found) if len(set(found.values())) <= max(1, roots // _ONE_IN) else ()


def fuse(rankings: Iterable[Iterable[int]]) -> dict[int, float]:
    """Fuse ranks: sum 1 / (60 + rank) over the rankings, with ranks from 1."""
    scores = dict[int, float]()
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + 1 / (_DAMPING + rank)
    return scores


def found(connection: Connection, scores: Scores) -> list[Found]:
    """Return the rows of these ids."""
    return [
        Found(key, score, row) for number, score in scores for row, key in _read(connection, _ROW, (number,), str | int)
    ]


def rows(connection: Connection) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Give every row with its vector, in the order in which they came."""
    if list(connection.execute("PRAGMA table_info(entries)")):
        yield from _read(connection, _ROWS, (), bytes)


def _read(
    connection: Connection, statement: str, values: tuple[Any, ...], kind: Any
) -> Iterator[tuple[dict[str, Any], Any]]:
    """Give the columns of the user, and the last one, which is of that type."""
    cursor = connection.execute(statement, values)
    for row in cursor:
        names = [name for name, _ in cursor.get_description()]
        if not isinstance(row[-1], kind) or (kind is bytes and len(row[-1]) % 4):
            raise DamageError(f"{connection.path}: the database is damaged: {shown(row[-1])} stands for {names[-1]!r}")
        yield dict(zip(names[2:-1], row[2:-1], strict=True)), row[-1]
