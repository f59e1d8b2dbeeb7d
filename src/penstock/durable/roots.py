"""Roots: the units of a durable run, and the items that each of them became.

A root is an item of the source: a file, a line, a row. It is finished when nothing that it became is under way any
more: all of it was accepted by the sink, was dropped, or has failed for good. A root may also become nothing. See
`docs/decisions.md`, "A root is counted, not tracked by its items".
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from penstock.core import validate
from penstock.durable.letters import Letters

type Key = str | int

DONE: Final = 0
DEAD: Final = 1
"""The states of a settled root: all of it accepted or dropped, or some of it set aside."""


class RootId(NamedTuple):
    """How a store knows a root: by the number that the journal gave it, and by the key that its source gives it.

    The number is of this root alone, and stays the same from version to version. Roots of two runs may have one key.
    """

    number: int
    key: Key


class Root:
    """One root of a run, from when it was taken until its rows are committed.

    Attributes:
        key: by which it is known from run to run.
        version: what changes when the root does.
        position: its place in the source in this run, from 0.
        source: the number of its source among those that are merged, from 0.
        rows: what the sink has accepted of it and not stored yet.
        under_way: how many items it is at this moment.
        letters: what failed of it for good and was set aside, or None.
        staging: the number by which rows of it wait in the journal, or 0.
        staged: how many rows wait there.
        weight: the memory that `rows` take, as `penstock.durable.weights` measures it.
        failed: whether some of it has failed for good.
        dispatched: whether the journal knows that it is under way, if that is noted.
        is_new: whether the journal knew nothing of it when it was taken.
        finished: who is told once nothing of it is under way.
    """

    __slots__ = (
        "dispatched",
        "failed",
        "finished",
        "is_new",
        "key",
        "letters",
        "position",
        "rows",
        "source",
        "staged",
        "staging",
        "under_way",
        "version",
        "weight",
    )

    def __init__(  # noqa: PLR0917 -- a keyword takes a tenth of what it costs to make one
        self,
        key: Key,
        version: str,
        position: int,
        finished: "Callable[[Root], None]",
        source: int = 0,
        is_new: bool = False,  # noqa: FBT001, FBT002 -- as said
    ) -> None:
        self.key: Key = key
        self.version: str = version
        self.position: int = position
        self.source: int = source
        self.rows: list[Any] = []
        self.under_way: int = 1
        self.letters: Letters | None = None
        self.staging: int = 0
        self.staged: int = 0
        self.weight: int = 0
        self.failed: bool = False
        self.dispatched: bool = False
        self.is_new: bool = is_new
        self.finished: Callable[[Root], None] = finished

    def set_aside(self, stage: str, attempts: int, error: BaseException, item: object) -> None:
        """Note an item of it that failed for good; the root is dead."""
        if self.letters is None:
            self.letters = Letters()
        self.letters.add(stage, attempts, error, item)

    def position_of(self, _key: Key) -> int:
        """Return its place in the source; named as in `Bundle`."""
        return self.position

    @property
    def is_one_row(self) -> bool:
        """Whether it is new, and all that it ever was is the one item that is under way."""
        return (
            self.under_way == 1
            and self.is_new
            and not (self.rows or self.letters or self.staging or self.dispatched or self.failed)
        )

    def settled(self) -> None:
        """Count one item of it as settled."""
        self.under_way -= 1
        if not self.under_way:
            self.finished(self)


class Bundle:
    """New roots of one row each that are taken or committed together; none of them needs a `Root` for that.

    Attributes:
        keys, versions, positions: of each of them.
        source: the number of their source.
        items: their items; once the store has accepted them, the rows.
        weight: the memory that they take, as `penstock.durable.weights` measures it.
    """

    __slots__ = ("_finished", "items", "keys", "positions", "source", "versions", "weight")

    # As roots have them, for who holds both:
    under_way: int = 0
    letters: None = None
    staging: int = 0

    def __init__(
        self,
        items: list[Any],
        *,
        keys: list[Key],
        versions: list[str],
        positions: Sequence[int],
        source: int,
        finished: "Callable[[Root], None]",
    ) -> None:
        self.keys: list[Key] = keys
        self.versions: list[str] = versions
        self.positions: Sequence[int] = positions
        self.items: list[Any] = items
        self.source: int = source
        self.weight: int = 0
        self._finished = finished

    def __len__(self) -> int:
        return len(self.keys)

    def position_of(self, key: Key) -> int:
        """Return the place of one of them in the source."""
        return self.positions[self.keys.index(key)]

    def tracked(self) -> "list[Tracked]":
        """Return their items, each of a root of its own."""
        made = zip(self.keys, self.versions, self.positions, self.items, strict=True)
        return [
            Tracked(Root(key, version, position, self._finished, self.source, True), item)
            for key, version, position, item in made
        ]

    @classmethod
    def of(cls, roots: list[Root], rows: list[Any], weight: int) -> "Bundle":
        """Return roots that are one row each as finished ones, with those rows."""
        for root in roots:
            root.under_way = 0
        bundle = cls(
            rows,
            keys=[root.key for root in roots],
            versions=[root.version for root in roots],
            positions=[root.position for root in roots],
            source=roots[0].source,
            finished=roots[0].finished,
        )
        bundle.weight = weight
        return bundle

    def roots(self) -> list[Root]:
        """Return each of them as a root that is finished."""
        roots: list[Root] = []
        for item in self.tracked():
            item.root.rows.append(item.value)
            item.root.weight, item.root.under_way = 1, 0
            roots.append(item.root)
        return roots


def can_be_key(key: Key) -> bool:
    """Whether a journal can hold that key."""
    return validate.is_utf8(key) if isinstance(key, str) else -(2**63) <= key < 2**63


class Tracked:
    """An item on its way through a durable run, with the root that it came from."""

    __slots__ = ("digest", "made", "root", "value")

    def __init__(self, root: Root, value: Any) -> None:
        self.root: Root = root
        self.value: Any = value
        self.made: int = 0  # outputs of the last attempt of `flat_map`
        self.digest: bytes = b""  # of the value, where a stage looks for what it has made of it before

    def __repr__(self) -> str:
        return f"{self.value!r} of root {self.root.key!r}"

    def now(self, value: Any) -> "Tracked":
        """Return what it has become, one for one."""
        return Tracked(self.root, value)

    def output(self, value: Any) -> "Tracked":
        """Return one of several items that it becomes; it is under way itself until all of them are handed on."""
        self.made += 1
        self.root.under_way += 1
        return Tracked(self.root, value)

    def outputs(self, values: Iterable[Any]) -> "list[Tracked]":
        """Return what it has become, one for several."""
        return [self.output(value) for value in values]
