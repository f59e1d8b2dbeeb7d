"""What a durable run asks of the place that it writes to: a store of rows, and the journal in it.

SQLite keeps this contract in `penstock.durable.sqlite`; `tests/durable/memory.py` in memory.

- There is one writer at a time; the next one can write as soon as that is dead. A child process of a run may be it, so
  what is committed is seen by others. Where it is not, `Deaths.last` gives nothing, and no root is tried alone.
- What changes something, and what a `Journal` is asked, stands inside `Store.transaction()`: all of it or nothing.
- A store is asked one thing at a time, but by two threads: by that of the loop before and after the run, and by that of
  the writer meanwhile. It may connect wherever it is asked first.
- A `JournalReader` is asked on the loop while the writer writes. It sees what is committed, and answers within some ms.
- Keys have an order: numbers before text, text by its code points.
- Numbers of roots are never given twice, also when a root is forgotten: there may be rows that have them.
- What was written by others is not trusted: what cannot be is a `DamageError`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from penstock.durable.errors import RowError
from penstock.durable.fingerprint import StageCode
from penstock.durable.letters import DeadLetter
from penstock.durable.made_by import MadeBy, is_by_other_code
from penstock.durable.roots import Key, Root, RootId

type Known = tuple[int, str, int, int, int]
"""A root that is settled: its number, version, state, in which opening of the run, and where in the source."""

type Reach = Callable[[int, int], int]
"""Notes that a source (by number) is read up to a position; from which position on it wants to be told again."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a journal knows of a run.

    Attributes:
        number: by which the journal knows it.
        name, source, sink: what the user calls it, and what it goes from and to.
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
    """How many roots of a run are in a state since an opening, 0 for those to be done again, and how many rows."""

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
    """An opening that died, whether it noted what it began, and else how far it had read each source, if known."""

    opening: int
    noted: bool
    reached: Sequence[int]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A root that was under way when a process died: where it stands in which source, and how many times it was."""

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
    """What is asked of a journal and changes nothing."""

    @property
    def place(self) -> str:
        """Where it is, for messages; of a file its path."""
        ...

    def writer(self) -> str:
        """Who writes to it now, as `penstock.durable.owner` says; empty if nobody does, or it cannot be known."""
        ...

    def run(self, name: str) -> RunRecord | None:
        """The run of that name."""
        ...

    def runs(self) -> Sequence[RunRecord]:
        """All runs; the one opened last comes first."""
        ...

    def stages(self, run: int) -> Sequence[StageCode]:
        """The stages that a run had when it was opened last."""
        ...

    def counts(self) -> Iterable[RootCount]:
        """The roots of all runs, counted."""
        ...

    def known(self, run: int, key: Key) -> Known | None:
        """What is known of a root."""
        ...

    def known_from(self, run: int, key: Key, most: int) -> Sequence[tuple[Key, int, str, int, int, int]]:
        """The roots from that key on, in the order of keys, so many at most: each its key, and what is known of it."""
        ...

    def settled(self, run: int, after: Key | None, most: int) -> Sequence[tuple[int, Key, int]]:
        """The roots after that key, or from the first on, in the order of keys: number, key, opening."""
        ...

    def rows_of(self, root: int) -> int:
        """How many rows were stored of a root."""
        ...

    def keys_near(self, run: int, key: Key, most: int) -> Sequence[Key]:
        """So many keys from that one on, and so many before it: for messages."""
        ...

    def dead(self) -> Iterable[DeadRecord]:
        """The letters of all dead roots, by the numbers of these; those of a root as they came."""
        ...

    def recall(self, stage: bytes, item: bytes) -> bytes | None:
        """What is kept for a stage of an item."""
        ...

    def unused_memo(self) -> bytes | None:
        """A stage that something is kept for and that is part of no run any more."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Deaths(Protocol):
    """What was under way when a process died: of each opening of a run that was killed, the roots that it had begun."""

    def enter(self, run: int, opening: int) -> bool:
        """Count an opening as dead until its run is left; whether others are, so that it notes what it begins.

        What is known of others than the last two of them is forgotten.
        """
        ...

    def last(self, run: int) -> Sequence[Death]:
        """The last two openings that died, the later one first."""
        ...

    def dispatch(self, run: int, opening: int, root: Root) -> None:
        """Note that a root is begun."""
        ...

    def begun(self, run: int, opening: int) -> Sequence[Suspect]:
        """The roots that an opening has begun and that are not settled, in the order of their positions."""
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
    """Which roots of which runs are done, in which version; all of it is asked inside a transaction of the store."""

    @property
    def deaths(self) -> Deaths:
        """What was under way when a process died."""
        ...

    def begin(  # noqa: PLR0917 -- a record
        self, name: str, source: str, sink: str, owner: str, stages: Sequence[StageCode], codes: MadeBy
    ) -> int:
        """Note that a run is opened, once more if it is known; its number."""
        ...

    def put_codes(self, run: int, codes: MadeBy) -> None:
        """Note which code made the roots of a run."""
        ...

    def leave_run(self, run: int) -> None:
        """Note that nothing of a run is under way, and so that its last opening has not died."""
        ...

    def close_run(self, run: int) -> None:
        """Note that a run came to its end; that leaves it, and forgets its deaths."""
        ...

    def settle(self, opened: Opened, root: Root) -> int:
        """Note that a root is done, or dead; its number, which stays the same from version to version.

        Letters of a version before are dropped, those of a dead root kept; one that was dispatched is acquitted.
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
        """The same, for less, for so many roots that are done and of which nothing was known; their numbers.

        They come in columns, so that none of them needs a step of Python; `rows` is how many each has. It may raise
        whatever it likes if something was known of one of them: each is settled by itself then.
        """
        ...

    def redo(self, run: int, *, dead: bool = False, openings: tuple[int, int | None] | None = None) -> tuple[int, int]:
        """Have the next opening do roots again; how many, and their rows, which stay until it has.

        All of a run; or those that are dead; or those settled from the first of two openings on, before the second.
        """
        ...

    def retry(self, root: int, rows: int | None = None) -> None:
        """Have the next opening do a root again, of which there are only so many `rows` any more, if that is said."""
        ...

    def discard(self, root: int) -> None:
        """Count a dead root as done in its version, with what rows there are of it."""
        ...

    def forget(self, root: int) -> int:
        """Forget a root; how many rows were stored of it."""
        ...

    def some_roots(self, run: int, most: int) -> Sequence[RootId]:
        """Some roots of a run, no more than that."""
        ...

    def roots_with_rows(self, run: int) -> int:
        """How many roots of a run are done and have rows."""
        ...

    def forget_run(self, run: int) -> tuple[int, int]:
        """Forget a run and all that is known of it; how many roots, and how many rows were stored of them."""
        ...

    def remember(self, stage: bytes, item: bytes, value: bytes) -> None:
        """Keep what a stage made of an item."""
        ...

    def drop_memo(self, stage: bytes) -> None:
        """Drop some or all of what is kept for a stage: no more than takes a moment."""
        ...

    def stage(self, number: int, part: bytes) -> None:
        """Have rows of a root that is not finished wait under a number of this opening; `RowError` if too large."""
        ...

    def staged(self, number: int) -> Iterator[bytes]:
        """The parts that wait under a number, as they came."""
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
        """All of it or nothing; `StoreError` says what went wrong."""
        ...


class Store(JournalStore, Protocol):
    """A sink that was opened for writing by one run: rows, and the journal beside them.

    It may also have `accept(row)`, which is called on the loop for every row that the stream gives: what it returns is
    the row from there on, and what it raises, a `RowError` best, is the failure of the row's root. `add(rows)` does
    what `replace` does for many roots, all of them new, where that costs less: it is given pairs of the number of a
    root and a row, and what it raises has each root replaced by itself. A store with both, for which `send` does
    nothing, may have `accept_all(rows)`, which gives what `accept` does for each of many rows, or None to be asked for
    each.
    """

    @property
    def largest(self) -> int:
        """Rows of one commit, at most; a root that has more is committed alone."""
        ...

    def reader(self) -> JournalReader:
        """A reader of the journal, to be closed before the store."""
        ...

    def reach(self, run: int, opening: int) -> Reach | None:
        """What notes how far the sources are read, for an opening that notes nothing else and may die.

        It costs next to nothing and outlives the process, as what `Deaths.last` gives. None where there is no such
        place: then it takes one death more to find a root that kills.
        """
        ...

    def send(self, run: str, roots: Iterable[tuple[Root, Iterable[Any]]]) -> None:
        """Bring the rows of finished roots to where no transaction reaches; what it raises ends the run.

        After a `RowError` each of these roots comes once more, alone, and one that is refused again has failed.
        Called before the transaction in which the roots are noted as done, by the thread that writes. A store whose
        `replace` does all there is to do does nothing here.
        """
        ...

    def replace(self, root: RootId, rows: Iterable[Any]) -> None:
        """Put `rows` in the place of all rows of a root, known by its number and key, in the transaction that is open.

        Raises:
            RowError: it cannot hold a row; that is the failure of the root, and so is what `refusal` knows as one.
                Anything else ends the run.
            KeyTakenError: as rows of other roots are; it is tried again when those are settled, or are gone.
        """
        ...

    def refusal(self, error: Exception) -> RowError | None:
        """The `RowError` for what `replace` has raised, if the database has refused a row; None for anything else."""
        ...

    def lost(self, run: int) -> Sequence[tuple[int, int]]:
        """The roots of a run, by number, of which rows are not there any more, and how many are, in the transaction.

        Those that the next run does again anyway are not among them. It is asked when a run is opened: it should cost
        little where nothing is lost. A store that cannot tell gives nothing.
        """
        ...

    def is_there(self) -> bool:
        """Whether the next run will find what is committed: nobody has removed it, as far as can be seen."""
        ...

    def abort(self) -> None:
        """Give up what `send` is at, if it can be given up, and all that it is still asked for: it raises then.

        Called on the loop, when a run was left by an error or a cancellation and its grace is over.
        """
        ...

    def close(self) -> None:
        """Close everything, and let others write."""
        ...


class JournalPlace(Protocol):
    """Where a journal is kept, while no run has it open."""

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        ...

    def read(self) -> AbstractContextManager[JournalReader]:
        """The journal, to be read, also while a run writes to it; `StoreError` if there is none."""
        ...

    def write(self) -> AbstractContextManager[JournalStore]:
        """The journal, to be changed; `HeldError` while a run writes to it, `StoreError` if there is none."""
        ...
