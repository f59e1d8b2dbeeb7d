"""A service with a limit that it does not tell, in virtual time."""

import asyncio
import random


class Refused(Exception):
    status_code = 429


class Server:
    """M/M/c: `servers` work at once for `mean` seconds, exponentially distributed; `queue` wait.

    More are refused.

    Attributes:
        done: when each call was answered.
        refused: when each call was refused; it hears of it after `hears` seconds, a hundredth of one.
    """

    def __init__(self, servers, mean, queue, seed=0, hears=0.01):
        self.servers = servers
        self.mean = mean
        self.queue = queue
        self.done = []
        self.refused = []
        self.most = 0
        self._random = random.Random(seed)
        self._hears = hears
        self._inside = 0
        self._busy = 0
        self._line = []

    async def call(self, _item):
        loop = asyncio.get_running_loop()
        if self._inside >= self.servers + self.queue:
            self.refused.append(loop.time())
            if self._hears:
                await asyncio.sleep(self._hears)
            raise Refused
        self._inside += 1
        self.most = max(self.most, self._inside)
        try:
            await self._serve(loop)
            self.done.append(loop.time())
        finally:
            self._inside -= 1

    async def _serve(self, loop):
        if self._busy >= self.servers:
            turn = loop.create_future()
            self._line.append(turn)
            await turn
        else:
            self._busy += 1
        try:
            await asyncio.sleep(self._random.expovariate(1 / self.mean))
        finally:
            waiting = [turn for turn in self._line if not turn.done()]
            if waiting and self._busy <= self.servers:
                self._line.remove(waiting[0])
                waiting[0].set_result(None)
            else:
                self._busy -= 1

    def answered(self, since, until):
        return sum(since <= time < until for time in self.done)

    @property
    def share_refused(self):
        return len(self.refused) / (len(self.refused) + len(self.done))
