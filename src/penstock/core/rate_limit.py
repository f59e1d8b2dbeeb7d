"""`RateLimit`: how much stages and functions start per time."""

import asyncio
from collections.abc import Callable, Hashable
from typing import Any, Final, override

from penstock.core import validate
from penstock.core.retry import Seconds
from penstock.core.schedule import Schedule
from penstock.core.shared_limit import NO_ITEM, SharedLimit

_BUCKET: Final = 1.1
"""How far from what is computed the time may be when a bucket is full again, as a factor: services round it."""


class RateLimit(SharedLimit):
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

        Raises:
            OptionError: `cost` is no number >= 0, or the limit has a key and there is no item.
        """
        cost = validate.number("cost", cost, least=0)
        key = self._key_by_hand(item)
        await self._turn(cost, key)
        self._charge(cost, key)

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
        schedule: Schedule = self._part(self._key_by_hand(item))
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
            for schedule in self._parts_in_use():
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
            part: Schedule = self._part(self._key_by_hand(item))
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

    # For stages (`stage_limits.py`), which have more to wait for before the start

    def _weigh(self, item: object) -> float:
        """Return the units of `item`."""
        return 1.0 if self._cost is None else validate.number("cost(item)", self._cost(item), least=0)

    def _is_due(self, cost: float, key: Hashable = None) -> bool:
        """Whether `_turn` would not wait."""
        schedule: Schedule = self._part(key)
        return schedule.is_due(cost)

    async def _turn(self, cost: float, key: Hashable = None) -> None:
        """Wait for a turn and for `cost` units: they are promised, and not charged before the start."""
        self._bind(asyncio.get_running_loop())
        schedule: Schedule = self._part(key)
        if not schedule.take(cost):
            await schedule.wait(cost)

    def _charge(self, cost: float, key: Hashable = None) -> None:
        """Charge `cost` for what starts now, after its `_turn`."""
        self._part(key).charge(cost)

    def _end_turn(self, cost: float, key: Hashable = None) -> None:
        """Give the turn back: nothing starts."""
        self._part(key).give_back(cost)
