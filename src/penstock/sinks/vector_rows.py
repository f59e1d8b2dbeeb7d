"""Rows with vectors, as an index takes them: what of it needs no index, and may be done in another process."""

from collections.abc import Mapping, Sequence
from math import isfinite, sqrt
from typing import Any, Self, cast, override

import numpy as np
from numpy.typing import NDArray

from penstock.core.errors import OptionError
from penstock.durable.store_errors import RowError
from penstock.durable.weights import WeighedRow, weight
from penstock.sinks.cells import Cell, cells, mapping, shown

type Vector = NDArray[np.float32]
type VectorLike = NDArray[Any] | Sequence[float]

type Indexed = tuple[tuple[str, ...], tuple[Cell, ...], bytes, bytes | None]
"""The names of the columns of a row, their values, its vector, and that as a unit vector if it is kept so, too."""

_SMALL, _LARGE = 1e-15, 1e15
"""Vectors of other lengths are also kept as unit vectors: float32 does not hold the squares of their numbers."""


class VectorRow(WeighedRow):
    """A row that is ready for an index: it may be made in another process.

    Attributes:
        indexed: it as an index keeps it.
    """

    __slots__ = ("indexed",)

    def __init__(self, indexed: Indexed, weight: int) -> None:
        self.indexed: Indexed = indexed
        self.weight: int = weight

    @override
    def __reduce__(self) -> tuple[object, ...]:
        return VectorRow, (self.indexed, self.weight)

    @classmethod
    def of(cls, row: object) -> Self:
        """Make a row ready; raise `RowError` if no index can store it."""
        given = mapping(row)
        if "vector" not in given:
            raise RowError(f"it lacks the column 'vector', got the columns {', '.join(map(repr, given))}")
        try:
            vector, length = _measured(given["vector"])
        except OptionError as error:
            raise RowError(str(error)) from None
        _check_text(given, "text")
        if given.get("title") is not None:
            _check_text(given, "title")
        columns = dict(given)
        del columns["vector"]
        names, values = tuple(columns), cells(columns)
        columns["vector"] = numbers = vector.tobytes()
        scaled = None if _SMALL < length < _LARGE else unit(vector).tobytes()
        return cls((names, values, numbers, scaled), weight(columns))


def vector_of(value: object) -> Vector:
    """Return `value` as a vector; raise `OptionError` if it is none."""
    return _measured(value)[0]


def _measured(value: object) -> tuple[Vector, float]:
    """Return `value` as a vector, and its length."""
    array: NDArray[Any]
    try:
        array = np.asarray(value)
    except ValueError:  # of lists of unlike length
        array = np.empty((0, 0))
    if array.ndim != 1 or not array.size or array.dtype.kind not in "fiu":
        given = f"an array of {array.dtype} {array.shape}" if isinstance(value, np.ndarray) else shown(value)
        raise OptionError(f"vector must be a sequence of numbers, got {given}")
    vector = cast("Vector", array) if array.dtype == np.float32 else _as_float32(array)
    length = _length(vector)
    if not isfinite(length):
        place = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise OptionError(f"vector must have finite numbers that a float32 can hold, got {array[place]} at {place}")
    return vector, length


def _as_float32(array: NDArray[Any]) -> Vector:
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def unit(vector: Vector) -> Vector:
    """Divide `vector` by its length, whatever its numbers are; zeros stay."""
    scaled: Vector = (vector.astype(np.float64) / (_length(vector) or 1)).astype(np.float32)
    return scaled


def _length(vector: Vector) -> float:
    wide = vector.astype(np.float64)  # which holds the squares of all that a float32 holds
    return sqrt(wide.dot(wide))


def _check_text(row: Mapping[str, Any], name: str) -> None:
    text: object = row.get(name)
    if not isinstance(text, str):
        raise RowError(f"{name} must be a str, got {shown(text) if name in row else 'none'}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RowError(f"{name} must be text that UTF-8 can hold, got {text[error.start]!r} at {error.start}") from None
