"""Sources with identity that block: a thread reads them ahead."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.core.text import line
from penstock.durable.ledger import Identity, Ledger
from penstock.durable.root_source import Keyed
from penstock.engines.thread_source import AheadStage
from penstock.ops.description import Description
from penstock.streams import Stream


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of a source.

    Attributes:
        unread: to be called for a place that cannot be read: with the beginning of the keys that may be there, or, if
            keys are numbers, with the least of them.
        sink: the database that the run writes to; "" if it writes to none.
    """

    unread: Callable[[str | int], None]
    sink: str = ""


def read_ahead(
    name: str, read: Callable[[Reading], Generator[Any]], identity: Identity, size: Callable[[Any], int] | None = None
) -> Stream[Any]:
    """Make a stream over what `read` gives, in a thread; its items are roots in a durable run.

    `size` gives the bytes of an item, if items can be large.
    """

    def open_source(scope: Scope, _in_order: bool) -> Stage[Any]:  # noqa: FBT001 -- as all
        return AheadStage(scope, lambda: read(Reading(_nobody)), name, size)

    def open_items(scope: Scope, ledger: Ledger, prefix: str) -> Stage[Any]:
        def unread(place: str | int) -> None:
            if isinstance(place, int):
                ledger.note_unread(prefix, place)
            else:
                ledger.note_unread(prefix + place)

        reading = Reading(unread, ledger.place)
        return AheadStage(scope, lambda: read(reading), name, size)

    text = line(identity.source, 100)
    return Stream(Description(Keyed(open_source, _never_consumed, text, identity=identity, open_items=open_items)))


def _nobody(_: str | int) -> None:
    """Ignore a place that cannot be read."""


def _never_consumed() -> None:
    """Allow it to be opened: each reading is a fresh one."""
