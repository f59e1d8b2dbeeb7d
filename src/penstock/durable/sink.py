"""What a sink of a durable run has to do; `penstock.sinks` has those that come with the library.

A sink describes a place; `open` makes a store of it, for one run. `replace` is called inside a transaction of the
store, together with the journal: what it does and the note that the root is done are there both or not at all.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol

from penstock.core.errors import OptionError

if TYPE_CHECKING:
    from penstock.durable.roots import Root
    from penstock.durable.sqlite.connection import Connection
    from penstock.durable.sqlite.journal import Journal

type Delivery = Literal["exactly once", "at least once"]
type Durability = Literal["process", "power"]


class Store(Protocol):
    """A sink that was opened for writing by one run.

    It may also have `accept(row)`, which is called on the loop for every row that the stream gives: what it returns is
    the row from there on, and what it raises, a `RowError` best, is the failure of the row's root. `add(rows)` does
    what `replace` does for many roots, all of them new, where that costs less: it is given pairs of the id of a root
    and a row, and what it raises has each root replaced by itself. A store with both, for which `send` does nothing,
    may have `accept_all(rows)`, which gives what `accept` does for each of many rows, or None to be asked for each.
    """

    @property
    def journal(self) -> "Journal":
        """The journal beside the rows."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """All of it or nothing; `StoreError` says what went wrong."""
        ...

    @property
    def largest(self) -> int:
        """Rows of one commit, at most; a root that has more is committed alone."""
        ...

    def send(self, run: str, roots: "Iterable[tuple[Root, Iterable[Any]]]") -> None:
        """Bring the rows of finished roots to where no transaction reaches; what it raises ends the run.

        After a `RowError` each of these roots comes once more, alone, and one that is refused again has failed.
        Called before the transaction in which the roots are noted as done, by the thread that writes. A store whose
        `replace` does all there is to do does nothing here.
        """
        ...

    def replace(self, root: int, rows: Iterable[Any]) -> None:
        """Put `rows` in the place of all rows of the root of that id, in the transaction that is open.

        Raises:
            RowError: it cannot hold a row; that is the failure of the root, and so is what SQLite raises for a value
                that it cannot hold. Anything else ends the run.
            KeyTakenError: as rows of other roots are; it is tried again when those are settled, or are gone.
        """
        ...

    def lost(self, run: int) -> "Sequence[tuple[int, int]]":
        """The roots of a run, by id, of which rows are not there any more, and how many are, in the open transaction.

        Those that the next run does again anyway are not among them. It is asked when a run is opened: it should cost
        little where nothing is lost. A store that cannot tell gives nothing.
        """
        ...

    def reader(self) -> "Connection":
        """A new connection to the journal that only reads."""
        ...

    def abort(self) -> None:
        """Give up what `send` is at, if it can be given up, and all that it is still asked for: it raises then.

        Called on the loop, when a run was left by an error or a cancellation and its grace is over.
        """
        ...

    def close(self) -> None:
        """Close everything, and let others write."""
        ...


class Sink(Protocol):
    """A place for rows.

    It may also have an `identity`, a str that tells it from other places at the same path: see `identity_of`; and
    `removes`, which says whether it can remove rows, as one that delivers exactly once can if it does not say. With
    `keeps_order = True`, it shows in which order roots came, so that stages with `ordered=None` keep to it; those that
    come with the library have none but that of the rows of a root.
    """

    @property
    def delivery(self) -> Delivery:
        """What the sink can promise over any number of kills."""
        ...

    @property
    def path(self) -> str:
        """Where it is, for messages."""
        ...

    def open(self, durability: Durability) -> Store:
        """Open it for writing, by one process at a time.

        Raises:
            HeldError: another process is writing to it.
            StoreError: it cannot be written.
        """
        ...


def keeps_order(sink: Sink) -> bool:
    """Whether the order in which roots come can be seen in `sink`: its `keeps_order`, if it has one."""
    return getattr(sink, "keeps_order", False) is True


def identity_of(sink: Sink) -> str:
    """What names a sink among those at its path: its `identity` if it has one, else the name of its class."""
    identity: object = getattr(sink, "identity", None)
    return identity if isinstance(identity, str) else type(sink).__name__


def removes(sink: Sink) -> bool:
    """Whether rows can be removed from `sink`: its `removes`, or else whether it delivers exactly once."""
    said: object = getattr(sink, "removes", None)
    return said if isinstance(said, bool) else sink.delivery == "exactly once"


def check_sink(sink: object) -> None:
    """`OptionError` if it is none."""
    if isinstance(sink, type) or not all(hasattr(sink, name) for name in ("delivery", "path", "open")):
        raise OptionError(f"sink must be a sink, as penstock.SqliteTable('rows.db', 'rows') is, got {sink!r}")


def path_of(sink: Sink | str | os.PathLike[str]) -> str:
    """Where the journal is: of a sink, or at a path.

    Raises:
        OptionError: it is neither.
    """
    if isinstance(sink, str | os.PathLike):
        return os.fspath(sink)
    try:
        check_sink(sink)
    except OptionError:
        raise OptionError(f"sink must be a sink or the path of its database, got {sink!r}") from None
    return sink.path
