"""What a sink of a durable run has to be; `penstock.sinks` has those that come with the library.

A sink describes a place. `open` makes a store of it, for one run; `penstock.durable.store` says what that does.
"""

from typing import TYPE_CHECKING, Any, Literal, Protocol

from penstock.core.errors import OptionError

if TYPE_CHECKING:
    from penstock.durable.store import Store

type Delivery = Literal["exactly once", "at least once"]
type Durability = Literal["process", "power"]


class Sink(Protocol):
    """A place for rows.

    It has a `path`, that of the SQLite database with its journal. A sink elsewhere has a `journal` instead, a
    `penstock.durable.store.JournalPlace`, which says where that is and opens it while no run does.

    It may also have an `identity`, a str that tells it from other places with the same journal: see `identity_of`; and
    `removes`, which says whether it can remove rows, as one that delivers exactly once can if it does not say. With
    `keeps_order = True`, it shows in which order roots came, so that stages with `ordered=None` keep to it; those that
    come with the library have none but that of the rows of a root.
    """

    @property
    def delivery(self) -> Delivery:
        """What the sink can promise over any number of kills."""
        ...

    def open(self, durability: Durability) -> "Store":
        """Open it for writing, by one process at a time.

        Raises:
            HeldError: another process is writing to it.
            StoreError: it cannot be written.
        """
        ...


def keeps_order(sink: Sink) -> bool:
    """Whether `sink` shows the order in which roots come: its `keeps_order`, if it has one."""
    return getattr(sink, "keeps_order", False) is True


def identity_of(sink: Sink) -> str:
    """Return the name of a sink among those with its journal: its `identity` if it has one, else its class."""
    identity: object = getattr(sink, "identity", None)
    return identity if isinstance(identity, str) else type(sink).__name__


def removes(sink: Sink) -> bool:
    """Whether `sink` can remove rows: its `removes`, or else whether it delivers exactly once."""
    said: object = getattr(sink, "removes", None)
    return said if isinstance(said, bool) else sink.delivery == "exactly once"


def is_sink(sink: object) -> bool:
    """Whether an object has what a sink must have."""
    has_place = hasattr(sink, "path") or hasattr(getattr(sink, "journal", None), "place")
    return has_place and hasattr(sink, "delivery") and hasattr(sink, "open") and not isinstance(sink, type)


def check_sink(sink: object) -> None:
    """Raise `OptionError` if an object is no sink."""
    if not is_sink(sink):
        raise OptionError(f"sink must be a sink, as penstock.SqliteTable('rows.db', 'rows') is, got {sink!r}")


def place_of(sink: Sink) -> str:
    """Return where the journal of a sink is, for messages."""
    its: Any = sink
    return str(its.path if hasattr(sink, "path") else its.journal.place)
