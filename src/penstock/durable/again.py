"""Has roots done again, or a run forgotten, because somebody asks for it."""

import json
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from operator import index
from typing import Final, Literal, SupportsIndex

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.text import named
from penstock.durable.journals import At, journal_at
from penstock.durable.opening import redo_by_other_code
from penstock.durable.roots import Key, can_be_key
from penstock.durable.sink import Sink, identity_of, removes
from penstock.durable.status import find_run
from penstock.durable.store import Journal, JournalPlace, JournalReader, JournalStore, RunRecord, Store
from penstock.durable.store_errors import StoreError

type Which = Literal["all", "dead", "other code", "missing rows"]
"""Which roots of a run: all, the dead ones, those made by other code than the last, those without all their rows."""

_WHICH: Final = ("all", "dead", "other code", "missing rows")
_NAMED: Final = 5
"""Keys that an error names."""

_DIGITS: Final = 20
"""Characters of a number of 64 bits."""

_LOOKED_AT: Final = 1_000
"""Keys that are compared with one that is not there, before it and behind it in the order of keys."""

_MANY: Final = 10_000
"""Roots that one transaction forgets, if their rows are removed, too."""


@dataclass(frozen=True, slots=True)
class ToRedo:
    """What the next run does again: the number of roots of that run, and of their rows, which stay until then."""

    run: str
    roots: int
    rows: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was forgotten: a run with its number of roots; and the number of their rows, which were removed or stay."""

    run: str
    roots: int
    rows: int
    removed: bool


def redo(
    sink: At,
    /,
    *,
    run: str,
    keys: Iterable[Key] | None = None,
    which: Which | None = None,
) -> ToRedo:
    """Make the next run do roots again that are done or dead.

    Their rows stay, and can be read, until new ones replace them, each root's in one transaction. Results that are kept
    (`memo=True`) are recalled, and not paid for again.

    Args:
        sink: where the rows of the run are; or the path of its database, or of the journal beside a `Callback`.
        run: the name of the run.
        keys: the keys of roots, as the source gives them: 5 is not "5". With `merge`, prefixes are a part of them.
        which: in place of keys: "all" roots of the run; those that are "dead"; those made by "other code" than that of
            its last opening; those with "missing rows", which others have removed (needs the sink, not only a path).

    Raises:
        OptionError: an argument breaks its rule, or not exactly one of `keys` and `which` is given.
        HeldError: a process is writing to it.
        StoreError: there is no such journal, run or root, or it cannot be written; then nothing is changed.
    """
    place, whole = _place(sink)
    validate.text("run", run)
    if (keys is None) == (which is None):
        raise OptionError(f"redo needs either keys or which, got keys={keys!r} and which={which!r}")
    if which is not None:
        validate.one_of("which", which, _WHICH)
    wanted = () if keys is None else _checked(keys)
    with _opened(place, whole if which == "missing rows" else None) as (opened, store), opened.transaction():
        journal = opened.journal
        found = find_run(place.place, journal, run)
        _refuse_other_sink(place, found, whole)
        if which is None:
            roots, rows = _redo_keys(place, journal, found, wanted)
        elif which == "missing rows":
            roots, rows = _redo_lost(journal, found, store)
        elif which == "other code":
            roots, rows = _redo_by_other_code(journal, found)
        else:
            roots, rows = journal.redo(found.number, dead=which == "dead")
    return ToRedo(run, roots, rows)


def forget(sink: At, /, *, run: str, rows: Literal["keep", "remove"] = "keep") -> Forgotten:
    """Forget a run: which of its roots are done, what is dead, by which code. The next run of its name starts anew.

    Args:
        sink: where the rows of the run are; or the path of its database, or of the journal beside a `Callback`.
        run: the name of the run.
        rows: what becomes of its rows. "keep" leaves them: they belong to no run any more, so a new run does not
            replace them, but adds its own. "remove" removes them, some at a time (needs the sink, not only a path);
            after a kill, the same call removes the rest. Rows of an index cannot be kept: it finds them by their roots.

    Raises:
        OptionError: an argument breaks its rule.
        HeldError: a process is writing to it.
        StoreError: there is no such journal or run, or it cannot be written.
    """
    place, whole = _place(sink)
    validate.text("run", run)
    removed = validate.one_of("rows", rows, ("keep", "remove")) == "remove"
    with _opened(place, whole if removed else None) as (opened, store):
        with opened.transaction():
            found = find_run(place.place, opened.journal, run)
            _refuse_other_sink(place, found, whole)
        roots_before, rows_before = _remove_all(store, found) if removed else (0, 0)
        with opened.transaction():
            roots, kept = opened.journal.forget_run(found.number)
            if kept and found.sink == "vectors":
                raise StoreError(
                    f"{place.place}: the {kept:,} rows of run {run!r} cannot be kept: an index finds them by their "
                    'roots; rows="remove" removes them (--rows remove on the command line)'
                )
        _drop_memos(opened)
    return Forgotten(run, roots_before + roots, rows_before + kept, removed)


def keys_written(sink: At, run: str, texts: Iterable[str]) -> list[Key]:
    """Find the keys of roots that texts of the command line stand for; raise `StoreError` for those that are not there.

    A text stands for the number that it shows, or for the key that it is, or for the text that it is in JSON, with
    quotes, or for the key that is shown like it, with escapes: the first of these that is there. If both the number 5
    and the text "5" are there, 5 is the number and '"5"' the text.
    """
    place = journal_at(sink)
    with place.read() as journal:
        record = find_run(place.place, journal, run)
        found: list[Key] = []
        missing: list[Key] = []
        for text in texts:
            key = next((key for key in _meanings(text) if _number_of(journal, record, key) is not None), None)
            (missing if key is None else found).append(text if key is None else key)
        if missing:
            raise _not_there(place, journal, record, missing)
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


def _place(sink: At) -> tuple[JournalPlace, Sink | None]:
    """Return where the journal is, and the sink unless only a path was given."""
    if isinstance(sink, str | os.PathLike):
        return journal_at(validate.path("sink", sink)), None
    return journal_at(sink), sink


def _checked(keys: Iterable[Key]) -> list[Key]:
    if isinstance(keys, str):
        raise OptionError(f"keys must be several keys, as a list, got {keys!r}")
    return [key if isinstance(key, str) else _number(key) for key in keys]


def _number(key: object) -> int:
    if isinstance(key, bool) or not isinstance(key, SupportsIndex):
        raise OptionError(f"keys must be str or int, got {key!r}")
    return index(key)


@contextmanager
def _opened(place: JournalPlace, sink: Sink | None) -> Generator[tuple[JournalStore, Store | None]]:
    """Open the journal for writing; with a `sink`, its whole store, to change rows, too."""
    if sink is None or not removes(sink):
        with place.write() as written:
            yield written, None
        return
    with place.read():  # a sink makes what is not there
        pass
    with closing(sink.open("process")) as store:
        yield store, store


def _refuse_other_sink(place: JournalPlace, run: RunRecord, sink: Sink | None) -> None:
    if sink is not None and run.sink not in {"", identity_of(sink)}:
        raise StoreError(f"{place.place}: the run {run.name!r} is into {run.sink}, not into {identity_of(sink)}")


def _with_rows(store: Store | None, what: str) -> Store:
    if store is None:
        raise OptionError(
            f"{what} needs the sink that has them, as penstock.SqliteTable('rows.db', 'rows'), not only a path; "
            "the rows of a Callback are where it brought them"
        )
    return store


def _number_of(journal: JournalReader, run: RunRecord, key: Key) -> int | None:
    known = journal.known(run.number, key) if can_be_key(key) else None
    return None if known is None else known[0]


def _redo_keys(place: JournalPlace, journal: Journal, run: RunRecord, keys: Sequence[Key]) -> tuple[int, int]:
    found = {key: _number_of(journal, run, key) for key in keys}
    if missing := [key for key, root in found.items() if root is None]:
        raise _not_there(place, journal, run, missing)
    roots = [root for root in found.values() if root is not None]
    for root in roots:
        journal.retry(root)
    return len(roots), sum(map(journal.rows_of, roots))


def _redo_lost(journal: Journal, run: RunRecord, store: Store | None) -> tuple[int, int]:
    lost = _with_rows(store, f'which="missing rows" of run {run.name!r}').lost(run.number)
    for root, there in lost:
        journal.retry(root, there)
    return len(lost), sum(there for _, there in lost)


def _redo_by_other_code(journal: Journal, run: RunRecord) -> tuple[int, int]:
    if not run.codes:
        return 0, 0
    codes, roots, rows = redo_by_other_code(journal, run.number, run.codes, run.codes[-1][1])
    journal.put_codes(run.number, codes)
    return roots, rows


def _remove_all(given: Store | None, run: RunRecord) -> tuple[int, int]:
    """Remove the rows of all roots and forget these, some at a time; return the numbers of both."""
    store = _with_rows(given, f'rows="remove" for run {run.name!r}')
    roots = rows = 0
    with store.transaction():
        store.lost(run.number)  # where others have removed rows, an index has something left of them
    while True:
        with store.transaction():
            some, least = store.journal.some_roots(run.number, _MANY), rows
            for root in some:
                if rows - least >= store.largest:
                    break
                store.replace(root, ())
                rows += store.journal.forget(root.number)
                roots += 1
        if not some:
            return roots, rows


def _drop_memos(opened: JournalStore) -> None:
    """Drop what is kept for stages that are part of no run any more."""
    stage: bytes | None = b""
    while stage is not None:
        with opened.transaction():
            stage = opened.journal.unused_memo()
            if stage is not None:
                opened.journal.drop_memo(stage)


def _not_there(place: JournalPlace, journal: JournalReader, run: RunRecord, keys: Sequence[Key]) -> StoreError:
    """Make the error for keys of no root; it names some that are like the first."""
    near = keys[0] if can_be_key(keys[0]) else ""
    around = {str(key): key for key in journal.keys_near(run.number, near, _LOOKED_AT)}
    wanted = str(keys[0])
    like = [each for each in around if each.endswith(wanted)] or get_close_matches(wanted, around, _NAMED) or around
    there = ", ".join(named(around[each]) for each in islice(like, _NAMED)) or "none"
    missing = ", ".join(map(named, keys[:_NAMED])) + (f" and {len(keys) - _NAMED:,} more" if len(keys) > _NAMED else "")
    others = " and others" if len(around) > _NAMED else ""
    return StoreError(f"{place.place}: no root {missing} in run {run.name!r}, there are {there}{others}")
