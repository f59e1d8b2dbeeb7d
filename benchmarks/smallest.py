"""The smallest window there can be: a task per item, a bound and the order, and nothing else.

No error, no cancellation, no clock, no statistics, no source but a plain iterator, nobody who leaves early. It
shows what of an item's cost is the price of a task per item, and so how near an aim a window that has them can come.
"""

import asyncio
from asyncio import Task


class SmallestWindow:
    """Results of `fn` on `items` in order, at most `concurrency` at once and `bound` held."""

    def __init__(self, fn, items, concurrency, bound):
        self.fn, self.items, self.concurrency, self.bound = fn, iter(items), concurrency, bound
        self.running, self.finished, self.taken, self.head = {}, {}, 0, 0
        self.scheduled = self.exhausted = False
        self.waiter = None
        self.loop = asyncio.get_running_loop()

    async def call(self, index, item):
        value = await self.fn(item)
        self.running.pop(index, None)
        self.finished[index] = value
        if index == self.head:
            self.wake()

    def wake(self):
        if self.waiter is not None:
            self.waiter.set_result(None)
            self.waiter = None

    def pump(self):
        self.scheduled = False
        running = self.running
        room = min(self.concurrency - len(running), self.bound - len(running) - len(self.finished))
        if room <= 0 or self.exhausted:
            return
        loop, call = self.loop, self.call
        for item in self.items:
            index = self.taken
            self.taken = index + 1
            task = Task(call(index, item), loop=loop, eager_start=True)
            if not task.done():
                running[index] = task
            room -= 1
            if not room:
                return
        self.exhausted = True
        self.wake()

    def __aiter__(self):
        return self

    async def __anext__(self):
        while self.head not in self.finished:
            if not self.scheduled:
                self.pump()
                if self.head in self.finished:
                    break
            if self.exhausted and self.head == self.taken:
                raise StopAsyncIteration
            self.waiter = self.loop.create_future()
            await self.waiter
        value = self.finished.pop(self.head)
        self.head += 1
        if not self.scheduled and not self.exhausted:
            self.scheduled = True
            self.loop.call_soon(self.pump)
        return value
