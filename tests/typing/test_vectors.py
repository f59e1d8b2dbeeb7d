"""An index of vectors as a sink, and what it finds; never executed."""

from collections.abc import Iterator
from typing import Any, assert_type

import numpy as np

import penstock
from penstock.durable.report import RunReport
from penstock.sinks import Found, Made, Sink, SqliteVectors


async def stored(rows: penstock.Stream[dict[str, Any]]) -> None:
    index = SqliteVectors("index.db", embedder="m", dimensions=3)
    sink: Sink = index
    assert_type(await rows.to(index, run="docs"), RunReport)
    assert_type(await rows.to(sink, run="docs"), RunReport)
    SqliteVectors("index.db", dimensions="3")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def found(index: SqliteVectors) -> None:
    assert_type(index.made(), Made)
    assert_type(index.rows(), Iterator[dict[str, Any]])
    assert_type(index.nearest([1, 0.5]), list[Found])
    assert_type(index.nearest(np.ones(3), k=3), list[Found])
    assert_type(index.matching("words"), list[Found])
    assert_type(index.search((1.0, 2.0), "words")[0].score, float)
    assert_type(index.search([1], "words")[0].key, str | int)
    assert_type(index.search([1], "words")[0].row, dict[str, Any])
    index.nearest("words")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
