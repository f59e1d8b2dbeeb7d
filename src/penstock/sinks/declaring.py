"""What `key=` and `columns=` of a table say, in the words of its database."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.durable.store_errors import RowError

type Declared = Sequence[str] | Mapping[str, str]
"""Names of columns, or names with their types in SQL."""


@dataclass(frozen=True)
class TableOptions:
    """Reads `key=` and `columns=` of a table.

    Attributes:
        check: returns the name of a column; raises `RowError` for one that the database cannot have, or that is ours.
        types: what a declared type has to match.
        rule: what types there are, in words.
        alike: what two names have in common that the database takes for one column.
        differ: in what names have to differ.
    """

    check: Callable[[object], str]
    types: re.Pattern[str]
    rule: str
    alike: Callable[[str], str] = str
    differ: str = "differ"

    def key(self, key: object) -> tuple[str, ...]:
        """Return the columns of the key; raise `OptionError` if they cannot be one."""
        if key is None:
            return ()
        given: Any = (key,) if isinstance(key, str) else key
        if not isinstance(given, Sequence) or not given:
            raise OptionError(f"key must be the name of a column, or several, got {key!r}")
        names = tuple(self._name("key", validate.text("key", name)) for name in cast("Sequence[object]", given))
        if len(set(map(self.alike, names))) < len(names):
            raise OptionError(f"key must not have a column twice, got {key!r}")
        return names

    def columns(self, columns: object, key: Sequence[str] = ()) -> dict[str, str] | None:
        """Return names and types, "" where no type is said; raise `OptionError` if they break the rule."""
        if columns is None:
            return None
        rule = f"columns must be names, or a mapping of names to {self.rule}, each also with NOT NULL"
        if isinstance(columns, str) or not isinstance(columns, Iterable):
            raise OptionError(f"{rule}, got {columns!r}")
        pairs: list[tuple[object, object]] = (
            [*cast("Mapping[object, object]", columns).items()]
            if isinstance(columns, Mapping)
            else [(name, "") for name in cast("Iterable[object]", columns)]
        )
        found: dict[str, str] = {}
        for name, kind in pairs:
            found[self._name("columns", name)] = str(kind)
            if isinstance(columns, Mapping) and (not isinstance(kind, str) or not self.types.fullmatch(kind)):
                raise OptionError(f"{rule}, got {kind!r} for {name!r}")
        there = set(map(self.alike, found))
        if len(there) < len(pairs):
            raise OptionError(f"columns must {self.differ}, got {', '.join(repr(name) for name, _ in pairs)}")
        if not found:
            raise OptionError(f"{rule}, got none")
        if strange := [name for name in key if self.alike(name) not in there]:
            raise OptionError(f"columns must have those of the key, got none for {strange[0]!r}")
        return found

    def _name(self, option: str, name: object) -> str:
        try:
            return self.check(name)
        except RowError as error:
            raise OptionError(f"{option}: {error}") from None
