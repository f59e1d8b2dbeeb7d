"""What is done, done again or forgotten, because somebody asks for it."""

import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from itertools import islice
from operator import index
from typing import Final, Literal, SupportsIndex

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.text import named
from penstock.durable.errors import StoreError
from penstock.durable.roots import Key
from penstock.durable.sink import Sink, Store, identity_of, path_of, removes
from penstock.durable.sqlite.connection import transaction
from penstock.durable.sqlite.journal import Journal
from penstock.durable.status import reading, writing

type Which = Literal["all", "dead", "other code", "missing rows"]
"""Roots of a run: every one, those that are dead, those by other code than the last, those without all their rows."""

_WHICH: Final = ("all", "dead", "other code", "missing rows")
_NAMED: Final = 5
"""Keys that are named in an error."""

_DIGITS: Final = 20
"""Characters of a number of 64 bits."""

_LOOKED_AT: Final = 1_000
"""Keys that are compared with one that is not there, before it in the order of keys and behind it."""

_MANY: Final = 10_000
"""Roots that are forgotten in one transaction, where their rows are removed, too."""


@dataclass(frozen=True, slots=True)
class ToRedo:
    """What the next run does again: so many roots of that run, and their rows, which stay until it has."""

    run: str
    roots: int
    rows: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was forgotten: a run with so many roots; and their rows, which were removed or stay where they are."""

    run: str
    roots: int
    rows: int
    removed: bool


def redo(
    sink: Sink | str | os.PathLike[str],
    /,
    *,
    run: str,
    keys: Iterable[Key] | None = None,
    which: Which | None = None,
) -> ToRedo:
    """Have the next run do roots again that are done or dead.

    Their rows stay, and can be read, until each root's are replaced by new ones in one transaction. Results that are
    kept (`memo=True`) are recalled, and not paid for again.

    Args:
        sink: where the rows of the run are; or the path of its database, or of the journal beside a `Callback`.
        run: the name of the run.
        keys: the keys of roots, as the source gives them: 5 is not "5". With `merge`, prefixes are a part of them.
        which: in place of keys: "all" roots of the run; those that are "dead"; those that were made by "other code"
            than that of its last opening; those with "missing rows", which others have removed (needs the sink, not
            only a path).

    Raises:
        OptionError: an argument breaks its rule, or it is not one of `keys` and `which`.
        HeldError: a process is writing to it.
        StoreError: there is no such journal, run or root, or it cannot be written; then nothing is changed.
    """
    path, place = _place(sink)
    validate.text("run", run)
    if (keys is None) == (which is None):
        raise OptionError(f"redo needs either keys or which, got keys={keys!r} and which={which!r}")
    if which is not None:
        validate.one_of("which", which, _WHICH)
    wanted = () if keys is None else _checked(keys)
    with _opened(path, place if which == "missing rows" else None) as (journal, transact, store), transact():
        number, identity = journal.find_run(run)
        if place is not None:
            _refuse_other_sink(path, run, identity, place)
        if which is None:
            roots, rows = _redo_keys(path, journal, number, run, wanted)
        elif which == "missing rows":
            roots, rows = _redo_lost(journal, number, run, store)
        elif which == "other code":
            roots, rows = journal.redo_by_other_code(number)
        else:
            roots, rows = journal.redo(number, dead=which == "dead")
    return ToRedo(run, roots, rows)


def forget(sink: Sink | str | os.PathLike[str], /, *, run: str, rows: Literal["keep", "remove"] = "keep") -> Forgotten:
    """Forget a run: which of its roots are done, what is dead, by which code; the next one of its name is a new one.

    Args:
        sink: where the rows of the run are; or the path of its database, or of the journal beside a `Callback`.
        run: the name of the run.
        rows: what becomes of its rows. "keep" leaves them: they belong to no run any more, and a new one does not
            replace them, but adds its own. "remove" removes them, some at a time (needs the sink, not only a path):
            after a kill, the same again removes the rest. Those of an index cannot be kept: it finds them by their
            roots.

    Raises:
        OptionError: an argument breaks its rule.
        HeldError: a process is writing to it.
        StoreError: there is no such journal or run, or it cannot be written.
    """
    path, place = _place(sink)
    validate.text("run", run)
    removed = validate.one_of("rows", rows, ("keep", "remove")) == "remove"
    with _opened(path, place if removed else None) as (journal, transact, store):
        with transact():
            number, identity = journal.find_run(run)
            if place is not None:
                _refuse_other_sink(path, run, identity, place)
        roots_before, rows_before = _remove_all(store, transact, number, run) if removed else (0, 0)
        with transact():
            roots, kept = journal.forget_run(number)
            if kept and identity == "vectors":
                raise StoreError(
                    f"{path}: the {kept:,} rows of run {run!r} cannot be kept: an index finds them by their roots; "
                    'rows="remove" removes them (--rows remove on the command line)'
                )
        _drop_memos(journal, transact)
    return Forgotten(run, roots_before + roots, rows_before + kept, removed)


def keys_written(path: str, run: str, texts: Iterable[str]) -> list[Key]:
    """The keys of roots as the command line has them; `StoreError` names those that are not there.

    A text stands for the number that it shows, or for the key that it is, or for the text that it is in JSON, with
    quotes, or for the one that is shown like it, with escapes: the first of these that is there. Where the number 5 and
    the text "5" both are, 5 is the number and '"5"' the text.
    """
    with reading(path) as connection:
        journal = Journal(path, connection)
        number, _ = journal.find_run(run)
        found: list[Key] = []
        missing: list[Key] = []
        for text in texts:
            key = next((key for key in _meanings(text) if journal.find_root(number, key)), None)
            (missing if key is None else found).append(text if key is None else key)
        if missing:
            raise _not_there(path, journal, number, run, missing)
        return found


def _meanings(text: str) -> Iterator[Key]:
    if len(text) <= _DIGITS and text.isascii() and text.removeprefix("-").isdigit() and str(int(text)) == text:
        yield int(text)
    yield text
    if text.startswith('"'):
        with suppress(ValueError):
            yield str(json.loads(text))
    if "\\" in text and text.isascii():
        with suppress(UnicodeDecodeError):
            yield text.encode().decode("unicode_escape")


def _place(sink: Sink | str | os.PathLike[str]) -> tuple[str, Sink | None]:
    if isinstance(sink, str | os.PathLike):
        return validate.path("sink", sink), None
    return path_of(sink), sink


def _checked(keys: Iterable[Key]) -> list[Key]:
    if isinstance(keys, str):
        raise OptionError(f"keys must be several keys, as a list, got {keys!r}")
    return [key if isinstance(key, str) else _number(key) for key in keys]


def _number(key: object) -> int:
    if isinstance(key, bool) or not isinstance(key, SupportsIndex):
        raise OptionError(f"keys must be str or int, got {key!r}")
    return index(key)


type _Transact = Callable[[], AbstractContextManager[None]]


@contextmanager
def _opened(path: str, sink: Sink | None) -> Generator[tuple[Journal, _Transact, Store | None]]:
    """The journal, what makes a transaction, and the store where its rows are asked for."""
    if sink is None or not removes(sink):
        with writing(path) as (connection, journal):
            yield journal, partial(transaction, connection), None
        return
    with reading(path):  # a sink makes what is not there
        pass
    with closing(sink.open("process")) as store:
        yield store.journal, store.transaction, store


def _refuse_other_sink(path: str, run: str, identity: str, sink: Sink) -> None:
    if identity not in {"", identity_of(sink)}:
        raise StoreError(f"{path}: the run {run!r} is into {identity}, not into {identity_of(sink)}")


def _with_rows(store: Store | None, what: str) -> Store:
    if store is None:
        raise OptionError(
            f"{what} needs the sink that has them, as penstock.SqliteTable('rows.db', 'rows'), not only a path; "
            "the rows of a Callback are where it brought them"
        )
    return store


def _redo_keys(path: str, journal: Journal, number: int, run: str, keys: Sequence[Key]) -> tuple[int, int]:
    found = {key: journal.find_root(number, key) for key in keys}
    if missing := [key for key, root in found.items() if root is None]:
        raise _not_there(path, journal, number, run, missing)
    rows = 0
    for root in found.values():
        if root is not None:
            journal.retry(root[0])
            rows += root[1]
    return len(found), rows


def _redo_lost(journal: Journal, number: int, run: str, store: Store | None) -> tuple[int, int]:
    lost = _with_rows(store, f'which="missing rows" of run {run!r}').lost(number)
    for root, there in lost:
        journal.redo_lost(root, there)
    return len(lost), sum(there for _, there in lost)


def _remove_all(given: Store | None, transact: _Transact, number: int, run: str) -> tuple[int, int]:
    """Remove the rows of all roots and forget these, some at a time; how many of both."""
    store = _with_rows(given, f'rows="remove" for run {run!r}')
    roots = rows = 0
    with transact():
        store.lost(number)  # where others have removed rows, an index has something left of them
    while True:
        with transact():
            some, least = store.journal.some_roots(number, _MANY), rows
            for root in some:
                if rows - least >= store.largest:
                    break
                store.replace(root, ())
                rows += store.journal.forget(root)
                roots += 1
        if not some:
            return roots, rows


def _drop_memos(journal: Journal, transact: _Transact) -> None:
    more = True
    while more:
        with transact():
            more = journal.drop_unused_memo()


def _not_there(path: str, journal: Journal, number: int, run: str, keys: Sequence[Key]) -> StoreError:
    """The error for keys of no root, with some that are like the first."""
    around = {str(key): key for key in journal.keys_near(number, keys[0], _LOOKED_AT)}
    wanted = str(keys[0])
    like = [each for each in around if each.endswith(wanted)] or get_close_matches(wanted, around, _NAMED) or around
    there = ", ".join(named(around[each]) for each in islice(like, _NAMED)) or "none"
    missing = ", ".join(map(named, keys[:_NAMED])) + (f" and {len(keys) - _NAMED:,} more" if len(keys) > _NAMED else "")
    others = " and others" if len(around) > _NAMED else ""
    return StoreError(f"{path}: no root {missing} in run {run!r}, there are {there}{others}")
