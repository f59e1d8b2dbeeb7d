"""What a durable run asks of the place that it writes to: a store of rows, with the journal in it.

SQLite keeps this contract in `penstock.durable.sqlite`; `tests/durable/memory.py` keeps it in memory.

- There is one writer at a time; the next one can write as soon as that one is dead.
- Changes, and questions to a `Journal`, stand inside `Store.transaction()`: all or nothing.
- A store is asked one thing at a time, but by two threads: by that of the loop before and after the run, and by that of
  the writer meanwhile. It may connect at the first question.
- A `JournalReader` is asked on the loop while the writer writes. It sees what is committed; an answer takes
  milliseconds.
- Keys have an order: numbers before text, text by its code points.
- The number of a root is never given twice, even if the root is forgotten: there may be rows that have it.
- What others have written is not trusted: an impossible value is a `DamageError`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from penstock.durable.fingerprint import StageCode
from penstock.durable.letters import DeadLetter
from penstock.durable.made_by import MadeBy, is_by_other_code
from penstock.durable.roots import Key, Root, RootId
from penstock.durable.store_errors import RowError

type Known = tuple[int, str, int, int, int]
"""A settled root: its number, version, state, opening of the run, and place in the source."""


class KnownRoots(NamedTuple):
    """Settled roots in the order of their keys, in columns: so that many can be compared without a step for each."""

    keys: Sequence[Key] = ()
    numbers: Sequence[int] = ()
    versions: Sequence[str] = ()
    states: Sequence[int] = ()
    times: Sequence[int] = ()
    positions: Sequence[int] = ()

    def at(self, place: int) -> Known:
        """Return what is known of one of them."""
        return self.numbers[place], self.versions[place], self.states[place], self.times[place], self.positions[place]


type Reach = Callable[[int, int], int]
"""Notes that a source (by number) is read up to a position; returns from which position it wants to be told again."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a journal knows of a run.

    Attributes:
        number: by which the journal knows it.
        name, source, sink: its name, and the names of its ends.
        owner: who runs it, or ran it last.
        times: how often it was opened.
        clean: whether it was left in order since.
        began: when it was opened last, in seconds since 1970.
        ended: when it came to its end after that, or None.
        codes: which code made its roots.
    """

    number: int
    name: str
    source: str
    sink: str
    owner: str
    times: int
    clean: bool
    began: float
    ended: float | None
    codes: MadeBy


class RootCount(NamedTuple):
    """How many roots of a run are in a state since an opening (0: to be done again), and how many rows they have."""

    run: int
    state: int
    times: int
    roots: int
    rows: int


class DeadRecord(NamedTuple):
    """A letter of a dead root: the number of the root, the name of its run, its key and version, and the letter."""

    root: int
    run: str
    key: Key
    version: str
    letter: DeadLetter


class Death(NamedTuple):
    """An opening that died: whether it noted what it began; if not, how far it had read each source, if known."""

    opening: int
    noted: bool
    reached: Sequence[int]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A root that was under way when a process died: its place, its source, and how many times it was under way."""

    key: Key
    version: str
    position: int
    attempts: int
    source: int = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """One opening of a run.

    Attributes:
        times: counts the openings, from 1.
        clean: whether the one before was left in order, not killed.
        changed: the stages whose code is not what it was in the opening before.
        codes: which code made roots; the last is that of this opening.
        keeps_rows_of_dead: whether a root that fails keeps the rows of the version before.
        notes: whether it is noted which roots are begun, as a process has died.
        lost: roots that are done and of which rows are not there any more.
    """

    id: int
    name: str
    times: int
    clean: bool
    changed: tuple[str, ...] = ()
    codes: MadeBy = ()
    keeps_rows_of_dead: bool = False
    notes: bool = False
    lost: int = 0

    def is_by_other_code(self, times: int) -> bool:
        """Whether the code of that opening was another one."""
        return is_by_other_code(self.codes, times)


class JournalReader(Protocol):
    """The questions to a journal; they change nothing."""

    @property
    def place(self) -> str:
        """Where it is, for messages; of a file its path."""
        ...

    def writer(self) -> str:
        """Who writes to it now, in the words of `penstock.durable.owner`.

        Empty if nobody does, or it cannot be known.
        """
        ...

    def run(self, name: str) -> RunRecord | None:
        """Return the run of that name."""
        ...

    def runs(self) -> Sequence[RunRecord]:
        """Return all runs; the one opened last comes first."""
        ...

    def stages(self, run: int) -> Sequence[StageCode]:
        """Return the stages that a run had when it was opened last."""
        ...

    def counts(self) -> Iterable[RootCount]:
        """Count the roots of all runs."""
        ...

    def known(self, run: int, key: Key) -> Known | None:
        """Return what is known of a root."""
        ...

    def known_from(self, run: int, key: Key, most: int) -> KnownRoots:
        """Return at most so many roots from that key on."""
        ...

    def settled(self, run: int, after: Key | None, most: int) -> Sequence[tuple[int, Key, int]]:
        """Return the roots after that key, or from the first on, in the order of keys: number, key, opening."""
        ...

    def count_settled(self, run: int, after: Key | None, most: int, *, but: int) -> tuple[int, Key | None]:
        """Count the roots of the next `most` keys after that one that were settled in other openings than `but`.

        Return the last of these keys, too; None if there are no more.
        """
        ...

    def rows_of(self, root: int) -> int:
        """Return how many rows were stored of a root."""
        ...

    def keys_near(self, run: int, key: Key, most: int) -> Sequence[Key]:
        """Return so many keys from that one on, and so many before it: for messages."""
        ...

    def dead(self) -> Iterable[DeadRecord]:
        """Give the letters of all dead roots, by the numbers of the roots; letters of one root in their order."""
        ...

    def recall(self, stage: bytes, item: bytes) -> bytes | None:
        """Return what is kept for a stage of an item."""
        ...

    def unused_memo(self) -> bytes | None:
        """Return a stage that results are kept for and that is part of no run any more; not the `note_key` of a run."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Deaths(Protocol):
    """What was under way when a process died: for each opening that was killed, the roots that it had begun."""

    def enter(self, run: int, opening: int) -> bool:
        """Count an opening as dead until its run is left; return whether others are, so that it notes what it begins.

        What is known of others than the last two of them is forgotten.
        """
        ...

    def last(self, run: int) -> Sequence[Death]:
        """Return the last two openings that died, the later one first."""
        ...

    def dispatch(self, run: int, opening: int, root: Root) -> None:
        """Note that a root is begun."""
        ...

    def begun(self, run: int, opening: int) -> Sequence[Suspect]:
        """Return the roots that an opening has begun and that are not settled, in the order of their positions."""
        ...

    def begin_anew(self, run: int, opening: int) -> None:
        """Forget what an opening has begun."""
        ...

    def acquit(self, run: int, key: Key) -> None:
        """Note that a root is no suspect any more: it is settled, or has outlived its own process."""
        ...

    def forget(self, run: int) -> None:
        """Forget all deaths of a run."""
        ...


class Journal(JournalReader, Protocol):
    """Which roots of which runs are done, in which version. Every call stands inside a transaction of the store."""

    @property
    def deaths(self) -> Deaths:
        """What was under way when a process died."""
        ...

    def begin(  # noqa: PLR0917 -- a record
        self, name: str, source: str, sink: str, owner: str, stages: Sequence[StageCode], codes: MadeBy
    ) -> int:
        """Note that a run is opened, or opened once more; return its number."""
        ...

    def put_codes(self, run: int, codes: MadeBy) -> None:
        """Note which code made the roots of a run."""
        ...

    def leave_run(self, run: int) -> None:
        """Note that nothing of a run is under way: its last opening has not died."""
        ...

    def close_run(self, run: int) -> None:
        """Note that a run came to its end; this leaves it, and forgets its deaths."""
        ...

    def settle(self, opened: Opened, root: Root) -> int:
        """Note that a root is done, or dead; return its number, which stays the same from version to version.

        Letters of an earlier version are dropped, those of a dead root kept; a root that was dispatched is acquitted.
        """
        ...

    def settle_new(
        self,
        opened: Opened,
        number: int,
        *,
        keys: Iterable[Key],
        versions: Iterable[str],
        positions: Iterable[int],
        rows: Iterable[int],
    ) -> Sequence[int]:
        """Note many roots as done of which nothing was known, for a fraction of the price; return their numbers.

        They come in columns, so that none of them needs a step of Python; `rows` is how many rows each has. If
        something was known of one of them, it may raise anything: each root is settled by itself then.
        """
        ...

    def redo(self, run: int, *, dead: bool = False, openings: tuple[int, int | None] | None = None) -> tuple[int, int]:
        """Have the next opening do roots again; return their number, and that of their rows, which stay until then.

        All roots of a run; or the dead ones; or those settled from the first of two openings on, before the second.
        """
        ...

    def retry(self, root: int, rows: int | None = None) -> None:
        """Have the next opening do a root again; `rows` is how many rows it still has, if that is known."""
        ...

    def discard(self, root: int) -> None:
        """Count a dead root as done in its version, with the rows that it has."""
        ...

    def forget(self, root: int) -> int:
        """Forget a root; return how many rows were stored of it."""
        ...

    def some_roots(self, run: int, most: int) -> Sequence[RootId]:
        """Return at most so many roots of a run."""
        ...

    def roots_with_rows(self, run: int) -> int:
        """Return how many roots of a run are done and have rows."""
        ...

    def forget_run(self, run: int) -> tuple[int, int]:
        """Forget a run and all that is known of it; return the numbers of its roots, and of the rows stored of them."""
        ...

    def remember(self, stage: bytes, item: bytes, value: bytes) -> None:
        """Keep what a stage made of an item."""
        ...

    def drop_memo(self, stage: bytes) -> None:
        """Drop results that are kept for a stage: no more than takes a moment."""
        ...

    def stage(self, number: int, part: bytes) -> None:
        """Let rows of an unfinished root wait under a number of this opening.

        Raise `RowError` if they are too large.
        """
        ...

    def staged(self, number: int) -> Iterator[bytes]:
        """Give the parts that wait under a number, as they came."""
        ...

    def unstage(self, number: int) -> None:
        """Drop the parts that wait under a number."""
        ...


class JournalStore(Protocol):
    """A journal that is open for writing, by one process."""

    @property
    def journal(self) -> Journal:
        """The journal."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """Open a transaction: all or nothing; `StoreError` says what went wrong.

        `LostTransactionError` says that nothing of it stands, and that it can be done again.
        """
        ...


class Store(JournalStore, Protocol):
    """A sink that one run has opened for writing: rows, and the journal beside them.

    It may also have `accept(row)`. It is called on the loop for every row that the stream gives: what it returns is the
    row from there on; what it raises, best a `RowError`, is the failure of the row's root. `add(rows)` does what
    `replace` does, for many new roots at once, if that costs less: it is given pairs of the number of a root and a row;
    if it raises, each root is replaced by itself. A store with both, for which `send` does nothing, may have
    `accept_all(rows)`: it returns what `accept` does for each row, or None to be asked for each.
    """

    @property
    def largest(self) -> int:
        """Rows of one commit, at most; a root with more is committed alone."""
        ...

    def reader(self) -> JournalReader:
        """Return a reader of the journal, to be closed before the store."""
        ...

    def reach(self, run: int, opening: int) -> Reach | None:
        """Return what notes how far the sources are read, for an opening that notes nothing else and may die.

        It costs next to nothing and outlives the process; `Deaths.last` returns it. None if there is no place for it:
        then it takes one death more to find a root that kills.
        """
        ...

    def send(self, run: str, roots: Iterable[tuple[Root, Iterable[Any]]]) -> None:
        """Bring the rows of finished roots to where no transaction reaches; what it raises ends the run.

        After a `RowError` each of these roots comes once more, alone; one that is refused again has failed. It is
        called before the transaction in which the roots are noted as done, by the thread that writes. A store whose
        `replace` does all the work does nothing here.
        """
        ...

    def replace(self, root: RootId, rows: Iterable[Any]) -> None:
        """Replace all rows of a root, known by its number and key, by `rows`, in the open transaction.

        Raises:
            RowError: it cannot hold a row; this is the failure of the root, and so is what `refusal` takes for one.
                Anything else ends the run.
            KeyTakenError: rows of other roots have its keys; it is tried again when those are settled, or are gone.
        """
        ...

    def refusal(self, error: Exception) -> RowError | None:
        """Return the `RowError` for an error of `replace`, if the database has refused a row.

        None for anything else.
        """
        ...

    def lost(self, run: int) -> Sequence[tuple[int, int]]:
        """Return the roots of a run, by number, that have lost rows, and how many they still have, in the transaction.

        Roots that the next run does again anyway are left out. It is asked when a run is opened: it should cost little
        if nothing is lost. A store that cannot tell returns nothing.
        """
        ...

    def is_there(self) -> bool:
        """Whether the next run will find what is committed: nobody has removed it, as far as can be seen."""
        ...

    def abort(self) -> None:
        """Give up what `send` does, if it can be given up, and all further calls of it: they raise then.

        Called on the loop, when a run was left by an error or a cancellation and its grace is over.
        """
        ...

    def close(self) -> None:
        """Close everything, and let others write."""
        ...


class JournalPlace(Protocol):
    """A place where a journal is kept, while no run has it open."""

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        ...

    def read(self) -> AbstractContextManager[JournalReader]:
        """Open the journal for reading, also while a run writes to it; raise `StoreError` if there is none."""
        ...

    def write(self) -> AbstractContextManager[JournalStore]:
        """Open the journal for changes; raise `HeldError` while a run writes to it, `StoreError` if there is none."""
        ...
