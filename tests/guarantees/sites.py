"""Work in progress that can be left, and what must be true after."""

import asyncio
import math

from penstock import stream
from penstock.testing import Gauge, Scripted

FOREVER = math.inf


class Left(Exception):
    """Raised by the body of a consumer, or by work."""


class Source(Scripted):
    """Notes how many calls still ran when it was closed."""

    def __init__(self, gauge, items, **script):
        super().__init__(items, **script)
        self.gauge = gauge
        self.running_when_closed = None

    def record_close(self):
        super().record_close()
        self.running_when_closed = self.gauge.now


class Site:
    """A stream over work: `quick` items take a second each, the others never end, and stopping takes a second."""

    def __init__(self, operator, clock, *, sync=False, count=1_000, quick=4, fails_at=None, **options):
        self.clock, self.gauge = clock, Gauge()
        self.quick, self.fails_at = quick, fails_at
        self.source = Source(self.gauge, range(count))
        items = stream(self.source.sync() if sync else self.source)
        self.stream = operator.build(items, self.gauge.wrap(self.call), **options)
        self.left, self.left_at, self.others = asyncio.Event(), None, None

    async def call(self, item):
        try:
            await asyncio.sleep(1 if item < self.quick else FOREVER)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
            raise
        if item == self.fails_at:
            self.leave()
            raise Left

    def leave(self):
        """Note the moment, and how many calls are under way that will have to be stopped."""
        self.left.set()
        self.left_at = self.clock.now
        self.others = self.gauge.now - (self.fails_at is not None)

    async def check(self, *, sync):
        """Nothing runs, nothing starts, the source is closed as promised, and no time went by once work had stopped."""
        assert self.clock.now == self.left_at + (1 if self.others else 0)
        assert self.gauge.now == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert self.source.closed == self.source.opened == 1
        assert self.source.running_when_closed == 0
        assert sync or self.source.pulled_by == {self.source.closed_by}
        started = self.gauge.started, self.source.taken
        await asyncio.sleep(100)
        assert (self.gauge.started, self.source.taken) == started
