"""Limits that stages and functions share: how much is held at once, how much starts per time.

First come, first served.
"""

import asyncio
import itertools
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast, overload, override

from penstock.core import validate
from penstock.core.clock import clock_of
from penstock.core.errors import NestedLimitError, OptionError, WrongLoopError, caller
from penstock.core.retry import Seconds

_NUMBERS = itertools.count()

_EARLY: Final = 1e-9
"""Seconds by which a loop may call a timer too early: the resolution of asyncio's clock."""


class WaitingLine:
    """Waiters in a line, each until its weight fits under `limit`. Nobody overtakes the first in line.

    While somebody waits, the first does not fit. A weight above the limit fits when nothing is in use.
    """

    __slots__ = ("_waiters", "in_use", "limit")

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        self.in_use: int = 0
        self._waiters: OrderedDict[asyncio.Future[None], int] = OrderedDict()  # any may leave in O(1)

    def __len__(self) -> int:
        return len(self._waiters)

    def take(self, weight: int) -> bool:
        """Take `weight` now, if it fits and nobody waits; return whether it did."""
        if self._waiters:
            return False
        in_use = self.in_use + weight
        if in_use > self.limit and in_use != weight:
            return False
        self.in_use = in_use
        return True

    async def wait(self, weight: int) -> None:
        """Take `weight` when it is its turn and it fits."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = weight
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():  # granted and cancelled in one pass: hand on
                self.give_back(weight)
            else:
                self._waiters.pop(waiter, None)
                self.grant()
            raise

    def give_back(self, weight: int) -> None:
        """Give back what was taken."""
        self.in_use -= weight
        if self._waiters:
            self.grant()

    def grant(self) -> None:
        """Let in the first waiters, as far as there is room."""
        while self._waiters:
            waiter, weight = next(iter(self._waiters.items()))
            if not waiter.done():  # or it was cancelled, and its task is yet to hear of it
                if self.in_use and self.in_use + weight > self.limit:
                    return
                self.in_use += weight
                waiter.set_result(None)
            del self._waiters[waiter]


class Shared:
    """What both kinds of limit have: a loop, a cost per item, and a number that gives all limits one order."""

    def __init__(self, name: str | None, cost: Callable[[Any], float] | None) -> None:
        self.name: str | None = None if name is None else validate.text("name", name)
        if cost is not None:
            validate.plain_function("cost", cost)
        self.number: int = next(_NUMBERS)
        self._cost = cost
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()

    def _forget_tasks(self) -> None:
        """Forget who holds it and who waits: tasks of the process that forked this one."""
        raise NotImplementedError

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

    Raises:
        OptionError: an argument breaks its rule.

    Example:
        connections = penstock.Limiter(10)

        async def ask(query):
            async with connections:
                return await database.fetch(query)

        penstock.stream(urls).map(fetch, concurrency=64, limit=connections)
    """

    def __init__(self, n: int, *, name: str | None = None, cost: Callable[[Any], int] | None = None) -> None:
        super().__init__(name, cost)
        self._line = WaitingLine(validate.whole("n", n, least=1))
        self._stages: dict[asyncio.Task[Any] | None, str] = {}  # of the tasks that hold it; "" for an `async with`

    @override
    def _forget_tasks(self) -> None:
        self._line = WaitingLine(self.limit)
        self._stages = {}

    @override
    def __repr__(self) -> str:
        return f"Limiter({self.limit})" if self.name is None else f"Limiter({self.limit}, name={self.name!r})"

    @property
    def limit(self) -> int:
        """How much may be held at once: an int >= 1, which may be set at any time.

        Raising it lets in those for whom there is room now. Lowering it takes nothing away: waiters go on waiting until
        enough was given back, and a waiter whose weight is above the new limit until all was given back.
        """
        return self._line.limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._line.limit = validate.whole("limit", limit, least=1)
        self._line.grant()

    @property
    def in_use(self) -> int:
        """How much is held now."""
        return self._line.in_use

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return len(self._line)

    async def __aenter__(self) -> None:
        if not self.take(1):
            await self.wait(1)

    async def __aexit__(self, *_: object) -> None:
        self.give_back(1)

    def hold(self, weight: int) -> "WeightedHold":
        """Hold `weight` of it within an `async with`.

        Args:
            weight: an int >= 1, and at most the limit when the block is entered.

        Raises:
            OptionError: the weight breaks its rule, or is above the limit on entering.
        """
        return WeightedHold(self, validate.whole("weight", weight, least=1))

    @overload
    async def run[*Ts, U](self, fn: Callable[[*Ts], Awaitable[U]], /, *args: *Ts) -> U: ...
    @overload
    async def run[*Ts, U](self, fn: Callable[[*Ts], U | Awaitable[U]], /, *args: *Ts) -> U: ...
    async def run[*Ts, U](self, fn: Callable[[*Ts], U | Awaitable[U]], /, *args: *Ts) -> U:
        """Hold it (weight 1) while `fn(*args)` runs, and while what it returns is awaited; return the result."""
        if not self.take(1):
            await self.wait(1)
        try:
            result = fn(*args)
            return await cast("Awaitable[U]", result) if isinstance(result, Awaitable) else result
        finally:
            self.give_back(1)

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

    def take(self, weight: int, stage: str = "") -> bool:
        """Take `weight` for the current task if it fits now; if not, `wait` has to follow.

        `stage` is the task's, if any.
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
        if not self._line.take(weight):
            return False
        self._stages[task] = stage
        return True

    async def wait(self, weight: int, stage: str = "") -> None:
        """Take `weight` for the current task when it is its turn."""
        await self._line.wait(weight)
        self._stages[asyncio.current_task()] = stage

    def give_back(self, weight: int) -> None:
        """Give back what the current task took, or another task for it: the loop may close generators in others."""
        if self._stages.pop(asyncio.current_task(), None) is None:
            self._stages.popitem()
        self._line.give_back(weight)

    def _taken_by(self, task: "asyncio.Task[Any] | None") -> str:
        stage = self._stages[task]
        return f"by stage {stage!r}" if stage else "further up in this traceback"


class WeightedHold:
    """Part of a limiter, held within an `async with`."""

    __slots__ = ("_limiter", "_weight")

    def __init__(self, limiter: Limiter, weight: int) -> None:
        self._limiter = limiter
        self._weight = weight

    async def __aenter__(self) -> None:
        if not self._limiter.take(self._limiter.check(self._weight)):
            await self._limiter.wait(self._weight)

    async def __aexit__(self, *_: object) -> None:
        self._limiter.give_back(self._weight)


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
    ) -> None:
        super().__init__(name, cost)
        self._n = validate.positive("n", n)
        self._per = validate.seconds("per", per)
        self._burst = validate.number("burst", burst, least=1)
        self._turns = WaitingLine(1)
        self._clock: Callable[[], float] | None = None
        self._began = float("-inf")
        self._charged = 0.0  # since then: sums of seconds would drift

    @override
    def _forget_tasks(self) -> None:
        self._turns = WaitingLine(1)

    @override
    def __repr__(self) -> str:
        rate = f"{self._n:g}, {self._per:g}"
        return f"RateLimit({rate})" if self.name is None else f"RateLimit({rate}, name={self.name!r})"

    async def acquire(self, cost: float = 1) -> None:
        """Wait until a start of `cost` units (a number >= 0) is due, and charge them.

        A cost above `burst` waits until nothing is owed; those who come next wait until it is paid off.
        """
        cost = validate.number("cost", cost, least=0)
        await self.turn(cost)
        self.charge(cost)

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        """Do nothing: a start cannot be given back."""

    # For whoever has more to wait for before the start

    def weigh(self, item: object) -> float:
        """Return the units of `item`."""
        return 1.0 if self._cost is None else validate.number("cost(item)", self._cost(item), least=0)

    async def turn(self, cost: float) -> None:
        """Wait for a turn and for `cost` units.

        Nothing is charged, and nobody else gets a turn, until the turn ends.
        """
        loop = asyncio.get_running_loop()
        self.bind(loop)
        if not self._turns.take(1):
            await self._turns.wait(1)
        try:
            while (left := self._starts_at(cost) - self._now()) > _EARLY:  # noqa: ASYNC110 -- what it waits for is time
                await asyncio.sleep(left)
        except BaseException:
            self.end_turn()
            raise

    def charge(self, cost: float) -> None:
        """Charge `cost` for what starts now, and end the turn."""
        now = self._now()
        if now > self._paid_at() + _EARLY:
            self._began, self._charged = now, 0.0
        self._charged += cost
        self.end_turn()

    def end_turn(self) -> None:
        """End the turn: the next in line gets one."""
        self._turns.give_back(1)

    def _now(self) -> float:
        if self._clock is None:
            self._clock = clock_of(asyncio.get_running_loop())
        return self._clock()

    def _paid_at(self) -> float:
        """Return when all that was charged is paid off: the theoretical arrival time of the algorithm."""
        return self._began + self._charged * self._per / self._n

    def _starts_at(self, cost: float) -> float:
        return self._began + (self._charged - max(0.0, self._burst - cost)) * self._per / self._n
