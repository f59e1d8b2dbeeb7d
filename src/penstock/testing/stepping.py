"""Loops that step: callbacks run in an order drawn from a seed, and anything may come between two of them.

It keeps what asyncio promises about order, as far as code can know of it: callbacks that one step has scheduled run in
the order in which it scheduled them. Callbacks of different steps, timers of one instant and calls from other threads
take their turns by chance, and some come a few passes of the loop later.
"""

import asyncio
import contextvars
import functools
import itertools
import random
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import closing, contextmanager
from typing import Any, cast, override

from penstock.testing.describe import describe_task
from penstock.testing.leftovers import Leftovers
from penstock.testing.loops import TASK_FACTORIES, LoopName, TaskStart, new_loop
from penstock.testing.virtual import Clock, VirtualLoop

LATENESS = (0.0, 0.25, 0.5)
"""How much orders differ: the share of ready callbacks that wait for a later pass."""


def run_shuffled[T](
    main: Coroutine[Any, Any, T],
    *,
    seed: int,
    loop: LoopName = "asyncio",
    tasks: TaskStart = "default",
    clock: Clock | None = None,
) -> T:
    """Run `main` as `run` does, in an order of callbacks drawn from `seed`; an error names the seed.

    The same seed gives the same run, unless threads or the real clock take part.

        for seed in range(100):
            assert run_shuffled(stream(pages()).map(fetch, concurrency=4).to_list(), seed=seed) == expected

    Args:
        main: the coroutine.
        seed: what the order is drawn from.
        loop: one of `LOOPS`.
        tasks: one of `TASK_FACTORIES`: how tasks start.
        clock: the clock to use, if you want to read it, or to go on with one.

    Raises:
        AssertionError: something was left behind: see `Leftovers`.
        Deadlock: nothing can run and no timer waits.
        Livelock: the loop has been busy for 200,000 passes in which no time went by.
    """
    try:
        with closing(main), Leftovers(), asyncio.Runner(loop_factory=lambda: _new_loop(loop, tasks, clock)) as runner:
            runner.get_loop()  # raises for a wrong name before anything is wrapped round `main`
            return runner.run(_leaving_nothing(main, seed))
    except BaseException as error:
        error.add_note(f"in the order of seed {seed}")
        raise


def run_interrupted(
    main: "Callable[[Interrupt], Coroutine[Any, Any, object]]",
    *,
    points: Iterable[int] | None = None,
    again: int = 0,
    seed: int | None = None,
    loop: LoopName = "asyncio",
    tasks: TaskStart = "default",
) -> int:
    """Run `main` over and over, each time with an interruption at another point; return the number of interrupted runs.

    A point is a step of the loop, a task or a callback: the interruption comes before it. The last run is the one that
    ends before its interruption. All runs share one loop in virtual time, where time goes on from run to run. None may
    leave anything behind; an error says where its run was interrupted.

        async def main(interrupt: Interrupt) -> None:
            source = Scripted(range(3))
            consumer = asyncio.create_task(stream(source).map(fetch, concurrency=2).to_list())
            with interrupt.by(consumer.cancel):
                await asyncio.wait([consumer])
            assert consumer.cancelled() == any(interrupt.results)
            assert source.closed == source.opened

        assert run_interrupted(main) > 10

    Args:
        main: makes the coroutine to run; says what the interruption does, and from when to when steps count.
        points: the numbers of the steps before which to interrupt, rising from 1; default all.
        again: after how many more steps to interrupt a second time; 0, the default: never.
        seed: what the order of callbacks is drawn from, as in `run_shuffled`; default: the order of the loop.
        loop: one of `LOOPS`.
        tasks: one of `TASK_FACTORIES`: how tasks start.

    Raises:
        AssertionError: something was left behind: see `Leftovers`.
        Deadlock: nothing can run and no timer waits.
        Livelock: the loop has been busy for 200,000 passes in which no time went by.
        ValueError: `main` has not used its `Interrupt`.
    """
    interrupted = 0
    with Leftovers(), asyncio.Runner(loop_factory=lambda: _new_loop(loop, tasks)) as runner:
        runner.get_loop()  # raises for a wrong name before any coroutine is made
        for point in itertools.count(1) if points is None else points:
            interrupt = Interrupt(point, again)
            try:
                runner.run(_leaving_nothing(main(interrupt), seed))
            except BaseException as error:
                error.add_note(repr(interrupt) + ("" if seed is None else f", in the order of seed {seed}"))
                raise
            if not interrupt.used:
                raise ValueError("main must use its interrupt: `with interrupt.by(action):`")
            if not interrupt.results:
                break
            interrupted += 1
    return interrupted


class Interrupt:
    """What `run_interrupted` gives to each run: calls an action before one step of the loop.

    Attributes:
        results: what the action has returned: nothing yet, one value, or two.
        used: whether `by` was called.
    """

    def __init__(self, point: int, again: int = 0) -> None:
        self._left = point
        self._point = point
        self._again = again
        self._before = ""
        self.results: list[object] = []
        self.used: bool = False

    def __repr__(self) -> str:
        return f"<Interrupt before step {self._point}{self._before or ', which was not reached'}>"

    @contextmanager
    def by(self, action: Callable[[], object]) -> Generator[None]:
        """Count the steps of the loop while the block runs; call `action` before the chosen one."""
        loop = _stepping_loop()

        def look(step: SteppedHandle) -> None:
            self._left -= 1
            if self._left == 0:
                self._note(step)
                self.results.append(action())

        self.used = True
        loop.before_step = look
        try:
            yield
        finally:
            loop.before_step = None

    def _note(self, step: "SteppedHandle") -> None:
        if self._before:
            self._before += f", and again {self._again} steps later: {step.describe()}"
        else:
            self._before = f": {step.describe()}"
            self._left = self._again


class SteppedHandle(asyncio.Handle):
    """A callback that is ready to run; `lane` is the number of the step that scheduled it."""

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context | None,
        lane: int,
    ) -> None:
        super().__init__(callback, args, loop, context)
        self.lane = lane

    def run(self) -> None:
        """Make the call."""
        self._run()

    def describe(self) -> str:
        """Return the task and the line where it goes on, or the callback."""
        task = getattr(getattr(self, "_callback", None), "__self__", None)
        return describe_task(cast("asyncio.Task[Any]", task)) if isinstance(task, asyncio.Task) else repr(self)


class SteppingLoop(VirtualLoop):
    """A virtual loop whose steps can be watched, and whose order can be drawn at random.

    All callbacks of a pass are one callback of the loop below.

    Attributes:
        before_step: called with each step before it is taken.
        order: what to draw from; None: first come, first served.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.before_step: Callable[[SteppedHandle], None] | None = None
        self.order: random.Random | None = None
        self._due: deque[SteppedHandle] = deque()
        self._pass_is_due = False
        self._pass_context = contextvars.Context()
        self._lane: int | None = None
        self._lanes = itertools.count()

    @override
    def call_soon[*Ts](
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        self._request_pass()
        step = SteppedHandle(callback, args, self, context, next(self._lanes) if self._lane is None else self._lane)
        self._due.append(step)
        return step

    @override
    def close(self) -> None:
        super().close()
        self._due.clear()

    def _request_pass(self) -> None:
        if not self._pass_is_due or self.is_closed():
            super().call_soon(self._run_pass, context=self._pass_context)
            self._pass_is_due = True

    def _run_pass(self) -> None:
        self._pass_is_due = False
        steps, self._due = self._due, deque()
        if self.order is not None:
            steps = self._draw(steps, self.order)
        try:
            while steps:
                self._look_at(steps[0])
                self._take(steps.popleft())
        finally:  # a KeyboardInterrupt goes through the loop, which may run again
            self._lane = None
            self._due.extendleft(reversed(steps))
            if self._due:
                self._request_pass()

    def _look_at(self, step: SteppedHandle) -> None:
        if self.before_step is not None and not step.cancelled():
            self._lane = None
            self.before_step(step)

    def _take(self, step: SteppedHandle) -> None:
        if not step.cancelled():
            self._lane = next(self._lanes)
            step.run()

    def _draw(self, steps: deque[SteppedHandle], order: random.Random) -> deque[SteppedHandle]:
        """Shuffle what is due, each lane in its own order; put off some lanes until the next pass."""
        lanes = [step.lane for step in steps]
        share = order.choice(LATENESS)
        late = {lane for lane in dict.fromkeys(lanes) if order.random() < share}
        self._due.extend(step for step in steps if step.lane in late)
        in_order: dict[int, deque[SteppedHandle]] = {}
        for step in steps:
            in_order.setdefault(step.lane, deque()).append(step)
        order.shuffle(lanes)
        return deque(in_order[lane].popleft() for lane in lanes if lane not in late)


def _new_loop(loop: LoopName, tasks: TaskStart, clock: Clock | None = None) -> SteppingLoop:
    stepping = _stepping_class(loop, tasks)
    if clock is not None:
        clock.require_free()
    made = stepping(clock)
    made.set_task_factory(TASK_FACTORIES[tasks])
    return made


@functools.cache
def _stepping_class(loop: LoopName, tasks: TaskStart) -> type[SteppingLoop]:
    with closing(new_loop(loop, tasks=tasks)) as virtual:  # raises for what there is not
        name = f"Stepping{type(virtual).__name__}"
        return cast("type[SteppingLoop]", type(name, (SteppingLoop, type(virtual)), {}))


async def _leaving_nothing[T](main: Coroutine[Any, Any, T], seed: int | None) -> T:
    with closing(main):
        loop = _stepping_loop()
        await asyncio.sleep(0)  # what the run before has left due is no part of this one
        with Leftovers():
            loop.order = None if seed is None else random.Random(seed)  # noqa: S311 -- an order is no secret
            try:
                return await main
            finally:
                loop.order = None


def _stepping_loop() -> SteppingLoop:
    loop = asyncio.get_running_loop()
    if not isinstance(loop, SteppingLoop):
        raise RuntimeError("an Interrupt works on the loop that run_interrupted has made for it")  # noqa: TRY004
    return loop
