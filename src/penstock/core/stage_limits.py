"""The limits of a stage: the option `limit=`.

All limits have one order, so that stages with several limits cannot wait for each other in a circle: first those with
keys, for which a call waits without a place of its window, then the place, then the others; of each kind rates before
limiters. So nobody who holds what all keys share waits for one key. A rate is charged when the call starts, so if the
call had to wait longer for a limiter, the next start still keeps its distance. Breakers hold nothing: a call waits for
them first, and looks once more when it has all the rest. See `docs/decisions.md`, "Limits wait in front of the work".
"""

# ruff: noqa: SLF001 -- what limits have for stages alone is private: users see what is for them
# pyright: reportPrivateUsage=false

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

from penstock.core.breaker import Breaker
from penstock.core.errors import OptionError
from penstock.core.limiter import Limiter
from penstock.core.meter import Meter
from penstock.core.rate_limit import RateLimit
from penstock.core.retry import still_running, tries_of_this_task
from penstock.core.shared_limit import SharedLimit
from penstock.core.text import shown

type LimitOption = SharedLimit | Sequence[SharedLimit]
"""The option `limit`. Type checkers infer `SharedLimit` for a list with both kinds of limit."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a stage, each kind in the order of all limits: those with keys first.

    `seen` turns an item into what the costs are asked of.
    """

    rates: tuple[RateLimit, ...]
    limiters: tuple[Limiter, ...]
    seen: Callable[[Any], Any] | None = None
    breakers: tuple[Breaker, ...] = ()

    @property
    def keyed(self) -> bool:
        """Whether one of them has keys."""
        return any(each._keyed for each in self._all)

    @property
    def _all(self) -> Sequence[SharedLimit]:
        return (*self.rates, *self.limiters, *self.breakers)

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Bind all limits to `loop`; raise if one belongs to another loop."""
        for limit in self._all:
            limit._bind(loop)


def limits_of(limit: object) -> Limits | None:
    """Check the option `limit`; return None if there is no limit."""
    if limit is None:
        return None
    several = cast("Sequence[Any]", limit if isinstance(limit, Sequence) and not isinstance(limit, str) else (limit,))
    if not all(isinstance(each, Limiter | RateLimit | Breaker) for each in several):
        raise OptionError(
            f"limit must be a Limiter, a RateLimit, a Breaker or a sequence of them, got {shown(cast('object', limit))}"
        )
    each_once = sorted(set(several), key=_place)
    if len(each_once) < len(several):
        raise OptionError(f"limit must name each limit once, got {shown(cast('object', limit))}")
    if not several:
        return None
    return Limits(
        tuple(each for each in each_once if isinstance(each, RateLimit)),
        tuple(each for each in each_once if isinstance(each, Limiter)),
        breakers=tuple(each for each in each_once if isinstance(each, Breaker)),
    )


def _place(limit: SharedLimit) -> tuple[bool, int]:
    """Return what limits of one kind are sorted by."""
    return not limit._keyed, limit.number


type Weighed = tuple[Limiter, Hashable, int]
"""A limiter, the key and the weight of an item."""


class Aside(Protocol):
    """How a window has a call wait for its key."""

    async def aside(self, permit: Coroutine[Any, Any, None], /) -> None:
        """Await `permit`; meanwhile the call holds no place of the window."""


class Hold:
    """What one attempt of a call takes of the limits of its stage; it waits for keys in `room`, if there is one."""

    __slots__ = ("_breakers", "_costs", "_held", "_meter", "_room", "_stage", "_times", "_turns", "_weights")

    def __init__(  # noqa: PLR0917 -- one for each attempt
        self,
        limits: Limits,
        stage: str,
        meter: Meter,
        item: object,
        room: Aside | None = None,
        weights: Sequence[Weighed] | None = None,
    ) -> None:
        """Ask the limits for their keys and costs of `item`, unless `weights` has what all of them say."""
        self._stage = stage
        self._meter = meter
        self._room = room
        self._costs: Sequence[tuple[RateLimit, Hashable, float]] = ()
        self._weights: Sequence[Weighed] = ()
        self._breakers: Sequence[tuple[Breaker, Hashable]] = ()
        self._times: Sequence[int] = ()  # of each breaker, what it wants to be told in the end
        self._turns: list[tuple[RateLimit, float, Hashable]] = []
        self._held: list[Weighed] = []
        if weights is not None:
            self._weights = weights
            return
        item = item if limits.seen is None else limits.seen(item)
        self._costs = [(rate, rate._key_of(item), rate._weigh(item)) for rate in limits.rates]
        self._weights = [(limiter, limiter._key_of(item), limiter._weigh(item)) for limiter in limits.limiters]
        self._breakers = tuple((each, each._key_of(item)) for each in limits.breakers) if limits.breakers else ()

    async def during[T, U](self, work: Callable[[T], Awaitable[U]], item: T) -> U:
        """Await `work(item)` under the limits.

        Give them back when it ends, or, if it left a thread, when the thread is back.
        """
        await self._begin()
        try:
            result = await work(item)
        except BaseException as error:
            try:
                self._tell(error)
            finally:
                self.end(error)
            raise
        self._tell(None)
        self.pause()
        return result

    async def _begin(self) -> None:
        tries = tries_of_this_task()
        await (self._wait() if tries is None else tries.begin_after(self._wait))
        self._turns.clear()  # a charge ends the turn
        for rate, key, cost in self._costs:
            rate._charge(cost, key)

    async def _wait(self) -> None:
        """Wait for all limits, until no pause is on that has begun meanwhile, and no breaker open."""
        while True:
            await self._acquire()
            left = self._pause_left()
            if not left and not self._breakers:
                return
            if not left and all(breaker._lets_in(key) for breaker, key in self._breakers):
                self._times = [breaker._begin(key) for breaker, key in self._breakers]
                return
            self._release()  # also the turns: others need them, to come to know of the pause
            if left:
                await self._meter.limited(asyncio.sleep(left))

    async def _acquire(self) -> None:
        """Wait for what has keys, then for what has none: for a turn at each rate, then for the limiters."""
        try:
            for keyed in (True, False):
                for breaker, key in self._breakers:
                    if breaker._keyed is keyed and not breaker._lets_in(key):
                        await self._waits(breaker._wait(key), keyed=keyed)
                for rate, key, cost in self._costs:
                    if rate._keyed is keyed:
                        turn = self._turn(rate, key, cost)
                        await (turn if rate._is_due(cost, key) else self._waits(turn, keyed=keyed))
                await self._take(keyed=keyed)
        except BaseException:
            self._release()
            raise

    def _tell(self, error: BaseException | None) -> None:
        """Tell the breakers how the attempt has ended."""
        for (breaker, key), times in zip(self._breakers, self._times, strict=True):
            breaker._ended(times, error, key)

    def _release(self) -> None:
        while self._turns:
            rate, cost, key = self._turns.pop()
            rate._end_turn(cost, key)
        self.pause()

    def _pause_left(self) -> float:
        paused = [each._pause_left(key) for each, key, _ in (*self._costs, *self._weights)]
        return max(paused, default=0.0)

    async def resume(self) -> None:
        """Take the limiters, in order."""
        try:
            await self._take(keyed=True)
            await self._take(keyed=False)
        except BaseException:
            self.pause()
            raise

    async def _take(self, *, keyed: bool) -> None:
        for limiter, key, weight in self._weights:
            if limiter._keyed is keyed:
                if limiter._take(weight, self._stage, key):
                    self._held.append((limiter, key, weight))
                else:
                    await self._waits(self._hold(limiter, key, weight), keyed=keyed)

    # What is got is noted at once: who has its key may still wait for a place, and be cancelled

    async def _turn(self, rate: RateLimit, key: Hashable, cost: float) -> None:
        await rate._turn(cost, key)
        self._turns.append((rate, cost, key))

    async def _hold(self, limiter: Limiter, key: Hashable, weight: int) -> None:
        await limiter._wait(weight, self._stage, key)
        self._held.append((limiter, key, weight))

    def _waits(self, permit: Coroutine[Any, Any, None], *, keyed: bool) -> Coroutine[Any, Any, None]:
        permit = self._meter.limited(permit)
        return self._room.aside(permit) if keyed and self._room is not None else permit

    def pause(self) -> None:
        """Give the limiters back, if they are held."""
        while self._held:
            limiter, key, weight = self._held.pop()
            limiter._give_back(weight, key)

    def took_all(self) -> None:
        """Note that what it weighs is held already."""
        self._held += self._weights

    def end(self, error: BaseException) -> None:
        """Give back the limiters after the attempt has failed; if it left a thread, when that is back."""
        if (late := still_running(error)) is not None:
            late.back = partial(self._give_back_after, late.back)
        else:
            self.pause()

    async def _give_back_after(self, back: Callable[[], Awaitable[None]]) -> None:
        try:
            await back()
        finally:
            self.pause()


def limited[J, U](work: Callable[[J], Awaitable[U]], hold: Callable[[J], Hold]) -> Callable[[J], Awaitable[U]]:
    """Wrap `work`: each attempt holds what `hold(job)` says."""

    async def attempt(job: J) -> U:
        return await hold(job).during(work, job)

    return attempt


def limited_items[T, U](
    work: Callable[[T], Awaitable[U]], limits: Limits, stage: str, meter: Meter, room: Aside | None
) -> Callable[[T], Awaitable[U]]:
    """Wrap `work`: each attempt holds what `limits` say of its item.

    A single limiter that has room needs no `Hold`: 5.5 us an item that waits once, not 9.8.
    """
    if limits.rates or limits.breakers or len(limits.limiters) != 1:
        return limited(work, partial(Hold, limits, stage, meter, room=room))
    (limiter,) = limits.limiters
    seen = limits.seen

    async def attempt(item: T) -> U:
        given = item if seen is None else seen(item)
        key = limiter._key_of(given)
        weight = limiter._weigh(given)
        if tries_of_this_task() is not None or not limiter._take(weight, stage, key):
            return await Hold(limits, stage, meter, item, room, [(limiter, key, weight)]).during(work, item)
        try:
            result = await work(item)
        except BaseException as error:
            hold = Hold(limits, stage, meter, item, room, [(limiter, key, weight)])
            hold.took_all()
            hold.end(error)
            raise
        limiter._give_back(weight, key)
        return result

    return attempt
