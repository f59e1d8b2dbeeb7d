"""The leaves of a run that can be called, as a source of the window that calls them."""

from collections.abc import Collection
from heapq import heappop, heappush
from typing import override

from penstock.core.scope import Scope
from penstock.core.source import SourceStage
from penstock.core.stage import END, PENDING, Pulled
from penstock.flow.tree import LeafNode


class LeafFeed(SourceStage[LeafNode]):
    """Gives the window the leaves that can be called, in the order of the definition; ends when nothing more comes."""

    __slots__ = ("_asked", "_number", "_queue", "_settling")

    def __init__(self, scope: Scope, settling: Collection[tuple[int, ...]]) -> None:
        super().__init__(scope, "steps")
        self._settling = settling
        self._queue: list[tuple[tuple[int, ...], int, LeafNode]] = []
        self._number = 0
        self._asked = False

    def put(self, node: LeafNode) -> None:
        """Have a leaf called when there is a place for it."""
        self._number += 1
        heappush(self._queue, (node.order, self._number, node))
        self.tell()

    def end(self) -> None:
        """Give nothing more."""
        self._ended = True
        self.tell()

    def tell(self) -> None:
        """Have the window look, if it waits."""
        if self._asked:
            self._asked = False
            self.on_ready()

    @override
    def pull(self, room: int) -> Pulled[LeafNode]:
        while self._queue and not self._ended and not self._must_wait(self._queue[0][0]):
            node = heappop(self._queue)[2]
            if not node.over:  # else a step round it has failed
                self._taken += 1
                self._delivered += 1
                return node
        if self._ended:
            return END
        self._asked = True
        return PENDING

    def _must_wait(self, order: tuple[int, ...]) -> bool:
        """Whether a step before that place is about to complete, and another one to begin there."""
        return bool(self._settling) and min(self._settling) < order

    @override
    def drain(self) -> None:
        self.end()

    @override
    def stop(self) -> None:
        self.end()

    @override
    def release(self) -> None:
        self._closed = True
