"""Rows of unfinished roots that wait in the journal, so that they need no memory; this process reads them back.

Others may have written to it meanwhile, so what is read is never code, nor the name of any. A row is packed as results
are that are kept; of a dataclass its fields are. Whatever cannot be packed, its type included, stays in memory, and the
journal has a number for it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Final, cast

from penstock.durable.store import Journal
from penstock.durable.store_errors import DamageError
from penstock.durable.values import PackError, UnpackError, kind_of, pack, pack_list, unpack

_PART: Final = 1_000
_PART_BYTES: Final = 1 << 20
"""Rows that are staged, and read back, together: so many, or as many as come to so many bytes."""


class Staging:
    """Rows that wait, those of a root under a number. Call every method inside a transaction."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._held: dict[int, _Unpacked] = {}
        self._parts: dict[int, list[int]] = {}  # how many rows each part has

    def put(self, number: int, rows: Sequence[Any]) -> None:
        """Let rows wait behind those that wait under this number."""
        held = self._held.setdefault(number, _Unpacked())
        part: list[bytes] = []
        size = 0
        for row in rows:
            part.append(held.packed(row))
            size += len(part[-1])
            if len(part) == _PART or size > _PART_BYTES:
                self._put_part(number, part)
                part, size = [], 0
        if part:
            self._put_part(number, part)

    def _put_part(self, number: int, part: list[bytes]) -> None:
        self._journal.stage(number, pack_list(part))
        self._parts.setdefault(number, []).append(len(part))

    def take(self, number: int) -> Iterator[Any]:
        """Give the rows that wait under a number, as they came, a part at a time; they stay.

        Raises:
            DamageError: they are not those that were put there.
        """
        held, parts = self._held.get(number, _Unpacked()), iter(self._parts.get(number, ()))
        for packed in self._journal.staged(number):
            rows: Any = None
            try:
                rows = unpack(packed, held.restored)
            except UnpackError as error:
                raise self._damage() from error
            if not isinstance(rows, list) or len(cast("list[Any]", rows)) != next(parts, None):
                raise self._damage()
            yield from cast("list[Any]", rows)
        if next(parts, None) is not None:
            raise self._damage()

    def parts(self, number: int) -> int:
        """Return in how many parts the rows wait."""
        return len(self._parts.get(number, ()))

    def back_to(self, parts: Mapping[int, int]) -> None:
        """Forget what was put in behind so many parts, by number: it was not committed."""
        for number, count in parts.items():
            del self._parts.get(number, [])[count:]

    def drop(self, number: int) -> None:
        """Drop the rows that wait under a number; `forget` has to follow when that is committed."""
        self._journal.unstage(number)

    def forget(self, number: int) -> None:
        """Forget what memory holds for rows that were dropped."""
        self._held.pop(number, None)
        self._parts.pop(number, None)

    def _damage(self) -> DamageError:
        return DamageError(
            f"{self._journal.place}: the rows that wait in the journal are not those that were put there"
        )


class _Unpacked:
    """The parts of a root's rows that cannot be packed: they stay in memory, each under a number."""

    def __init__(self) -> None:
        self._values: list[Any] = []
        self._numbers: dict[int, int] = {}  # by the ids of the values

    def packed(self, row: Any) -> bytes:
        try:
            return pack(row, self._stand_in)
        except PackError:  # it is nested too deeply, or in itself
            return pack(row, self._number, whole=True)

    def _stand_in(self, value: Any) -> Any:
        kind = kind_of(value)
        if is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in fields(value)]
            held = [getattr(value, name, self) for name in names]
            if not any(each is self for each in held) and getattr(value, "__dict__", {}).keys() <= set(names):
                return kind, held
        return self._number(value)

    def _number(self, value: Any) -> int:
        number = self._numbers.setdefault(id(value), len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number

    def restored(self, stand_in: Any) -> Any:
        """Return what it stands for; raise `LookupError` or the like if that is nothing."""
        if isinstance(stand_in, int):
            return self._values[stand_in]
        kind, held = stand_in
        made: Any = object.__new__(kind)
        for field, value in zip(fields(kind), held, strict=True):
            object.__setattr__(made, field.name, value)
        return made
