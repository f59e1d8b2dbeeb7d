"""Operators that combine streams."""

from collections.abc import Sequence
from functools import partial
from typing import override

from penstock.core.scope import Scope
from penstock.core.stage import END, PENDING, Pulled, Stage


class Merge[T](Stage[T]):
    """Hands on the items of several stages as they come, in turn (P3).

    While one of them has nothing, the ready ones give an item each and then the loop gets a pass, so that a source
    which is always ready starves no other. When one fails, the others are stopped; what they have finished is handed
    on, then the failure ends the stream.
    """

    def __init__(self, scope: Scope, upstreams: Sequence[Stage[T]]) -> None:
        super().__init__(scope, "merge")
        self._upstreams = tuple(upstreams)
        self._ready = list(upstreams)
        self._waiting: set[Stage[T]] = set()
        self._given = 0
        self._pass_due = False
        self._asked = False
        for upstream in upstreams:
            upstream.on_ready = partial(self._has_item, upstream)

    @override
    def pull(self, room: int) -> Pulled[T]:
        while self._ready:
            if self._waiting and self._given >= len(self._ready):
                self._let_others_run()
                break
            upstream = self._ready.pop(0)
            item = upstream.pull(1)
            if item is PENDING:
                self._waiting.add(upstream)
            elif item is END:
                self._stop_if_failed()
            else:
                self._ready.append(upstream)
                self._given += 1
                self.taken += 1
                self.delivered += 1
                return item
        if not self._ready and not self._waiting:
            return END
        self._asked = True
        return PENDING

    def _let_others_run(self) -> None:
        if not self._pass_due:
            self._pass_due = True
            self.scope.loop.call_soon(self._others_ran, context=self.scope.context)

    def _others_ran(self) -> None:
        self._pass_due = False
        self._given = 0
        self._tell()

    def _has_item(self, upstream: Stage[T]) -> None:
        if upstream in self._waiting:
            self._waiting.remove(upstream)
            self._ready.append(upstream)
        self._tell()

    def _tell(self) -> None:
        if self._asked:
            self._asked = False
            self.on_ready()

    def _stop_if_failed(self) -> None:
        if self.scope.failure is not None:
            self.stop()

    @override
    def stop(self) -> None:
        for upstream in self._upstreams:
            upstream.stop()

    @override
    def drain(self) -> None:
        for upstream in self._upstreams:
            upstream.drain()
