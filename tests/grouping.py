"""An engine in virtual time whose calls travel in groups: what a call takes, and whether it kills, a script says."""

import asyncio
from collections import deque

from penstock import MisuseError, WorkerLost
from penstock.engines import Answer, Engine, Progress, answer


class Worker:
    """Makes the calls of its groups one after the other; the groups behind the first wait in its pipe."""

    def __init__(self):
        self.pipe = deque()
        self.timer = None
        self.sent = 0.0


class Sent:
    """A group, as the worker knows it: its calls up to `end` are made."""

    def __init__(self, calls, answers):
        self.calls = calls
        self.answers = answers
        self.done = []
        self.since = None
        self.end = len(calls)


class Grouping(Engine):
    """`takes(item)` seconds a call, 0.1 by default; a worker dies at the end of a call for which `kills(item)` is true.

    `blind`: nothing is known of a group before it is over, nor what a call took, nor which of its calls has killed.
    Deaths take no time, stopping takes `dies` seconds.

    Attributes:
        sent: the items of all groups, in order.
        began: every call that was begun, and when.
        stopped, recalled: groups for which that was asked.
    """

    group_seconds = 1.0

    def __init__(self, slots=2, *, depth=1, takes=None, kills=None, dies=0.0, blind=False):
        self.count = slots
        self.depth = depth
        self.takes = takes or (lambda _: 0.1)
        self.kills = kills or (lambda _: False)
        self.dies = dies
        self.blind = blind
        self.workers = [Worker() for _ in range(slots)]
        self.sent = []
        self.began = []
        self.stopped = self.recalled = self.dead = 0
        self.closed = False

    @property
    def under_way(self):
        return [sent for worker in self.workers for sent in worker.pipe]

    def prepare(self, fn, /):
        return fn

    def submit(self, calls, /):
        if self.closed:
            raise MisuseError("it was closed")
        self.sent.append([call.arguments[0] if call.arguments else None for call in calls])
        worker = min(self.workers, key=lambda each: (len(each.pipe), -each.sent))
        worker.sent = asyncio.get_running_loop().time()
        assert len(worker.pipe) < self.depth
        sent = Sent(calls, asyncio.get_running_loop().create_future())
        worker.pipe.append(sent)
        if worker.timer is None:
            self._go_on(worker)
        return sent.answers

    def _go_on(self, worker):
        while worker.pipe:
            first = worker.pipe[0]
            if len(first.done) < first.end:
                loop = asyncio.get_running_loop()
                (item, *_) = first.calls[len(first.done)].arguments or (None,)
                self.began.append((item, loop.time()))
                first.since = loop.time()
                worker.timer = loop.call_later(self.takes(item), self._returned, worker, item)
                return
            self._end(worker)

    def _end(self, worker):
        sent = worker.pipe.popleft()
        sent.since = None
        sent.answers.set_result(sent.done)

    def _returned(self, worker, item):
        worker.timer = None
        first = worker.pipe[0]
        if self.kills(item):
            self._die(worker)
            return
        call = first.calls[len(first.done)]
        said = answer(call.fn, call.arguments, call.most)
        if not self.blind:
            said.seconds = asyncio.get_running_loop().time() - first.since
        first.done.append(said)
        first.since = None
        self._go_on(worker)

    def _die(self, worker):
        self.dead += 1
        lost = Answer(error=WorkerLost("killed by signal 9"))
        first = worker.pipe[0]
        first.done = [lost] * first.end if self.blind else [*first.done, lost]
        while worker.pipe:
            self._end(worker)

    def peek(self, answers, /):
        if self.blind:
            return None
        (sent,) = (each for each in self.under_way if each.answers is answers)
        return Progress(list(sent.done), sent.since)

    def _of(self, answers):
        return next((worker, sent) for worker in self.workers for sent in worker.pipe if sent.answers is answers)

    def recall(self, answers, /):
        self.recalled += 1
        worker, sent = self._of(answers)
        sent.end = len(sent.done) + (sent.since is not None)
        if sent is not worker.pipe[0]:
            worker.pipe.remove(sent)
            answers.set_result([])
        return None if self.blind else sent.end

    def stop(self, answers, /):
        self.stopped += 1
        worker, sent = self._of(answers)
        if sent.since is None:
            self.recall(answers)
            return
        worker.timer.cancel()
        worker.timer = asyncio.get_running_loop().call_later(self.dies, self._killed, worker)

    def _killed(self, worker):
        worker.timer = None
        sent = worker.pipe[0]
        if self.blind:
            sent.done = []
        sent.done.append(Answer(error=asyncio.CancelledError()))
        self._end(worker)
        self._go_on(worker)

    def slots(self):
        return self.count

    def describe(self):
        return f"Grouping({self.count})"

    async def aclose(self, grace=5.0):
        assert not (grace and self.under_way)
        self.closed = True
