"""The seam between a run and where its functions run: what an engine is, what it is given, and what it gives back.

High-level idea: the run keeps what is one for all engines (places, order, attempts, timeouts, errors, statistics), an
engine runs calls and says what they came to. See "Engines" in `docs/decisions.md`.
"""

import asyncio
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self, cast, override

from penstock.core.limiter import Limiter
from penstock.engines.read_results import read

ALL: Final = sys.maxsize
"""Results of a call, where all are wanted."""


class Answer:
    """What a call came to: what it returned, or what it raised. A call that was stopped has raised `CancelledError`.

    Attributes:
        value: what it returned.
        error: what it raised, or None. `WorkerLost`: its worker died while it ran.
        seconds: what it took where it ran; None where that is not known.
    """

    __slots__ = ("error", "seconds", "value")

    def __init__(self, value: Any = None, error: BaseException | None = None, seconds: float | None = None) -> None:
        self.value: Any = value
        self.error: BaseException | None = error
        self.seconds: float | None = seconds


class Progress(NamedTuple):
    """What is known of a group of calls that is under way.

    Attributes:
        answers: those of its first calls, as far as these are over, in order.
        since: the loop time at which the call after those began; None: none of the group runs at this moment.
    """

    answers: list[Answer]
    since: float | None


@dataclass(eq=False)
class Call:
    """A call that is to be made: `fn(*arguments)`.

    Attributes:
        fn: what `prepare` has made of the user's function.
        arguments: what it is called with.
        most: None, or: it gives an iterable, of which so many results are wanted. They are read where the call runs.
    """

    fn: Any
    arguments: tuple[Any, ...]
    most: int | None = None


def answer(fn: Callable[..., Any], arguments: tuple[Any, ...], most: int | None = None) -> Answer:
    """Make a call here and now, and say what it came to: what an engine does with a `Call` where it runs."""
    try:
        value = fn(*arguments)
        return Answer(value if most is None else read(value, most))
    except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
        return Answer(error=error)


class Engine(ABC):
    """Where functions run. Give one to `engine=`; stages and runs of one event loop can share it, and it outlives them.

    It is closed by who made it, with `async with` or `aclose()`. Write another one by keeping the five methods below:
    `prepare`, `submit`, `slots`, `describe` and `aclose`; where calls can be stopped, `stop` as well; where a hop is
    dear, `group_seconds`, and with it `depth`, `peek` and `recall` as far as they are possible. What is not asked of an
    engine: it keeps no order, tries nothing again and counts nothing, and no more than `slots()` groups of calls are
    under way at once (`depth` times as many of small calls). All methods are called on the loop.
    """

    in_process: bool = False
    """Whether a call may be given what another one returned: then iterators are read as their items are wanted."""

    group_seconds: float | None = None
    """What a group of calls should take, seconds > 0; None: calls go one by one, and `peek` and `recall` are not used.

    About twenty times what it costs to send an empty group there and back, between 1 and 50 ms, is a good figure. It
    may change, and is read after each group: an engine may measure what it costs. The calls of a group may be of
    several stages and runs, so that no context variables go along.
    """

    depth: int = 1
    """Groups that may be under way for each slot while calls take less than `group_seconds`, an int >= 1.

    2: the next group waits where its worker finds it, so that this one need not wait for the loop. It goes to a worker
    that has none, if there is one, else to the one whose group was sent last: in an old group, some call may be stuck.
    """

    _line: tuple[int, Any] | None = None

    @abstractmethod
    def prepare(self, fn: Callable[..., Any], /) -> Any:
        """What stands for the user's function in a `Call`: pickled once, say. Called once for a stage and run.

        Raises:
            OptionError: the function cannot go where calls run; the error names it and its module.
        """

    @abstractmethod
    def submit(self, calls: Sequence[Call], /) -> asyncio.Future[list[Answer]]:
        """Begin a group of calls, which run one after the other; gives an `Answer` for each, in order.

        The future is done when all of them are over, and never fails, nor is cancelled: what happened to a call is in
        its answer. Context variables, where they can go along, are those of the caller.

        The group is one call, unless the engine has `group_seconds`. Then the list may be shorter than the group: calls
        at its end without an answer were not begun (recalled, stopped, or the worker died before), and are submitted
        again. A worker that dies in a call: the answers of those before, then one whose error is `WorkerLost`. An
        engine that cannot tell which call it was gives `WorkerLost` for each that it may have been.
        """

    def peek(self, answers: asyncio.Future[list[Answer]], /) -> Progress | None:  # noqa: ARG002 -- for those that can
        """What is known of the group with these answers, which is not over; None, the default: nothing."""
        return None

    def recall(self, answers: asyncio.Future[list[Answer]], /) -> int | None:  # noqa: ARG002 -- may be impossible
        """Take back those calls of the group that are not begun: its future is done when the one that runs is over.

        Gives how many of its calls stay, the first ones: they are over, or it runs. The others will not be begun, and
        are submitted again at once. None, the default: that is not known before the future is done.
        """
        return None

    def stop(self, answers: asyncio.Future[list[Answer]], /) -> None:  # noqa: B027 -- what a thread does
        """Stop the group of calls with these answers, as far as that is possible; here, it is not.

        End the call that runs, by killing its worker if need be, and take back the rest. The future is to be done when
        they are over, at once or later: until then their places are taken. The answer of a call that was stopped is
        `CancelledError`; one that was over before keeps its answer.
        """

    @abstractmethod
    def slots(self) -> int:
        """How many groups of calls can run at once, an int >= 1; asked once, when a run is opened."""

    @abstractmethod
    def describe(self) -> str:
        """What it is, in a few words, for messages."""

    @abstractmethod
    async def aclose(self, grace: float = 5.0) -> None:
        """End it: nothing can be submitted any more, and after `grace` seconds what still runs is left behind."""

    def abandon(self) -> None:  # noqa: B027 -- many hold nothing
        """Let go of what it holds without waiting: the loop is gone. Default: do nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @override
    def __repr__(self) -> str:
        return self.describe()

    def line[L](self, kind: "Callable[[Engine], L]", /) -> L:
        """The line in which its stages and runs wait for it, of that kind. For the library, not for engines."""
        if self._line is None or self._line[0] != os.getpid():  # a child that was forked has a loop of its own
            self._line = os.getpid(), kind(self)
        return cast("L", self._line[1])


class Slots(Limiter):
    """The slots of an engine that is shared: a call holds one as long as it runs, whatever stage it is of."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.slots())
        self._engine = engine

    @override
    def __repr__(self) -> str:
        return self._engine.describe()
