"""A limit to how many start per time. First come, first served."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, override

from penstock.core import validate
from penstock.core.clock import clock_of
from penstock.core.limits import Line, Shared
from penstock.core.retry import Seconds

_EARLY: Final = 1e-9
"""Seconds by which a loop may call a timer too early: the resolution of asyncio's clock."""


class RateLimit(Shared):
    """At most `n` per `per` seconds, evenly spaced, by all stages and functions of one event loop that use it.

    The generic cell rate algorithm (ITU-T I.371, annex A, virtual scheduling): a start of cost c takes `c * per / n`
    seconds off a schedule that may run ahead of the clock by `burst` units. In any `per` seconds there are at most
    `n + burst - 1` starts of cost 1. First come, first served; a cancelled wait costs nothing. A loop that is late
    makes the space between two starts larger, never smaller; a burst of 2 or more keeps the average all the same.

    Args:
        n: cost units per `per` seconds, > 0.
        per: seconds, or a timedelta, > 0.
        burst: units that may go at once after as much idle time as they take, >= 1. Default: 1, no burst.
        name: its name in errors.
        cost: the units of an item of a stage with `limit=`, given the item (`map_batches`: the list of them); a number
            >= 0, where 0 is charged nothing and still waits for its turn. Default: 1.

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
        self._turns = Line(1)
        self._clock: Callable[[], float] | None = None
        self._began = float("-inf")
        self._charged = 0.0  # since then: sums of seconds would drift

    @override
    def __repr__(self) -> str:
        rate = f"{self._n:g}, {self._per:g}"
        return f"RateLimit({rate})" if self.name is None else f"RateLimit({rate}, name={self.name!r})"

    async def acquire(self, cost: float = 1) -> None:
        """Wait until one may start, and charge `cost` units, a number >= 0.

        A cost above `burst` waits until nothing is owed, and is paid off afterwards by those who come next.
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
        """The units of `item`."""
        return 1.0 if self._cost is None else validate.number("cost(item)", self._cost(item), least=0)

    async def turn(self, cost: float) -> None:
        """Wait for one's turn, and for `cost` units. Nothing is charged, and nobody else has a turn, until it ends."""
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
        """Charge what starts now, and end the turn."""
        now = self._now()
        if now > self._paid_at() + _EARLY:
            self._began, self._charged = now, 0.0
        self._charged += cost
        self.end_turn()

    def end_turn(self) -> None:
        """End the turn: the next in line has one."""
        self._turns.give_back(1)

    def _now(self) -> float:
        if self._clock is None:
            self._clock = clock_of(asyncio.get_running_loop())
        return self._clock()

    def _paid_at(self) -> float:
        """When everything charged so far is paid off: the theoretical arrival time of the algorithm."""
        return self._began + self._charged * self._per / self._n

    def _starts_at(self, cost: float) -> float:
        return self._began + (self._charged - max(0.0, self._burst - cost)) * self._per / self._n
