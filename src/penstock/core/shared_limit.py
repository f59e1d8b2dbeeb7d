"""What every limit has, whatever it limits: the loop of its first use, costs, keys, pauses."""

import asyncio
import itertools
import os
from collections.abc import Callable, Collection, Hashable
from typing import Any, ClassVar, Final, cast

from penstock.core import validate
from penstock.core.by_key import ByKey, Part
from penstock.core.errors import OptionError, WrongLoopError
from penstock.core.log import LOG
from penstock.core.retry import Seconds
from penstock.core.text import shown

_NUMBERS = itertools.count()

NO_ITEM: Final = object()
"""Stands for an item where there is none."""


class SharedLimit:
    """What every kind of limit has: a loop, a cost per item, parts, and a number that gives all limits one order."""

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
        self._bind(loop)
        if self._keyed and item is NO_ITEM:
            paused = self._parts_in_use()
            self._paused_all = loop.time(), left
        else:
            paused = (self._part(self._key_by_hand(item)),)
        for part in paused:
            part.pause(left)
        self._paused_until = max(self._paused_until or 0.0, loop.time() + left)
        LOG.info("%r: nothing starts for %.3g s", self, left)

    def _pause_left(self, key: Hashable = None) -> float:
        """Return the seconds until the pause is over, for `key`; 0 if there is none."""
        if self._paused_until is None:
            return 0.0
        if asyncio.get_running_loop().time() > self._paused_until:
            self._paused_until = None
            return 0.0
        return cast("float", self._part(key).pause_left())

    def _forget_tasks(self) -> None:
        """Forget the tasks of the process that forked this one."""
        for part in self._parts_in_use():
            part.forget_tasks()

    def _part(self, key: Hashable) -> Any:
        """Return the part for `key`, which is ignored if there are no keys."""
        return self._parts.of(key) if self._only is None else self._only

    def _parts_in_use(self) -> Collection[Any]:
        """Return the parts in use."""
        return self._parts.all() if self._only is None else (self._only,)

    @property
    def _keyed(self) -> bool:
        """Whether it is one limit for each key."""
        return self._only is None

    def _key_of(self, item: object) -> Hashable:
        """Return the key of `item`; None if there are no keys."""
        if self._key is None:
            return None
        key = validate.plain_result("key", self._key(item))
        try:
            hash(key)
        except TypeError:
            raise OptionError(f"key(item) must be hashable, got {shown(key)}") from None
        return key

    def _key_by_hand(self, item: object) -> Hashable:
        """Return the key of `item`; raise if there is a key and no item to ask it of."""
        if item is NO_ITEM:
            self._refuse_without_item()
            return None
        return self._key_of(item)

    _by_hand: ClassVar[str]

    def _refuse_without_item(self) -> None:
        if self._keyed:
            raise OptionError(f"{self!r} has a key, and there is no item to ask it of: {self._by_hand}")

    def _said(self, call: str) -> str:
        return f"{call})" if self.name is None else f"{call}, name={self.name!r})"

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
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
