"""Functions for `map_batches`, and what is asked of its books."""

import asyncio

from penstock.testing import Gauge

ORDERS = (True, False)
OUTCOMES = ("delivered", "dropped", "failed", "cancelled", "discarded")


class Bad(Exception):
    pass


class Calls:
    """Functions for `map_batches` that note their lists and when they came; those with a bad item fail."""

    def __init__(self, clock=None, *, bad=(), seconds=0.0):
        self.clock, self.bad, self.seconds = clock, set(bad), seconds
        self.lists, self.times, self.gauge = [], [], Gauge()

    @property
    def sizes(self):
        return [len(items) for items in self.lists]

    def note(self, items):
        self.lists.append(list(items))
        if self.clock is not None:
            self.times.append(self.clock.now)

    def check(self, items):
        if bad := self.bad.intersection(items):
            raise Bad(*sorted(bad))
        return [str(item) for item in items]

    async def on_loop(self, items):
        self.note(items)
        with self.gauge:
            await asyncio.sleep(self.seconds)
        return self.check(items)

    def plain(self, items):
        self.note(items)
        with self.gauge:
            if self.clock is not None:
                self.clock.sleep(self.seconds)
        return self.check(items)


def texts(numbers):
    return [str(number) for number in numbers]


def books(stage):
    counts = {name: getattr(stage, name) for name in OUTCOMES}
    assert sum(counts.values()) + stage.in_flight == stage.taken
    assert min(*counts.values(), stage.in_flight) >= 0
    return {name: count for name, count in {"taken": stage.taken, **counts}.items() if count}
