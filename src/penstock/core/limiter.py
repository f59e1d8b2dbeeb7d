"""`Limiter`: how much stages and functions hold at once."""

# ruff: noqa: SLF001 -- a `WeightedHold` is a part of its limiter
# pyright: reportPrivateUsage=false

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, cast, overload, override

from penstock.core import validate
from penstock.core.errors import NestedLimitError, OptionError, caller
from penstock.core.shared_limit import NO_ITEM, SharedLimit
from penstock.core.waiting_line import WaitingLine


class Limiter(SharedLimit):
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
            host of an address, say). An item that waits for its key is none of the `concurrency` calls of its stage.
            Default: no keys.

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
        for line in self._parts_in_use():
            line.resize(self._limit)

    @property
    def in_use(self) -> int:
        """How much is held now, of all keys together."""
        return sum(line.in_use for line in self._parts_in_use())

    @property
    def waiting(self) -> int:
        """How many wait now, for all keys together."""
        return sum(map(len, self._parts_in_use()))

    async def __aenter__(self) -> None:
        self._refuse_without_item()
        if not self._take(1):
            await self._wait(1)

    async def __aexit__(self, *_: object) -> None:
        self._give_back(1)

    def hold(self, weight: int = 1, item: object = NO_ITEM) -> "WeightedHold":
        """Hold `weight` of it within an `async with`.

        Args:
            weight: an int >= 1, and at most the limit when the block is entered.
            item: what the key is asked of, if the limiter has one.

        Raises:
            OptionError: the weight breaks its rule, or is above the limit on entering; the limiter has a key and there
                is no item.
        """
        return WeightedHold(self, validate.whole("weight", weight, least=1), self._key_by_hand(item))

    @overload
    async def run[*Ts, U](self, fn: Callable[[*Ts], Awaitable[U]], /, *args: *Ts) -> U: ...
    @overload
    async def run[*Ts, U](self, fn: Callable[[*Ts], U | Awaitable[U]], /, *args: *Ts) -> U: ...
    async def run[*Ts, U](self, fn: Callable[[*Ts], U | Awaitable[U]], /, *args: *Ts) -> U:
        """Hold it (weight 1) while `fn(*args)` runs, and while what it returns is awaited; return the result.

        If the limiter has a key, that is asked of the first argument.
        """
        key = self._key_by_hand(args[0] if args else NO_ITEM)
        if not self._take(1, key=key):
            await self._wait(1, key=key)
        try:
            result = fn(*args)
            return await cast("Awaitable[U]", result) if isinstance(result, Awaitable) else result
        finally:
            self._give_back(1, key)

    # For stages, which hold it in the name of their calls (`stage_limits.py`)

    def _weigh(self, item: object) -> int:
        """Return the weight of `item`."""
        if self._cost is None:
            return 1
        return self._check(validate.whole("cost(item)", self._cost(item), least=1))

    def _check(self, weight: int) -> int:
        """Return `weight`, or raise if it is above the limit."""
        if weight > self.limit:
            raise OptionError(f"weight must be at most the limit of {self!r}, {self.limit}, got {weight}")
        return weight

    def _take(self, weight: int, stage: str = "", key: Hashable = None) -> bool:
        """Take `weight` for the current task if it fits now; if not, `_wait` has to follow.

        `stage` is the task's, if any; `key` is what `_key_of` gives.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._bind(loop)
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

    async def _wait(self, weight: int, stage: str = "", key: Hashable = None) -> None:
        """Take `weight` for the current task when it is its turn."""
        await self._part(key).wait(weight)
        self._stages[asyncio.current_task()] = stage

    def _give_back(self, weight: int, key: Hashable = None) -> None:
        """Give back what the current task took, or another task for it: the loop may close generators in others."""
        if self._stages.pop(asyncio.current_task(), None) is None:
            self._stages.popitem()
        line: WaitingLine = self._part(key)
        line.give_back(weight)
        if self._keyed and line.is_idle():
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
        if not self._limiter._take(self._limiter._check(self._weight), key=self._key):
            await self._limiter._wait(self._weight, key=self._key)

    async def __aexit__(self, *_: object) -> None:
        self._limiter._give_back(self._weight, self._key)
