"""The columns of a table that rows go to: they come with the rows, or are declared and fixed."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import apsw

from penstock.core.errors import OptionError
from penstock.durable.sqlite.connection import Connection
from penstock.durable.store_errors import RowError, StoreError
from penstock.sinks.cells import check_name
from penstock.sinks.declaring import TableOptions
from penstock.sinks.sqlite_store import ROOT, columns_of, lowered, quoted

_TYPE: Final = re.compile(r"(INTEGER|REAL|TEXT|BLOB|ANY)( NOT NULL)?", re.ASCII | re.IGNORECASE)
_PLACES: Final = ("rowid", "_rowid_", "oid")
"""Names that SQLite gives to the place of a row, unless a column has them."""

_KEPT: Final = 1_000
"""Sets of names that are remembered as checked."""


SQLITE_OPTIONS: Final = TableOptions(
    check_name, _TYPE, "INTEGER, REAL, TEXT, BLOB or ANY", lowered, "differ in more than upper and lower case"
)


def declared(columns: object, options: TableOptions = SQLITE_OPTIONS, key: Sequence[str] = ()) -> dict[str, str] | None:
    """Return what `columns=` says as names and types, "" for any type; raise `OptionError` if it breaks the rule."""
    found = options.columns(columns, key)
    if found is None:
        return None
    place_of(found)
    return {name: kind.upper() for name, kind in found.items()}


class Columns:
    """The columns of one table, on the connection that writes.

    Attributes:
        key: the columns in which no two rows are alike; none if there is no key.
    """

    def __init__(
        self,
        connection: Connection,
        path: str,
        table: str,
        *,
        own: Mapping[str, str],
        beside: Sequence[str] = (),
        index: str,
        key: tuple[str, ...] = (),
        fixed: Mapping[str, str] | None = None,
    ) -> None:
        """Learn which columns there are.

        `own` are the columns that the table has beside those of the rows; `beside` are names that are taken elsewhere;
        `index` is the index of `penstock_root`.
        """
        self._connection = connection
        self._path = path
        self._table = table
        self._own = own
        self._taken: frozenset[str] = frozenset((*own, *beside))
        self._index = index
        self._fixed = fixed
        self.key: tuple[str, ...] = key
        self._checked: dict[tuple[str, ...], tuple[tuple[str, ...], tuple[int, ...]]] = {}
        self._inserts: dict[tuple[str, ...], str] = {}
        self._most: int = connection.limit(apsw.SQLITE_LIMIT_COLUMN) - len(own)
        self.known: dict[str, str] = {}
        """By the name as SQLite compares it: never changed, only replaced, as two threads read it."""
        self.learn()

    def learn(self) -> None:
        """Read which columns there are."""
        found = columns_of(self._connection, self._table)
        if found and ROOT not in found:
            raise StoreError(f"{self._path}: the table {self._table} was not made by a durable run")
        self.known = {lowered(name): name for name in found if name not in self._own}

    def check(self, names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Return the names of the columns of a row, and where among them the key is; may be called from any thread.

        Raises:
            RowError: no row can have these columns.
        """
        found = self._checked.get(names)
        if found is None:
            found = self._check(names)
            if len(self._checked) >= _KEPT:
                self._checked.clear()
            self._checked[names] = found
        return found

    def _check(self, names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[int, ...]]:
        if not names:
            raise RowError("a row must have a column, got {}")
        names = tuple(map(check_name, names))
        own = sorted(name for name in names if lowered(name) in self._taken)
        if own and len(self._own) == 1:
            raise RowError(f"a row must have no column {ROOT!r}, which says what root a row came from")
        if own:
            raise RowError(f"a column must not be called {own[0]!r}")
        if len(set(map(lowered, names))) < len(names):
            raise RowError(f"columns must differ in more than upper and lower case, got {', '.join(names)}")
        places = {lowered(name): place for place, name in enumerate(names)}
        if missing := [name for name in self.key if lowered(name) not in places]:
            raise RowError(f"a row lacks the key column {missing[0]!r}, it has {', '.join(map(repr, names))}")
        if self._fixed is not None:
            fixed = set(map(lowered, self._fixed))
            if strange := [name for name in names if lowered(name) not in fixed]:
                raise RowError(
                    f"a row has the column {min(strange)!r}, which is not among the columns that are declared"
                )
        self._refuse_too_many(names)
        place_of(names)
        return names, tuple(places[lowered(name)] for name in self.key)

    def insert(self, names: tuple[str, ...]) -> str:
        """Return the statement that inserts a row of these columns, with our own columns first.

        Add columns that are missing. Called in the transaction of the row, by the thread that writes.
        """
        statement = self._inserts.get(names)
        if statement is None:
            new = [name for name in names if lowered(name) not in self.known]
            if new:
                self._refuse_too_many(names)
                place_of((*self.known.values(), *new))
                self._refuse_to_add_a_place(new)
                self._make(dict.fromkeys(new, ""))
            places = ", ".join("?" * (len(self._own) + len(names)))
            columns = ", ".join(map(quoted, (*self._own, *names)))
            statement = f"INSERT INTO {quoted(self._table)} ({columns}) VALUES ({places})"  # noqa: S608 -- quoted
            if len(self._inserts) >= _KEPT:
                self._inserts.clear()
            self._inserts[names] = statement
        return statement

    def _refuse_to_add_a_place(self, new: Sequence[str]) -> None:
        if self.known and (places := [name for name in new if lowered(name) in _PLACES]):
            raise RowError(
                f"a row has the column {places[0]!r}, which SQLite calls the place of a row and cannot add to a table "
                "that is there; one that is made with it, by columns= or its first row, has it"
            )

    def _refuse_too_many(self, names: Sequence[str]) -> None:
        total = len({*self.known, *map(lowered, names)})
        if total > self._most:
            raise RowError(
                f"the table {self._table} cannot have more than {self._most:,} columns: it has {len(self.known):,}, a "
                f"row has {total - len(self.known):,} others"
            )

    def declare(self) -> None:
        """Add the declared columns that are missing.

        Raises:
            StoreError: the table has one of another type, or has rows that have no value for a new one that is NOT
                NULL.
        """
        fixed = self._fixed
        if fixed is None:
            return
        if len(fixed) > self._most:
            raise OptionError(f"columns must be at most {self._most:,}, got {len(fixed):,}")
        there: dict[str, str] = {}
        for _, name, kind, not_null, *_ in self._connection.execute(f"PRAGMA table_info({quoted(self._table)})"):
            there[lowered(name)] = f"{kind.upper()}{' NOT NULL' if not_null and not self._is_key(name) else ''}"
        for name, kind in fixed.items():
            found = there.get(lowered(name), kind)
            wanted = kind.removesuffix(" NOT NULL") if self._is_key(name) else kind
            if kind and found not in {kind, wanted} and (kind, found) != ("ANY", ""):
                raise StoreError(
                    f"{self._path}: the column {name!r} of the table {self._table} is {found or 'of any type'}, "
                    f"columns says {kind}"
                )
        new = {name: kind for name, kind in fixed.items() if lowered(name) not in self.known}
        if new:
            try:
                self._make(new)
            except StoreError as error:
                if not isinstance(cause := error.__cause__, apsw.SQLError):
                    raise
                raise StoreError(f"{self._path}: a column cannot be added to {self._table}: {cause}") from cause

    def _make(self, new: Mapping[str, str]) -> None:
        """Add columns, and the table if there is none; a table whose columns all have types is strict."""
        execute, table = self._connection.execute, quoted(self._table)
        if self.known:
            for name, kind in new.items():
                execute(f"ALTER TABLE {table} ADD COLUMN {quoted(name)} {kind}")
        else:
            own = [f"{quoted(name)} {kind}" for name, kind in self._own.items()]
            columns = [f"{quoted(name)} {kind}{self._key_of(name, kind)}" for name, kind in new.items()]
            key = [f"UNIQUE ({', '.join(map(quoted, self.key))})"] if len(self.key) > 1 else []
            strict = " STRICT" if all(new.values()) else ""
            execute(f"CREATE TABLE {table} ({', '.join((*own, *columns, *key))}){strict}")
            execute(f"CREATE INDEX {quoted(self._index)} ON {table} ({ROOT})")
        self.known = self.known | {lowered(name): name for name in new}

    def _is_key(self, name: str) -> bool:
        return lowered(name) in map(lowered, self.key)

    def _key_of(self, name: str, kind: str) -> str:
        if not self._is_key(name):
            return ""
        unique = " UNIQUE" if len(self.key) == 1 else ""
        return unique if kind.endswith("NOT NULL") else f" NOT NULL{unique}"

    def back_to(self, known: dict[str, str]) -> None:
        """Forget columns of a transaction that was not committed."""
        self.known = known
        self._inserts.clear()


def place_of(columns: Iterable[str]) -> str:
    """Return SQL's name for the place of a row that no column hides."""
    taken = set(map(lowered, columns))
    for name in _PLACES:
        if name not in taken:
            return name
    raise RowError("columns must not be called rowid, _rowid_ and oid at once: one of them is the place of a row")
