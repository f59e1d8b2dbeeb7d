"""The columns of a table of PostgreSQL that rows go to: they come with the rows, or are declared and fixed."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

from psycopg import sql

from penstock.durable.postgres.postgres_connection import WritingConnection
from penstock.durable.store_errors import RowError, StoreError
from penstock.sinks.cells import check_name as check_text
from penstock.sinks.cells import shown
from penstock.sinks.declaring import TableOptions
from penstock.sinks.postgres_cells import TYPES, Json, PostgresCell

ROOT: Final = "penstock_root"
"""The column that says which root a row came from."""

PLACE: Final = "penstock_row"
"""The column that counts rows as they come."""

_OWN: Final = (ROOT, PLACE)
_SYSTEM: Final = frozenset(("ctid", "cmax", "cmin", "tableoid", "xmax", "xmin"))
_LONGEST: Final = 63
"""Bytes of a name; PostgreSQL cuts longer ones."""

_TYPE: Final = re.compile(r"[A-Za-z_][\w .]*(\(\d+(, ?\d+)?\))?[\w ]*(\[\])*( NOT NULL)?", re.ASCII | re.IGNORECASE)

_SIZE: Final = re.compile(r"\([\d,]+\)")
"""As in `timestamp(3) without time zone`."""

_WHOLE: Final = frozenset(("bigint", "integer", "smallint"))
_PARTS: Final = frozenset(("double precision", "real", "numeric"))
_EXACT: Final = 2**53
"""Whole numbers up to here are the same as numbers of `double precision`."""


def check_name(name: object) -> str:
    """Return the name of a column or table; raise `RowError` if PostgreSQL cannot have it."""
    text = check_text(name)
    if not text or len(text.encode()) > _LONGEST:
        raise RowError(f"a name must have 1 to {_LONGEST} bytes in UTF-8, got {shown(text)}")
    return text


def _not_ours(name: object) -> str:
    name = check_name(name)
    if name in _OWN:
        raise RowError(f"a column must not be called {name!r}, as that of a durable run is")
    if name in _SYSTEM:
        raise RowError(f"a column must not be called {name!r}, as one of PostgreSQL's own is")
    return name


POSTGRES_OPTIONS: Final = TableOptions(_not_ours, _TYPE, "types of PostgreSQL")


class PostgresColumns:
    """The columns of one table, on the connection that writes.

    Attributes:
        known: the type of each column as the server calls it; never changed, only replaced, as two threads read it.
    """

    def __init__(
        self,
        connection: WritingConnection,
        table: sql.Identifier,
        name: str,
        *,
        key: tuple[str, ...],
        fixed: Mapping[str, str] | None,
    ) -> None:
        self._connection = connection
        self._table = table
        self._name = name
        self._key = key
        self._fixed = fixed
        self._checked: dict[tuple[str, ...], tuple[int, ...]] = {}
        self.known: dict[str, str] = {}
        self.learn()

    def learn(self) -> None:
        """Read which columns there are; raise `StoreError` if the table is not one of a durable run."""
        found = self._connection.columns(self._name)
        if found and not found.keys() >= {*_OWN}:
            raise StoreError(f"{self._connection.place}: the table {self._name} was not made by a durable run")
        self.known = {name: kind for name, kind in found.items() if name not in _OWN}

    def check(self, names: tuple[str, ...]) -> tuple[int, ...]:
        """Return where among the names of a row's columns the key is; may be called from any thread.

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

    def _check(self, names: tuple[str, ...]) -> tuple[int, ...]:
        if not names:
            raise RowError("a row must have a column, got {}")
        for name in names:
            _not_ours(name)
            if self._fixed is not None and name not in self._fixed:
                raise RowError(f"a row has the column {name!r}, which is not among the columns that are declared")
        if missing := [name for name in self._key if name not in names]:
            raise RowError(f"a row lacks the key column {missing[0]!r}, it has {', '.join(map(repr, names))}")
        return tuple(names.index(name) for name in self._key)

    def declare(self) -> None:
        """Add the declared columns that are missing and whose type is declared, too.

        Raises:
            StoreError: the server refuses a type, or there are rows that have no value for one that is NOT NULL.
        """
        new = {name: kind for name, kind in (self._fixed or {}).items() if kind and name not in self.known}
        if not new or any(name not in {*new, *self.known} for name in self._key):
            return  # with the first row, whose values say what is left
        self._make(new)

    def fit(
        self, names: tuple[str, ...], rows: Sequence[tuple[PostgresCell, ...]]
    ) -> tuple[tuple[str, ...], list[list[PostgresCell]]]:
        """Return the columns that these rows go to, and their values by column, as the types of these call for.

        Add the columns that are missing, in the open transaction; those that have nothing but NULL are left out.
        """
        by_column = [list(column) for column in zip(*rows, strict=True)]
        kinds = [set(map(type, column)) - {type(None)} for column in by_column]
        known = self.known
        new = {
            name: self._type_for(name, kinds[place])
            for place, name in enumerate(names)
            if name not in known and kinds[place]
        }
        if new:
            self._make(new)
        there = [place for place, name in enumerate(names) if name in self.known]
        for place in there:
            name = names[place]
            if self.known[name] in {"double precision", "real"} and int in kinds[place]:
                _refuse_far(name, self.known[name], by_column[place])
            if kinds[place] - _fitting(self.known[name]):
                by_column[place] = self._fitted(name, by_column[place], kinds[place])
        return tuple(names[place] for place in there), [by_column[place] for place in there]

    def _type_for(self, name: str, kinds: set[type]) -> str:
        """Return the type of a new column: the declared one, or that of its first values."""
        said = (self._fixed or {}).get(name)
        if said:
            return said
        if kinds == {int, float}:
            return TYPES[float]
        if len(kinds) > 1:
            several = ", ".join(sorted(TYPES[each] for each in kinds))
            raise RowError(f"the column {name!r} is new, and its first values are of several types: {several}")
        return TYPES[next(iter(kinds))]

    def _fitted(self, name: str, values: list[PostgresCell], kinds: set[type]) -> list[PostgresCell]:
        """Return values as the type of their column has them; raise `RowError` for the first that it cannot have."""
        kind = self.known[name]
        if kind in _WHOLE and kinds <= {int, float, str} and (self._fixed or {}).get(name, "") == "":
            _refuse_far(name, "double precision", values)
            self._widen(name)
            return values
        if kind in {"jsonb", "json"}:
            return [value if value is None or isinstance(value, Json) else _as_json(value) for value in values]
        if kind.endswith("[]"):
            return [_as_array(name, value) if isinstance(value, Json) else value for value in values]
        wrong = next(value for value in values if value is not None and type(value) not in _fitting(kind))
        raise RowError(
            f"the column {name!r} is of type {kind}, got {shown(wrong)}; columns={{{name!r}: ...}} declares another"
        )

    def _widen(self, name: str) -> None:
        """Let a column of whole numbers have parts, if none of its numbers is changed by it."""
        table, column = self._table, sql.Identifier(name)
        exact = sql.Literal(_EXACT)  # no value: names may have percent signs
        far = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE abs({}::numeric) > {})").format(table, column, exact)
        if self._connection.one(far)[0]:
            raise RowError(
                f"the column {name!r} has whole numbers that no number with parts can be, got one with parts"
            )
        wider = sql.SQL("ALTER TABLE {} ALTER COLUMN {} TYPE double precision").format(table, column)
        self._connection.execute(wider)
        self.known = {**self.known, name: "double precision"}

    def _make(self, new: Mapping[str, str]) -> None:
        """Add columns, and the table if there is none."""
        execute, table = self._connection.execute, self._table
        added = [sql.SQL("{} {}").format(sql.Identifier(name), _sql(kind)) for name, kind in new.items()]
        if self.known:
            execute(
                sql.SQL("ALTER TABLE {} {}").format(
                    table, sql.SQL(", ").join(sql.SQL("ADD COLUMN {}").format(each) for each in added)
                )
            )
        else:
            own = sql.SQL("{} bigint NOT NULL, {} bigint GENERATED ALWAYS AS IDENTITY").format(
                sql.Identifier(ROOT), sql.Identifier(PLACE)
            )
            execute(sql.SQL("CREATE TABLE {} ({})").format(table, sql.SQL(", ").join([own, *added])))
            execute(sql.SQL("CREATE INDEX ON {} ({})").format(table, sql.Identifier(ROOT)))
            if self._key:
                execute(unique(table, self._key))
        self.learn()

    def back_to(self, known: dict[str, str]) -> None:
        """Forget columns of a transaction that was not committed."""
        self.known = known


def unique(table: sql.Identifier, key: Sequence[str]) -> sql.Composed:
    """Return the statement that holds a table to its key."""
    return sql.SQL("CREATE UNIQUE INDEX ON {} ({})").format(table, sql.SQL(", ").join(map(sql.Identifier, key)))


_KEPT: Final = 1_000
"""Sets of names that are remembered as checked."""

_BY_TYPE: Final[Mapping[str, frozenset[type]]] = {
    **{
        of: frozenset((str, each)) for each, of in TYPES.items()
    },  # a date is no time: the server would cut what differs
    "boolean": frozenset((bool, str)),
    "bytea": frozenset((bytes,)),
    "jsonb": frozenset((Json,)),
    "json": frozenset((Json,)),
    **{kind: frozenset((int, str)) for kind in _WHOLE},
    **{kind: frozenset((int, float, str, *(each for each, of in TYPES.items() if of == "numeric"))) for kind in _PARTS},
}
_TEXTS: Final[frozenset[type]] = frozenset((str, *(kind for kind in TYPES if issubclass(kind, str))))
_READ: Final[frozenset[type]] = _TEXTS | {int, float}
"""For a type that is not known here, as a domain: the server reads the number, too."""


def _fitting(kind: str) -> frozenset[type]:
    """Return the types of values that a column of this type takes; a text is read by the server, as COPY reads it."""
    name = _SIZE.sub("", kind)
    if name in {"character varying", "character"}:
        return _BY_TYPE["text"]
    if kind.endswith("[]"):
        return _TEXTS - {Json}
    return _BY_TYPE.get(name, _READ)


def _refuse_far(name: str, kind: str, values: Sequence[PostgresCell]) -> None:
    """Raise `RowError` for a whole number that a number with parts cannot be."""
    for value in values:
        if value.__class__ is int and abs(cast("int", value)) > _EXACT:
            raise RowError(f"the column {name!r} is of type {kind}, which cannot hold {value} exactly")


def _as_json(value: PostgresCell) -> Json:
    from json import dumps  # noqa: PLC0415 -- rare

    if isinstance(value, bytes):
        raise RowError(f"JSON has no bytes, got {shown(value)}")
    return Json(dumps(str(value) if isinstance(value, str) else value, ensure_ascii=False))


def _as_array(name: str, value: Json) -> Any:
    from json import loads  # noqa: PLC0415 -- rare

    found = loads(value)
    if found.__class__ is not list or _has_mapping(found):
        raise RowError(f"the column {name!r} is an array, and takes lists of plain values, got {shown(found)}")
    return found


def _has_mapping(values: Iterable[Any]) -> bool:
    return any(each.__class__ is dict or (each.__class__ is list and _has_mapping(each)) for each in values)


def _sql(kind: str) -> sql.SQL:
    return sql.SQL(cast("Any", kind))  # of `TYPES`, or of the pattern that declared types keep to
