"""Dead roots: lists what failed of them and was set aside, has them done again, or gives them up."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from penstock.durable.journals import At, journal_at
from penstock.durable.roots import Key
from penstock.durable.status import find_run
from penstock.durable.store import Journal, JournalReader
from penstock.durable.store_errors import StoreError


@dataclass(frozen=True, slots=True)
class Letter:
    """An item that failed for good.

    Attributes:
        stage: where.
        attempts: how often it was tried.
        error: why, in a line.
        traceback: why, in full.
        item: what it was, as `repr` shows it.
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
    """A root that was set aside: its run, key and version, and what failed of it."""

    run: str
    key: Key
    version: str
    letters: tuple[Letter, ...]


def dead_roots(sink: At, *, run: str | None = None, keys: Iterable[Key] = ()) -> list[DeadRoot]:
    """Return the dead roots of a journal, in the order in which they were first seen.

    Args:
        sink: the sink; or the path of its database, or of that beside a `Callback`.
        run: only those of that run.
        keys: only those of these keys; "5" is also the key 5.

    Raises:
        OptionError: it is neither a sink nor a path.
        StoreError: there is no such journal, run or dead root, or it cannot be read.
    """
    place = journal_at(sink)
    with place.read() as journal:
        return [root for _, root in _found(place.place, journal, run, keys)]


def retry(sink: At, *, run: str | None = None, keys: Iterable[Key] = ()) -> list[DeadRoot]:
    """Make the next run do dead roots again, and return them; the arguments are those of `dead_roots`.

    Raises:
        HeldError: a process is writing to it.
        StoreError: as for `dead_roots`.
    """
    return _changed(sink, run, keys, lambda journal, root: journal.retry(root))


def discard(sink: At, *, run: str | None = None, keys: Iterable[Key] = ()) -> list[DeadRoot]:
    """Give dead roots up: they count as done, without rows, until they change.

    Arguments, result and errors as for `retry`. In an index of documents, a root that had rows in an earlier version
    keeps these.
    """
    return _changed(sink, run, keys, lambda journal, root: journal.discard(root))


def _changed(sink: At, run: str | None, keys: Iterable[Key], change: Callable[[Journal, int], None]) -> list[DeadRoot]:
    place = journal_at(sink)
    with place.write() as written, written.transaction():
        found = _found(place.place, written.journal, run, keys)
        for number, _ in found:
            change(written.journal, number)
    return [root for _, root in found]


def _found(place: str, journal: JournalReader, run: str | None, keys: Iterable[Key]) -> list[tuple[int, DeadRoot]]:
    if run is not None:
        find_run(place, journal, run)
    wanted = {str(key) for key in keys}
    roots = [
        (number, DeadRoot(name, key, version, tuple(Letter(*each.letter) for each in letters)))
        for (number, name, key, version), letters in groupby(journal.dead(), key=itemgetter(0, 1, 2, 3))
        if (run is None or name == run) and (not wanted or str(key) in wanted)
    ]
    if missing := wanted - {str(root.key) for _, root in roots}:
        raise StoreError(f"{place}: no dead root {min(missing)!r}{'' if run is None else f' in run {run!r}'}")
    return roots
