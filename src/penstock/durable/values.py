"""Values as bytes: the same in every process, read back exactly; reading them runs no code.

It packs `None`, `bool`, `int`, `float`, `complex`, `str`, `bytes`, `list`, `tuple`, `dict`, `set`, `frozenset`, dates,
times, `timedelta`, `Decimal`, `UUID`, paths, and numpy's arrays and scalars, of exactly these types. A digest takes
more, as nothing is read back from it.
"""

import re
import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Final, cast
from uuid import UUID

from penstock.core.errors import PenstockError

type StandIn = Callable[[Any], Any]
"""Returns what stands for a value that cannot be packed: one that can, or has a stand-in itself; raises `PackError`."""

_COUNT: Final = struct.Struct("<Q")
_INT: Final = struct.Struct("<q")
_FLOAT: Final = struct.Struct("<d")
_COMPLEX: Final = struct.Struct("<dd")


class PackError(PenstockError):
    """A value of a type that cannot be packed; `kind` is that type."""

    def __init__(self, kind: type[Any]) -> None:
        super().__init__(f"{type_name(kind)} cannot be packed")
        self.kind: type[Any] = kind


class TooDeepError(PackError):
    """A value that holds itself, or others too deep in each other."""


class UnpackError(PenstockError):
    """The bytes are not those of a packed value."""


def pack(value: Any, stand_in: StandIn | None = None, *, whole: bool = False) -> bytes:
    """Return `value` as bytes; raise `PackError` if it could not be read back exactly.

    A value with a `stand_in` is packed as that, and read back by what `unpack` is given; with `whole`, every value is.
    """
    out = bytearray()
    packing = _Packing(out, _none if stand_in is None else stand_in, canonical=False)
    try:
        packing.add_stand_in(value) if whole else packing.add(value)
    except RecursionError:
        raise TooDeepError(kind_of(value)) from None
    return bytes(out)


def pack_list(parts: Sequence[bytes]) -> bytes:
    """Return a list as bytes, from the bytes of its elements."""
    return b"l" + _COUNT.pack(len(parts)) + b"".join(parts)


def digest(value: Any, stand_in: StandIn | None = None) -> bytes:
    """Return 16 bytes that tell `value` from all others; dicts and sets with the same entries have the same.

    Beside what can be packed, it takes enum members, paths, dates, times, `Decimal`, `Fraction`, `UUID`, named tuples
    and dataclasses of such values, and anything that has a `stand_in`.
    """
    out = bytearray()
    try:
        _Packing(out, plain_stand_in if stand_in is None else stand_in, canonical=True).add(value)
    except RecursionError:
        raise PackError(kind_of(value)) from None
    return blake2b(out, digest_size=16).digest()


def unpack(packed: bytes, restored: StandIn | None = None) -> Any:
    """Return the value that was packed; raise `UnpackError` if `pack` did not make the bytes.

    `restored` returns the value that something stands for.
    """
    unpacking = _Unpacking(packed, restored)
    try:
        value = unpacking.take()
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, struct.error) as error:
        raise UnpackError(f"not a packed value: {error}") from None
    if not unpacking.is_at_its_end:
        raise UnpackError("not a packed value: it goes on behind its end")
    return value


def plain_stand_in(value: Any) -> Any:
    """Return what stands for a value that is known by its type and its content."""
    kind = kind_of(value)
    if isinstance(value, Enum):
        return type_name(kind), value.name
    if isinstance(value, PurePath):
        return type_name(kind), str(value)
    if kind.__module__ in _BY_REPR and isinstance(value, date | time | timedelta | Decimal | Fraction | UUID):
        return type_name(kind), repr(value)
    if is_dataclass(value):
        return type_name(kind), {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return type_name(kind), tuple(cast("tuple[Any, ...]", value))
    raise PackError(kind)


def kind_of(value: object) -> type[Any]:
    """Return the type of a value."""
    return type(value)


def type_name(kind: type[Any]) -> str:
    """Return the name of a type, with its module."""
    return f"{kind.__module__}.{kind.__qualname__}"


_BY_REPR: Final = {"datetime", "decimal", "fractions", "uuid"}
"""Modules whose types have a `repr` that tells all; that of a subclass may not."""


def _none(value: Any) -> Any:
    raise PackError(kind_of(value))


class _Packing:
    """Appends values to `out`: a letter for the type, then the content. `canonical` ignores the order of dicts."""

    def __init__(self, out: bytearray, stand_in: StandIn, *, canonical: bool) -> None:
        self._out = out
        self._stand_in = stand_in
        self._canonical = canonical

    def add(self, value: Any) -> None:
        kind = kind_of(value)
        if kind is str:
            self._sized(b"s", value.encode("utf-8", "surrogatepass"))
        elif value is None or kind is bool:
            self._out += b"N" if value is None else b"T" if value else b"F"
        elif kind is int:
            self._add_int(value)
        elif kind is float or kind is complex:
            self._out += b"f" + _FLOAT.pack(value) if kind is float else b"c" + _COMPLEX.pack(value.real, value.imag)
        elif kind is bytes:
            self._sized(b"b", value)
        elif kind is list or kind is tuple:
            self._add_sequence(value, b"l" if kind is list else b"t")
        elif kind is dict:
            self._add_dict(value)
        elif kind is set or kind is frozenset:
            self._begin(b"S" if kind is set else b"Z", len(value))
            self._out += b"".join(sorted(map(self._alone, value)))
        elif not (self._add_numpy(kind, value) or (not self._canonical and self._add_text(kind, value))):
            self.add_stand_in(value)

    def add_stand_in(self, value: Any) -> None:
        self._out += b"o"
        self.add(self._stand_in(value))

    def _add_text(self, kind: type[Any], value: Any) -> bool:
        """Append the text form of a value, if the text tells all of it: it does not tell the place of a time zone."""
        name = kind.__name__
        if _TEXTS.get(name, (None,))[0] is not kind:
            return False
        text = value.isoformat() if kind in _ISO else str(value)
        if kind is timedelta:
            text = f"{value.days} {value.seconds} {value.microseconds}"
        with suppress(ValueError):
            if repr(_TEXTS[name][1](text)) == repr(value):
                self._out += b"x"
                self.add(name)
                self.add(text)
                return True
        return False

    def _add_int(self, value: int) -> None:
        if -(2**63) <= value < 2**63:
            self._out += b"i" + _INT.pack(value)
        else:
            self._sized(b"I", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))

    def _add_sequence(self, values: Any, letter: bytes) -> None:
        if len(values) > 1 and set(map(type, values)) == {float}:
            self._begin(b"L" if letter == b"l" else b"U", len(values))
            self._out += _little(array("d", values)).tobytes()
            return
        self._begin(letter, len(values))
        for value in values:
            self.add(value)

    def _add_dict(self, values: dict[Any, Any]) -> None:
        self._begin(b"d", len(values))
        if self._canonical:
            self._out += b"".join(sorted(self._alone(key, value) for key, value in values.items()))
            return
        for key, value in values.items():
            self.add(key)
            self.add(value)

    def _alone(self, *values: Any) -> bytes:
        alone = _Packing(bytearray(), self._stand_in, canonical=self._canonical)
        for value in values:
            alone.add(value)
        return bytes(alone._out)

    def _add_numpy(self, kind: type[Any], value: Any) -> bool:
        numpy = sys.modules.get("numpy")
        if numpy is None or not (kind is numpy.ndarray or issubclass(kind, numpy.generic)):
            return False
        if value.dtype.hasobject or value.dtype.names:
            return False
        self._out += b"a" if kind is numpy.ndarray else b"n"
        self.add(value.dtype.str)
        self.add(value.shape)
        self._sized(b"b", value.tobytes())
        return True

    def _sized(self, letter: bytes, content: bytes) -> None:
        self._begin(letter, len(content))
        self._out += content

    def _begin(self, letter: bytes, count: int) -> None:
        self._out += letter + _COUNT.pack(count)


class _Unpacking:
    """Reads values from what `_Packing` has written."""

    def __init__(self, packed: bytes, restored: StandIn | None) -> None:
        self._packed = packed
        self._restored = restored
        self._at = 0

    def take(self) -> Any:
        letter = self._bytes(1)
        if letter in _CONSTANTS:
            return _CONSTANTS[letter]
        if letter == b"i":
            return _INT.unpack(self._bytes(8))[0]
        if letter == b"f":
            return _FLOAT.unpack(self._bytes(8))[0]
        if letter == b"c":
            return complex(*_COMPLEX.unpack(self._bytes(16)))
        return self._nested(letter) if letter in _NESTED else self._sized(letter)

    def _sized(self, letter: bytes) -> Any:
        count = self._count()
        if letter in {b"L", b"U"}:
            floats = _little(array("d", self._bytes(8 * count)))
            return floats.tolist() if letter == b"L" else tuple(floats)
        if letter == b"s":
            return self._bytes(count).decode("utf-8", "surrogatepass")
        if letter == b"b":
            return self._bytes(count)
        if letter == b"I":
            return int.from_bytes(self._bytes(count), "little", signed=True)
        if letter == b"d":
            return {self.take(): self.take() for _ in range(count)}
        return _COLLECTIONS[letter](self.take() for _ in range(count))

    def _nested(self, letter: bytes) -> Any:
        if letter == b"x":
            return _TEXTS[self.take()][1](self.take())
        if letter != b"o":
            return self._array(letter)
        if self._restored is None:
            raise ValueError("it has what stands for something else")
        return self._restored(self.take())

    def _array(self, letter: bytes) -> Any:
        import numpy as np  # noqa: PLC0415 -- only for those who have stored arrays

        kind, shape, content = self.take(), self.take(), self.take()
        if not isinstance(kind, str) or not _DTYPE.fullmatch(kind):
            raise ValueError("it has an array of no type")
        read: Any = np.frombuffer
        values: Any = read(content, kind).reshape(shape)
        return values.copy() if letter == b"a" else values[()]

    def _count(self) -> int:
        return int(_COUNT.unpack(self._bytes(8))[0])

    def _bytes(self, count: int) -> bytes:
        found = self._packed[self._at : self._at + count]
        self._at += count
        if len(found) < count:
            raise ValueError("it ends too early")
        return found

    @property
    def is_at_its_end(self) -> bool:
        """Whether all was read."""
        return self._at == len(self._packed)


_COLLECTIONS: Final[dict[bytes, Callable[[Iterable[Any]], Any]]] = {b"l": list, b"t": tuple, b"S": set, b"Z": frozenset}
_DTYPE: Final = re.compile(r"[<>|=]?[biufcSUVMm]\d*(\[\w+\])?")


def _delta(text: str) -> timedelta:
    days, seconds, microseconds = map(int, text.split())
    return timedelta(days, seconds, microseconds)


_ISO: Final = frozenset((date, time, datetime))
_KINDS: Final[tuple[tuple[type[Any], Callable[[str], Any]], ...]] = (
    (date, date.fromisoformat),
    (time, time.fromisoformat),
    (datetime, datetime.fromisoformat),
    (timedelta, _delta),
    *((kind, kind) for kind in (Decimal, UUID, PurePosixPath, PureWindowsPath, type(Path()))),
)
_TEXTS: Final = {kind.__name__: (kind, read) for kind, read in _KINDS}
"""Types whose text tells all, and what reads it."""

_NESTED: Final = frozenset((b"a", b"n", b"o", b"x"))
"""Letters of values that consist of a type and a value, or the like, which are packed themselves."""

_CONSTANTS: Final = {b"N": None, b"T": True, b"F": False}


def _little(floats: "array[float]") -> "array[float]":
    if sys.byteorder == "big":  # pragma: no cover -- no such machine here
        floats.byteswap()
    return floats
