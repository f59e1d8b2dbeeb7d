"""Limits that stages and functions share: how much is held at once, how much starts per time.

First come, first served. A limit with a key is one for each key: it keeps a part (a line, a schedule) for each key in
use, and forgets those that are idle.
"""

import asyncio
import itertools
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Hashable
from typing import Any, ClassVar, Final, Protocol, cast, overload, override

from penstock.core import validate
from penstock.core.clock import clock_of
from penstock.core.errors import NestedLimitError, OptionError, WrongLoopError, caller
from penstock.core.log import LOG
from penstock.core.retry import Seconds
from penstock.core.text import shown

_NUMBERS = itertools.count()

NO_ITEM: Final = object()
"""Stands for an item where there is none."""

PAUSED: Final = -1
"""The limit of a line that is paused: nothing fits."""

SLOW: Final = (8.0, 4.0, 2.0)
"""By how much the space between starts is wider in each third of the time after a pause: the rate doubles."""

_BUCKET: Final = 1.1
"""How far from what is computed the time may be when a bucket is full again, as a factor: services round it."""

SLOWEST: Final = 60.0
"""Seconds that the slow start of a rate takes at most."""

_FEW: Final = 64
"""Parts of a limit that are kept without a look at which are idle."""

_EARLY: Final = 1e-9
"""Seconds by which a loop may call a timer too early: the resolution of asyncio's clock."""


class WaitingLine:
    """Waiters in a line, each until its weight fits under `limit`. Nobody overtakes the first in line.

    While somebody waits, the first does not fit. A weight above the limit fits when nothing is in use.

    Attributes:
        in_use: how much is held.
        full: how much may be held.
        limit: how much may be held now: `PAUSED` during a pause, and less than `full` in the slow start after it.
    """

    __slots__ = ("_paused_until", "_slow_until", "_timer", "_waiters", "full", "in_use", "limit")

    def __init__(self, limit: int) -> None:
        self.full: int = limit
        self.limit: int = limit
        self.in_use: int = 0
        self._waiters: OrderedDict[asyncio.Future[None], int] = OrderedDict()  # any may leave in O(1)
        self._paused_until = self._slow_until = float("-inf")
        self._timer: asyncio.TimerHandle | None = None  # for the end of a pause, while somebody waits

    def __len__(self) -> int:
        return len(self._waiters)

    def is_idle(self) -> bool:
        """Whether nobody holds anything or waits, and no pause is felt."""
        if self.in_use or self._waiters:
            return False
        return self.limit == self.full or asyncio.get_running_loop().time() > self._slow_until

    def forget_tasks(self) -> None:
        """Forget who holds it and who waits."""
        self.in_use = 0
        self._waiters.clear()
        self._timer = None

    def take(self, weight: int) -> bool:
        """Take `weight` now, if it fits and nobody waits; return whether it did."""
        if self._waiters:
            return False
        in_use = self.in_use + weight
        if in_use > self.limit:
            if self.limit == PAUSED and not self.pause_left():
                self._begin_slowly()
                return self.take(weight)
            if in_use != weight or self.limit == PAUSED:
                return False
        self.in_use = in_use
        return True

    async def wait(self, weight: int) -> None:
        """Take `weight` when it is its turn and it fits."""
        loop = asyncio.get_running_loop()
        first = False
        while True:
            waiter = loop.create_future()
            self._waiters[waiter] = weight
            if first:
                self._waiters.move_to_end(waiter, last=False)
            if self.limit == PAUSED:
                self._watch()
            try:
                if waiter.done():  # those that were promised a start before this one are yet to start
                    await asyncio.sleep(0)
                await waiter
            except BaseException:
                if waiter.done() and not waiter.cancelled():  # granted and cancelled in one pass: hand on
                    self.give_back(weight)
                else:
                    self._waiters.pop(waiter, None)
                    self.grant()
                if not self._waiters and self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                raise
            if self.limit != PAUSED:
                return
            self.in_use -= weight  # granted and paused in one pass
            first = True

    def give_back(self, weight: int) -> None:
        """Give back what was taken."""
        self.in_use -= weight
        if 0 < self.limit < self.full:
            self.limit = min(self.full, self.limit + weight)
        if self._waiters:
            self.grant()

    def grant(self) -> None:
        """Let in the first waiters, as far as there is room."""
        while self._waiters and self.limit != PAUSED:
            waiter, weight = next(iter(self._waiters.items()))
            if not waiter.done():  # or it was cancelled, and its task is yet to hear of it
                if self.in_use and self.in_use + weight > self.limit:
                    return
                self.in_use += weight
                waiter.set_result(None)
            del self._waiters[waiter]

    def resize(self, full: int) -> None:
        """Let `full` be held."""
        if self.limit == self.full or self.limit > full:
            self.limit = full
        self.full = full
        self.grant()

    # Pauses

    def pause(self, seconds: float) -> None:
        """Let nobody in for so many seconds; then one, and one more for each that leaves (slow start, RFC 5681)."""
        until = asyncio.get_running_loop().time() + seconds
        self._paused_until = max(until, self._paused_until)
        self._slow_until = max(until + seconds, self._slow_until)
        self.limit = PAUSED
        if self._waiters:
            self._watch()

    def pause_left(self) -> float:
        """Return the seconds until the pause is over; 0 if there is none."""
        return _above_0(self._paused_until - asyncio.get_running_loop().time())

    def _watch(self) -> None:
        """Be called when the pause is over: somebody waits for it."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.pause_left(), self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        self._timer = None
        if self.pause_left():
            self._watch()
        else:
            self._begin_slowly()
            self.grant()

    def _begin_slowly(self) -> None:
        self.limit = 1


def _above_0(seconds: float) -> float:
    return seconds if seconds > _EARLY else 0.0


class Part(Protocol):
    """What a limit knows of one key, or of all if it has no keys."""

    def is_idle(self) -> bool:
        """Whether a new part would be the same."""
        ...

    def forget_tasks(self) -> None:
        """Forget who holds it and who waits."""

    def pause(self, seconds: float, /) -> None:
        """Let nobody in for so many seconds, then begin slowly."""

    def pause_left(self) -> float:
        """Return the seconds until the pause is over; 0 if there is none."""
        ...


class ByKey[P: Part]:
    """The part of a limit for each key in use.

    A line is forgotten when it becomes idle. Schedules become idle by the clock, so they are forgotten when there are
    twice as many as at the last look: this is O(1) for each new key, and there are never more than twice as many as are
    in use, plus `_FEW`.
    """

    __slots__ = ("_by_key", "_look_at", "_make")

    def __init__(self, make: Callable[[], P]) -> None:
        self._make = make
        self._by_key: dict[Hashable, P] = {}
        self._look_at = _FEW

    def __len__(self) -> int:
        return len(self._by_key)

    def of(self, key: Hashable) -> P:
        """Return the part for `key`; use it at once, so that it is not idle."""
        part = self._by_key.get(key)
        if part is None:
            if len(self._by_key) >= self._look_at:
                self._by_key = {known: part for known, part in self._by_key.items() if not part.is_idle()}
                self._look_at = max(_FEW, 2 * len(self._by_key))
            part = self._by_key[key] = self._make()
        return part

    def forget(self, key: Hashable) -> None:
        """Forget the part for `key`, which has become idle."""
        self._by_key.pop(key, None)

    def all(self) -> Collection[P]:
        """Return all parts."""
        return self._by_key.values()


class Shared:
    """What both kinds of limit have: a loop, a cost per item, parts, and a number that gives all limits one order."""

    def __init__(
        self, name: str | None, cost: Callable[[Any], float] | None, key: Callable[[Any], Hashable] | None
    ) -> None:
        self.name: str | None = None if name is None else validate.text("name", name)
        if cost is not None:
            validate.plain_function("cost", cost)
        if key is not None:
            validate.plain_function("key", key)
        self.number: int = next(_NUMBERS)
        self._cost = cost
        self._key = key
        self._parts: ByKey[Any] = ByKey(self._next_part)
        self._paused_until: float | None = None  # the latest end of a pause, of any key; None if there never was one
        self._paused_all: tuple[float, float] | None = None  # when, and for how long
        self._only: Any = self._new_part() if key is None else None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()

    def _new_part(self) -> Part:
        """Make the part for a key."""
        raise NotImplementedError

    def _next_part(self) -> Part:
        part = self._new_part()
        if self._paused_all is not None:
            began, seconds = self._paused_all
            left = began + seconds - asyncio.get_running_loop().time()
            if left > 0:
                part.pause(left)
            else:
                self._paused_all = None
        return part

    def pause(self, seconds: Seconds, item: object = NO_ITEM) -> None:
        """Start nothing for so many seconds, whoever shares this limit; then begin slowly. What runs goes on.

        For a service that says how long to stay away (Retry-After). A pause within a pause ends at the later end. After
        it, a `Limiter` lets in one, and one more for each that leaves; the space between the starts of a `RateLimit` is
        8, 4 and 2 times as wide, each for a third of the length of the pause (of 60 s, if that was longer).

        Args:
            seconds: how long, >= 0, or a timedelta. Call it on the loop of the limit.
            item: with a key, pause only the key of this item; without an item, all keys.

        Raises:
            OptionError: `seconds` breaks its rule.
        """
        left = validate.seconds("seconds", seconds, zero=True)
        loop = asyncio.get_running_loop()
        self.bind(loop)
        if self.keyed and item is NO_ITEM:
            paused = self.parts()
            self._paused_all = loop.time(), left
        else:
            paused = (self._part(self.key_by_hand(item)),)
        for part in paused:
            part.pause(left)
        self._paused_until = max(self._paused_until or 0.0, loop.time() + left)
        LOG.info("%r: nothing starts for %.3g s", self, left)

    def pause_left(self, key: Hashable = None) -> float:
        """Return the seconds until the pause is over, for `key`; 0 if there is none."""
        if self._paused_until is None:
            return 0.0
        if asyncio.get_running_loop().time() > self._paused_until:
            self._paused_until = None
            return 0.0
        return cast("float", self._part(key).pause_left())

    def _forget_tasks(self) -> None:
        """Forget the tasks of the process that forked this one."""
        for part in self.parts():
            part.forget_tasks()

    def _part(self, key: Hashable) -> Any:
        """Return the part for `key`, which is ignored if there are no keys."""
        return self._parts.of(key) if self._only is None else self._only

    def parts(self) -> Collection[Any]:
        """Return the parts in use."""
        return self._parts.all() if self._only is None else (self._only,)

    @property
    def keyed(self) -> bool:
        """Whether it is one limit for each key."""
        return self._only is None

    def key_of(self, item: object) -> Hashable:
        """Return the key of `item`; None if there are no keys."""
        if self._key is None:
            return None
        key = self._key(item)
        try:
            hash(key)
        except TypeError:
            raise OptionError(f"key(item) must be hashable, got {shown(key)}") from None
        return key

    def key_by_hand(self, item: object) -> Hashable:
        """Return the key of `item`; raise if there is a key and no item to ask it of."""
        if item is NO_ITEM:
            self._refuse_without_item()
            return None
        return self.key_of(item)

    _by_hand: ClassVar[str]

    def _refuse_without_item(self) -> None:
        if self.keyed:
            raise OptionError(f"{self!r} has a key, and there is no item to ask it of: {self._by_hand}")

    def _said(self, call: str) -> str:
        return f"{call})" if self.name is None else f"{call}, name={self.name!r})"

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Bind the limit to `loop`, at its first use; in a child that was forked, at the first use there.

        Raises:
            WrongLoopError: it is bound to another loop.
        """
        if self._process != os.getpid():
            self._process, self._loop = os.getpid(), None
            self._forget_tasks()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise WrongLoopError(f"{self!r} belongs to the event loop of its first use and cannot be used on another")


class Limiter(Shared):
    """Lets stages and functions of one event loop hold at most `n` at once.

    First come, first served: small weights that would fit do not overtake a large one. A wait that is cancelled holds
    nothing. The limiter belongs to the loop of its first use.

    A task that holds it and asks for it again would wait for itself, so this raises `NestedLimitError`, even if there
    is room. Only the same task counts: if a task that holds the limiter waits for another that needs it, nobody can
    tell.

    Args:
        n: how much may be held at once; an int >= 1.
        name: its name in errors.
        cost: gives the weight of an item of a stage with `limit=` (`map_batches`: of the list of items); an int >= 1
            and at most the limit. Default: 1.
        key: gives the key of such an item, anything hashable: `n` is then what may be held at once for each key (the
            host of an address, say). An item that
            waits for its key is none of the `concurrency` calls of its stage. Default: no keys.

    Raises:
        OptionError: an argument breaks its rule.

    Example:
        connections = penstock.Limiter(10)

        async def ask(query):
            async with connections:
                return await database.fetch(query)

        penstock.stream(urls).map(fetch, concurrency=64, limit=connections)
    """

    _by_hand = "use `run(fn, item)` or `hold(weight, item)`"

    def __init__(
        self,
        n: int,
        *,
        name: str | None = None,
        cost: Callable[[Any], int] | None = None,
        key: Callable[[Any], Hashable] | None = None,
    ) -> None:
        self._limit = validate.whole("n", n, least=1)
        super().__init__(name, cost, key)
        self._stages: dict[asyncio.Task[Any] | None, str] = {}  # of the tasks that hold it; "" for an `async with`

    @override
    def _new_part(self) -> WaitingLine:
        return WaitingLine(self._limit)

    @override
    def _forget_tasks(self) -> None:
        super()._forget_tasks()
        self._stages = {}

    @override
    def __repr__(self) -> str:
        return self._said(f"Limiter({self.limit}")

    @property
    def limit(self) -> int:
        """How much may be held at once: an int >= 1, which may be set at any time.

        Raising it lets in those for whom there is room now. Lowering it takes nothing away: waiters go on waiting until
        enough was given back, and a waiter whose weight is above the new limit until all was given back.
        """
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = validate.whole("limit", limit, least=1)
        for line in self.parts():
            line.resize(self._limit)

    @property
    def in_use(self) -> int:
        """How much is held now, of all keys together."""
        return sum(line.in_use for line in self.parts())

    @property
    def waiting(self) -> int:
        """How many wait now, for all keys together."""
        return sum(map(len, self.parts()))

    async def __aenter__(self) -> None:
        self._refuse_without_item()
        if not self.take(1):
            await self.wait(1)

    async def __aexit__(self, *_: object) -> None:
        self.give_back(1)

    def hold(self, weight: int = 1, item: object = NO_ITEM) -> "WeightedHold":
        """Hold `weight` of it within an `async with`.

        Args:
            weight: an int >= 1, and at most the limit when the block is entered.
            item: what the key is asked of, if the limiter has one.

        Raises:
            OptionError: the weight breaks its rule, or is above the limit on entering; the limiter has a key and there
                is no item.
        """
        return WeightedHold(self, validate.whole("weight", weight, least=1), self.key_by_hand(item))

    @overload
    async def run[*Ts, U](self, fn: Callable[[*Ts], Awaitable[U]], /, *args: *Ts) -> U: ...
    @overload
    async def run[*Ts, U](self, fn: Callable[[*Ts], U | Awaitable[U]], /, *args: *Ts) -> U: ...
    async def run[*Ts, U](self, fn: Callable[[*Ts], U | Awaitable[U]], /, *args: *Ts) -> U:
        """Hold it (weight 1) while `fn(*args)` runs, and while what it returns is awaited; return the result.

        If the limiter has a key, that is asked of the first argument.
        """
        key = self.key_by_hand(args[0] if args else NO_ITEM)
        if not self.take(1, key=key):
            await self.wait(1, key=key)
        try:
            result = fn(*args)
            return await cast("Awaitable[U]", result) if isinstance(result, Awaitable) else result
        finally:
            self.give_back(1, key)

    # For whoever holds it in the name of others

    def weigh(self, item: object) -> int:
        """Return the weight of `item`."""
        if self._cost is None:
            return 1
        return self.check(validate.whole("cost(item)", self._cost(item), least=1))

    def check(self, weight: int) -> int:
        """Return `weight`, or raise if it is above the limit."""
        if weight > self.limit:
            raise OptionError(f"weight must be at most the limit of {self!r}, {self.limit}, got {weight}")
        return weight

    def take(self, weight: int, stage: str = "", key: Hashable = None) -> bool:
        """Take `weight` for the current task if it fits now; if not, `wait` has to follow.

        `stage` is the task's, if any; `key` is what `key_of` gives.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self.bind(loop)
        task = asyncio.current_task(loop)
        if task in self._stages:
            raise NestedLimitError(
                f"{self!r} is held by this task already: taken {self._taken_by(task)}, asked for again at "
                f"{':'.join(map(str, caller()))}; it would wait for itself"
            )
        if not self._part(key).take(weight):
            return False
        self._stages[task] = stage
        return True

    async def wait(self, weight: int, stage: str = "", key: Hashable = None) -> None:
        """Take `weight` for the current task when it is its turn."""
        await self._part(key).wait(weight)
        self._stages[asyncio.current_task()] = stage

    def give_back(self, weight: int, key: Hashable = None) -> None:
        """Give back what the current task took, or another task for it: the loop may close generators in others."""
        if self._stages.pop(asyncio.current_task(), None) is None:
            self._stages.popitem()
        line: WaitingLine = self._part(key)
        line.give_back(weight)
        if self.keyed and line.is_idle():
            self._parts.forget(key)

    def _taken_by(self, task: "asyncio.Task[Any] | None") -> str:
        stage = self._stages[task]
        return f"by stage {stage!r}" if stage else "further up in this traceback"


class WeightedHold:
    """Part of a limiter, held within an `async with`."""

    __slots__ = ("_key", "_limiter", "_weight")

    def __init__(self, limiter: Limiter, weight: int, key: Hashable) -> None:
        self._limiter = limiter
        self._weight = weight
        self._key = key

    async def __aenter__(self) -> None:
        if not self._limiter.take(self._limiter.check(self._weight), key=self._key):
            await self._limiter.wait(self._weight, key=self._key)

    async def __aexit__(self, *_: object) -> None:
        self._limiter.give_back(self._weight, self._key)


class Schedule:
    """The starts of a rate: what is owed for those there were, who may start, and who waits in line.

    Whoever may start has its cost promised until it is charged. So as many may start at once as the burst allows, and
    without a burst the next one has to wait until this one has started.
    """

    __slots__ = ("_promised", "_promises", "_slow", "_timer", "_waiters", "began", "charged", "rate", "resumes")

    def __init__(self, rate: "RateLimit") -> None:
        self.rate: RateLimit = rate
        self.began: float = float("-inf")
        self.charged: float = 0.0  # since then: sums of seconds would drift
        self.resumes: float = float("-inf")  # when the last pause is over
        self._promises = 0
        self._promised = 0.0
        self._slow: list[tuple[float, float]] = []  # until when the space between starts is how much wider
        self._waiters: OrderedDict[asyncio.Future[None], float] = OrderedDict()  # with their costs; any may leave
        self._timer: asyncio.TimerHandle | None = None  # for the first in line

    def is_idle(self) -> bool:
        """Whether nobody may start or waits, nothing is owed, and no pause is felt."""
        now = self.rate.now()
        free = not (self._promises or self._waiters)
        return free and max(self.paid_at(), self.resumes) <= now and self._wider(now) == 1

    def forget_tasks(self) -> None:
        """Forget who may start and who waits; what is owed is owed."""
        self._promises, self._promised = 0, 0.0
        self._waiters.clear()
        self._timer = None

    def paid_at(self) -> float:
        """Return when all that was charged is paid off: the theoretical arrival time of the algorithm."""
        return self.began + self.charged * self.rate.spacing

    def seconds_until(self, cost: float) -> float:
        """Return the seconds until a start of `cost` is due, 0 or less if it is; inf if another has to start first."""
        now, burst, spacing = self.rate.now(), self.rate.burst, self.rate.spacing
        if not self._promises:
            due = self.began + (self.charged - max(0.0, burst - cost)) * spacing
            return max(due, self.resumes) - now
        owed = max(0.0, self.paid_at() - now) / spacing
        short = owed + self._promised + cost - burst
        if short > owed:
            return float("inf")
        return max(short * spacing, self.resumes - now)

    def is_due(self, cost: float) -> bool:
        """Whether a start of `cost` would not wait; it waits behind those that have a promise and are yet to start."""
        return not (self._waiters or self._promises) and self.seconds_until(cost) <= _EARLY

    def take(self, cost: float) -> bool:
        """Promise a start of `cost`, if it is due and nobody waits; return whether it was."""
        if not self.is_due(cost):
            return False
        self._promise(cost)
        return True

    async def wait(self, cost: float) -> None:
        """Be promised a start of `cost` when it is its turn and due."""
        loop = asyncio.get_running_loop()
        first = False
        while True:
            waiter = loop.create_future()
            self._waiters[waiter] = cost
            if first:
                self._waiters.move_to_end(waiter, last=False)
            if next(iter(self._waiters)) is waiter:
                self.look_again()
            try:
                if waiter.done():  # those that were promised a start before this one are yet to start
                    await asyncio.sleep(0)
                await waiter
            except BaseException:
                if waiter.done() and not waiter.cancelled():  # promised and cancelled in one pass
                    self.give_back(cost)
                else:
                    self._waiters.pop(waiter, None)
                    self.look_again()
                raise
            if not self.pause_left():
                return
            self.give_back(cost)  # promised and paused in one pass
            first = True

    def _promise(self, cost: float) -> None:
        self._promises += 1
        self._promised += cost

    def give_back(self, cost: float) -> None:
        """Take a promise back: it was charged, or nothing starts."""
        self._promises -= 1
        self._promised = self._promised - cost if self._promises else 0.0
        if self._waiters:
            self.look_again()

    def look_again(self) -> None:
        """Promise starts to the first in line, as far as they are due; be called when the next one is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiters:
            waiter, cost = next(iter(self._waiters.items()))
            if not waiter.done():  # or it was cancelled, and its task is yet to hear of it
                left = self.seconds_until(cost)
                if left > _EARLY:
                    if left != float("inf"):
                        self._timer = waiter.get_loop().call_later(left, self.look_again)
                    return
                self._promise(cost)
                waiter.set_result(None)
            del self._waiters[waiter]

    def charge(self, cost: float) -> None:
        """Charge `cost` for what starts now, as it was promised."""
        now = self.rate.now()
        self._forget_what_is_paid(now)
        owed = self.charged + cost
        if (wider := self._wider(now)) > 1:  # not so much that the next would wait beyond the slow time
            until_then = (self._slow[-1][0] - self.began) / self.rate.spacing + self.rate.burst
            owed = max(owed, min(owed + cost * (wider - 1), until_then))
        self.charged = owed
        self.give_back(cost)

    def settle(self, more: float) -> None:
        """Charge so much more for what has started; less than 0 gives back."""
        if more > 0:
            self._forget_what_is_paid(self.rate.now())
        self.charged += more
        self.look_again()

    def _forget_what_is_paid(self, now: float) -> None:
        if now > self.paid_at() + _EARLY:
            self.began, self.charged = now, 0.0

    def pause(self, seconds: float) -> None:
        """Start nothing for so many seconds, then begin slowly, without a burst."""
        self.resumes = max(self.resumes, self.rate.now() + seconds)
        third = min(seconds, SLOWEST) / len(SLOW)
        self._slow = [(self.resumes + third * (number + 1), wider) for number, wider in enumerate(SLOW)]
        no_burst = self.rate.burst - 1
        if self.paid_at() < self.resumes + no_burst * self.rate.spacing:
            self.began, self.charged = self.resumes, no_burst

    def pause_left(self) -> float:
        """Return the seconds until the pause is over; 0 if there is none."""
        return _above_0(self.resumes - self.rate.now())

    def slow_down(self, seconds: float, wider: float) -> None:
        """Make the space between starts so many times as wide for so many seconds."""
        now = self.rate.now()
        if wider > self._wider(now):  # a slow start goes on
            self._slow = [(now + seconds, wider)]

    def _wider(self, now: float) -> float:
        while self._slow and self._slow[0][0] <= now:
            del self._slow[0]
        return self._slow[0][1] if self._slow else 1.0


class RateLimit(Shared):
    """Lets stages and functions of one event loop start at most `n` per `per` seconds, evenly spaced.

    This is the generic cell rate algorithm (ITU-T I.371, annex A, virtual scheduling): a start of cost c takes `c * per
    / n` seconds off a schedule that may run ahead of the clock by `burst` units. In any `per` seconds there are at most
    `n + burst - 1` starts of cost 1. First come, first served; a cancelled wait costs nothing. A late loop makes the
    space between two starts larger, never smaller; a burst of 2 or more keeps the average all the same.

    Args:
        n: cost units per `per` seconds, > 0.
        per: seconds, or a timedelta, > 0.
        burst: units that may start at once after enough idle time, >= 1. Default: 1, no burst.
        name: its name in errors.
        cost: gives the units of an item of a stage with `limit=` (`map_batches`: of the list of items); a number >= 0.
            An item of cost 0 is charged nothing and still waits for its turn. Default: 1.
        key: gives the key of such an item, anything hashable: `n` and `burst` then hold for each key. An item that
            waits for its key is none of the `concurrency` calls of its stage. Default: no keys.

    Raises:
        OptionError: an argument breaks its rule.

    Example:
        limits = [penstock.RateLimit(500, 60), penstock.RateLimit(90_000, 60, cost=tokens_of)]
        penstock.stream(prompts).map(ask, concurrency=64, limit=limits)
    """

    def __init__(
        self,
        n: float,
        per: Seconds,
        *,
        burst: float = 1,
        name: str | None = None,
        cost: Callable[[Any], float] | None = None,
        key: Callable[[Any], Hashable] | None = None,
    ) -> None:
        self._n = validate.positive("n", n)
        self._per = validate.seconds("per", per)
        self.burst: float = validate.number("burst", burst, least=1)
        self.spacing: float = self._per / self._n
        self._clock: Callable[[], float] | None = None
        super().__init__(name, cost, key)

    _by_hand = "use `acquire(cost, item)`"

    @override
    def _new_part(self) -> Schedule:
        return Schedule(self)

    @override
    def __repr__(self) -> str:
        return self._said(f"RateLimit({self._n:g}, {self._per:g}")

    async def acquire(self, cost: float = 1, item: object = NO_ITEM) -> None:
        """Wait until a start of `cost` units (a number >= 0) is due, and charge them.

        A cost above `burst` waits until nothing is owed; those who come next wait until it is paid off. If the limit
        has a key, that is asked of `item`.
        """
        cost = validate.number("cost", cost, least=0)
        key = self.key_by_hand(item)
        await self.turn(cost, key)
        self.charge(cost, key)

    def settle(self, charged: float, used: float, item: object = NO_ITEM) -> None:
        """Charge what a start has really used, where an estimate was charged before.

        So a limit of tokens per minute can be charged before the answer says how many it took. Call it for failed
        attempts too, with what they used. What was estimated too high is given back: whoever waits is let in sooner.

        Args:
            charged: the estimate, as `cost` or `acquire` had it; a number >= 0.
            used: the true units, >= 0.
            item: what the key is asked of, if the limit has one.

        Raises:
            OptionError: a number breaks its rule.
        """
        more = validate.number("used", used, least=0) - validate.number("charged", charged, least=0)
        schedule: Schedule = self._part(self.key_by_hand(item))
        schedule.settle(more)

    def follow(
        self,
        *,
        limit: float | None = None,
        remaining: float | None = None,
        reset: Seconds | None = None,
        per: Seconds | None = None,
        item: object = NO_ITEM,
    ) -> None:
        """Move the limit to what the service says of it, as in headers like `x-ratelimit-remaining-requests`.

        `limit` becomes `n`, or its share of that if `per` differs. If fewer units remain until the reset than this
        limit would start, as others use them too, starts are spaced wider until then; if none remain, the limit is
        paused. What remains is not held against a limit that fills up evenly, as a bucket does: then the reset is when
        it is full again.

        Args:
            limit: units per `per` seconds, > 0.
            remaining: units that are left, >= 0; given with `reset`.
            reset: seconds until all are there again, >= 0, or a timedelta.
            per: seconds that the service counts in, > 0, or a timedelta; default: those of this limit.
            item: what the key is asked of, if the limit has one.

        Raises:
            OptionError: a number breaks its rule.
        """
        their_per = self._per if per is None else validate.seconds("per", per)
        if limit is not None:
            self._n = validate.positive("limit", limit) * self._per / their_per
            self.spacing = self._per / self._n
            for schedule in self.parts():
                schedule.look_again()
        if remaining is None or reset is None:
            return
        left = validate.number("remaining", remaining, least=0)
        seconds = validate.seconds("reset", reset, zero=True)
        full_in = max(0.0, their_per - left * self.spacing)
        fills_up = full_in / _BUCKET <= seconds <= full_in * _BUCKET
        if left < 1:
            self.pause(min(seconds, self.spacing) if fills_up else seconds, item)
        elif not fills_up and seconds / left > self.spacing:
            part: Schedule = self._part(self.key_by_hand(item))
            part.slow_down(seconds, seconds / left / self.spacing)

    @property
    def n(self) -> float:
        """Cost units per `per` seconds: what it was made with, or `follow` was told last."""
        return self._n

    @property
    def per(self) -> float:
        """The seconds that `n` is for."""
        return self._per

    async def __aenter__(self) -> None:
        self._refuse_without_item()
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        """Do nothing: a start cannot be given back."""

    # For whoever has more to wait for before the start

    def weigh(self, item: object) -> float:
        """Return the units of `item`."""
        return 1.0 if self._cost is None else validate.number("cost(item)", self._cost(item), least=0)

    def is_due(self, cost: float, key: Hashable = None) -> bool:
        """Whether `turn` would not wait."""
        schedule: Schedule = self._part(key)
        return schedule.is_due(cost)

    async def turn(self, cost: float, key: Hashable = None) -> None:
        """Wait for a turn and for `cost` units: they are promised, and not charged before the start."""
        self.bind(asyncio.get_running_loop())
        schedule: Schedule = self._part(key)
        if not schedule.take(cost):
            await schedule.wait(cost)

    def charge(self, cost: float, key: Hashable = None) -> None:
        """Charge `cost` for what starts now, after its `turn`."""
        self._part(key).charge(cost)

    def end_turn(self, cost: float, key: Hashable = None) -> None:
        """Give the turn back: nothing starts."""
        self._part(key).give_back(cost)

    def now(self) -> float:
        """Return the time by the clock of the loop."""
        if self._clock is None:
            self._clock = clock_of(asyncio.get_running_loop())
        return self._clock()
