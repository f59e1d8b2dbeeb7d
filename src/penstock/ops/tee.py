"""`tee`: every item goes to each of several branches.

The branches pull, as all stages do. An item is read when one of them asks for it and none of the others has more than
`ahead` items waiting: so the slowest branch sets the pace, and what waits is bounded. See `docs/decisions.md`, "A tee
ends in one stream".
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, override

from penstock.core.scope import Scope
from penstock.core.stage import END, PENDING, Pulled, Stage
from penstock.ops.combine import Merge
from penstock.ops.description import Combined, Description, Origin
from penstock.ops.operator import Operator


class Split:
    """What the branches of a tee share: the stage above them."""

    def __init__(self, upstream: Stage[Any], ahead: int) -> None:
        self.upstream: Stage[Any] = upstream
        self.ahead: int = ahead
        self.branches: list[BranchSource[Any]] = []
        self._waits = False  # for the stage above
        self._over = False
        upstream.on_ready = self._is_ready

    def next_for(self, branch: "BranchSource[Any]") -> Any:
        """Read an item, and leave it for the other branches too; return PENDING if it has to wait, or END."""
        if self._over:
            return END
        if self._waits or any(each.lags for each in self.branches if each is not branch):
            return PENDING
        item = self.upstream.pull(1)
        if item is PENDING:
            self._waits = True
        else:
            self._over = item is END
            for each in self.branches:
                if each is not branch:
                    each.receive(item)
        return item

    def branch_is_free(self) -> None:
        """Let the others look again: a branch has room again, or is stopped."""
        for each in self.branches:
            each.look_again()

    def stop_if_unused(self, scope: Scope) -> None:
        """Stop the stage above when no branch is left."""
        if all(each.stopped for each in self.branches):
            self._over = True
            scope.stop(self.upstream)
        else:
            self.branch_is_free()

    def _is_ready(self) -> None:
        self._waits = False
        self.branch_is_free()


class BranchSource[T](Stage[T]):
    """The upper end of a branch: hands on every item that is read for any of them (P2, P3, P5)."""

    __slots__ = ("_asked", "_scheduled", "_split", "_waiting", "stopped")

    def __init__(self, scope: Scope, split: Split, name: str) -> None:
        super().__init__(scope, name)
        self._split = split
        self._waiting: deque[T] = deque()
        self._asked = False
        self._scheduled = False
        self.stopped: bool = False
        split.branches.append(self)

    @property
    def lags(self) -> bool:
        """Whether so many items wait for this branch that the others must wait."""
        return len(self._waiting) >= self._split.ahead

    @override
    def pull(self, room: int) -> Pulled[T]:
        if self._waiting:
            lagged = self.lags
            item = self._waiting.popleft()
            if lagged:
                self._split.branch_is_free()
        elif self.stopped:
            return END
        else:
            item = self._split.next_for(self)
            if item is PENDING:
                self._asked = True
                return PENDING
            if item is END:
                return END
            self._taken += 1
        self._delivered += 1
        return item

    def receive(self, item: Any) -> None:
        """Keep an item that another branch has read, or look again at the end."""
        if item is not END and not self.stopped:
            self._taken += 1
            self._waiting.append(item)
        self.look_again()

    def look_again(self) -> None:
        """Tell the stage below in a turn of its own, if it waits."""
        if self._asked and not self._scheduled:
            self._scheduled = True
            self.scope.schedule(self)

    @override
    def take_turn(self) -> None:
        self._scheduled = False
        if self._asked:
            self._asked = False
            self.on_ready()

    @override
    def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            self._discard()
            self._split.stop_if_unused(self.scope)
            self.look_again()

    def _discard(self) -> None:
        self._discarded += len(self._waiting)
        self._waiting.clear()

    @override
    def close(self) -> None:
        self._discard()
        self._split.branches.clear()


class Inlet:
    """Where a branch begins, in its description; `stages` are those that are being opened, of each run."""

    def __init__(self) -> None:
        self.stages: dict[Scope, Stage[Any]] = {}
        self.origin: Origin = Origin(lambda scope, _: self.stages[scope], lambda: None, "tee")

    def uses_in(self, description: Description) -> int:
        """Count how often a description begins here."""
        origin = description.origin
        if isinstance(origin, Combined):
            return sum(map(self.uses_in, origin.parts))
        return int(origin is self.origin)


def teeing(
    branches: Sequence[tuple[Inlet, Description]], ahead: int, names: Callable[[int], str], text: str
) -> Operator:
    """Make the operator that gives every item to each of the branches, and merges what they hand on."""

    def open_stage(scope: Scope, upstream: Stage[Any], _: object, in_order: bool) -> Stage[Any]:  # noqa: FBT001 -- as all
        split = Split(upstream, ahead)
        begins = [BranchSource[Any](scope, split, names(number)) for number, _ in enumerate(branches)]
        ends: list[Stage[Any]] = []
        for begin, (inlet, description) in zip(begins, branches, strict=True):
            description.refuse_opening()
            inlet.stages[scope] = begin
            try:
                ends.append(description.open(scope, in_order=in_order))
            finally:
                del inlet.stages[scope]
        return Merge(scope, ends)

    shows_order = any(description.orders(in_order=False)[0] for _, description in branches)
    kept = tuple(name for _, description in branches for name in description.checkpoints())
    return Operator("tee", open_stage, ordered=True if shows_order else None, text=text, checkpoints=kept)
