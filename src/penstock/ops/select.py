"""Operators that choose items by position."""

from typing import override

from penstock.core.scope import Scope
from penstock.core.stage import END, PENDING, Pulled, Stage, Through


class Take[T](Through[T, T]):
    """Hands on `count` items: asks upstream for exactly that many, stops it before it hands on the last (P2)."""

    def __init__(self, scope: Scope, upstream: Stage[T], count: int) -> None:
        super().__init__(scope, upstream, f"take({count})")
        self._left = count

    @override
    def pull(self, room: int) -> Pulled[T]:
        if self._left == 0:
            self.scope.stop(self.upstream)
            return END
        item = self.upstream.pull(min(room, self._left))
        if item is PENDING or item is END:
            return item
        self._taken += 1
        self._delivered += 1
        self._left -= 1
        if self._left == 0:
            self.scope.stop(self.upstream)
        return item
