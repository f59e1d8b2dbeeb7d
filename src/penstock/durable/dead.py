"""Dead roots: what failed of them and was set aside; to be looked at, done again or given up."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from penstock.durable.errors import DamageError, StoreError
from penstock.durable.roots import Key
from penstock.durable.sink import Sink, path_of
from penstock.durable.sqlite.connection import Connection, transaction
from penstock.durable.sqlite.journal import Journal, no_run
from penstock.durable.status import reading, writing

_DEAD = (
    "SELECT root.id, run.name, root.key, root.version, dead.id, stage, attempts, error, traceback, item, at "
    "FROM penstock_dead AS dead JOIN penstock_roots AS root ON root.id = dead.root "
    "JOIN penstock_runs AS run ON run.id = root.run ORDER BY root.id, dead.id"
)


type At = Sink | str | os.PathLike[str]
"""A sink, or the path of the database that its journal is in."""


@dataclass(frozen=True, slots=True)
class Letter:
    """An item that failed for good.

    Attributes:
        stage: where.
        attempts: how often it was tried.
        error: why, in a line.
        traceback: why, in full.
        item: what it was, as `repr` has it.
        at: when it was set aside, in seconds since 1970.
    """

    stage: str
    attempts: int
    error: str
    traceback: str
    item: str
    at: float


@dataclass(frozen=True, slots=True)
class DeadRoot:
    """A root that was set aside: of which run, by which key, in which version, and what failed of it."""

    run: str
    key: Key
    version: str
    letters: tuple[Letter, ...]


def dead_roots(sink: At, *, run: str | None = None, keys: Iterable[Key] = ()) -> list[DeadRoot]:
    """The dead roots of a journal, in the order in which they were first seen.

    Args:
        sink: the sink; or the path of its database, or of that beside a `Callback`.
        run: only those of that run.
        keys: only those of these keys; "5" is also the key 5.

    Raises:
        OptionError: it is neither a sink nor a path.
        StoreError: there is no such journal, run or dead root, or it cannot be read.
    """
    path = path_of(sink)
    with reading(path) as connection:
        return [root for _, root in _found(path, connection, run, keys)]


def retry(sink: At, *, run: str | None = None, keys: Iterable[Key] = ()) -> list[DeadRoot]:
    """Have the next run do dead roots again; the arguments are those of `dead_roots`, and so is what is returned.

    Raises:
        HeldError: a process is writing to it.
        StoreError: as for `dead_roots`.
    """
    return _changed(path_of(sink), run, keys, Journal.retry)


def discard(sink: At, *, run: str | None = None, keys: Iterable[Key] = ()) -> list[DeadRoot]:
    """Give dead roots up: they are done, without rows, until they change; otherwise as `retry`.

    In an index of documents, one that had rows in a version before keeps these.
    """
    return _changed(path_of(sink), run, keys, Journal.discard)


def _changed(path: str, run: str | None, keys: Iterable[Key], change: Callable[[Journal, int], None]) -> list[DeadRoot]:
    with writing(path) as (connection, journal), transaction(connection):
        found = list(_found(path, connection, run, keys))
        for number, _ in found:
            change(journal, number)
    return [root for _, root in found]


def _found(path: str, connection: Connection, run: str | None, keys: Iterable[Key]) -> Iterator[tuple[int, DeadRoot]]:
    names = [name for (name,) in connection.select("SELECT name FROM penstock_runs ORDER BY name", (), str)]
    if run is not None and run not in names:
        raise no_run(path, run, names)
    wanted = {str(key) for key in keys}
    roots = [
        (number, DeadRoot(name, key, version, tuple(Letter(*row[5:]) for row in group)))
        for (number, name, key, version), group in groupby(_letters(path, connection), key=itemgetter(0, 1, 2, 3))
        if (run is None or name == run) and (not wanted or str(key) in wanted)
    ]
    if missing := wanted - {str(root.key) for _, root in roots}:
        raise StoreError(f"{path}: no dead root {min(missing)!r}{'' if run is None else f' in run {run!r}'}")
    yield from roots


def _letters(path: str, connection: Connection) -> Iterator[tuple[Any, ...]]:
    """What `_DEAD` finds, each once: the pages of a damaged table may lead to each other."""
    last: tuple[int, int] | None = None
    kinds = (int, str, str | int, str, int, str, int, str, str, str, int | float)
    for row in connection.select(_DEAD, (), *kinds):
        place = row[0], row[4]
        if last is not None and place <= last:
            raise DamageError(f"{path}: the database is damaged: it has a dead letter twice")
        last = place
        yield row
