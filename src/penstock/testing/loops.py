"""The loops and task factories on which code must work."""

import asyncio
import functools
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any, Literal, cast

from penstock.exports import naming_extras
from penstock.testing.virtual import Clock, VirtualLoop

type LoopName = Literal["asyncio", "uvloop"]
type TaskStart = Literal["default", "lazy", "eager"]
type TaskFactory = Callable[..., asyncio.Task[Any]]
type _Coro = Coroutine[Any, Any, Any]

LOOPS: tuple[LoopName, ...] = ("asyncio", "uvloop")
"""The loops by name. "uvloop" needs the package of that name."""


def _lazy(loop: asyncio.AbstractEventLoop, coro: _Coro, *, context: Any = None, **_: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coro, loop=loop, context=context)


def _eager(loop: asyncio.AbstractEventLoop, coro: _Coro, *, context: Any = None, **_: Any) -> asyncio.Task[Any]:
    return asyncio.eager_task_factory(loop, coro, context=context)


TASK_FACTORIES: Mapping[TaskStart, TaskFactory | None] = MappingProxyType(
    {"default": None, "lazy": _lazy, "eager": _eager}
)
"""How tasks start: as the loop does it, lazily by a factory, or eagerly by `asyncio.eager_task_factory`.

The factories drop options that they do not know: uvloop 0.23 passes `eager_start`, on which the eager factory of Python
3.13.0 raises TypeError.
"""


def new_loop(loop: LoopName = "asyncio", *, tasks: TaskStart = "default", clock: Clock | None = None) -> VirtualLoop:
    """Make a loop in virtual time that nobody runs yet; `run()` makes its own.

    Raises:
        ValueError: `loop` is not in `LOOPS`, or `tasks` is not in `TASK_FACTORIES`.
        ModuleNotFoundError: uvloop is asked for and is not installed.
        RuntimeError: `clock` serves another loop that is not closed.
    """
    factory = _task_factory(tasks)
    if clock is not None:
        clock.require_free()
    made = _virtual_class(loop)(clock)
    made.set_task_factory(factory)
    return made


def new_real_loop(loop: LoopName = "asyncio", *, tasks: TaskStart = "default") -> asyncio.AbstractEventLoop:
    """Make a loop in real time; arguments and errors are those of `new_loop`."""
    factory = _task_factory(tasks)
    made: asyncio.AbstractEventLoop = _loop_class(loop)()
    made.set_task_factory(factory)
    return made


@functools.cache
def _virtual_class(loop: LoopName) -> type[VirtualLoop]:
    real = _loop_class(loop)
    return cast("type[VirtualLoop]", type(f"Virtual{real.__name__}", (VirtualLoop, real), {}))


def _loop_class(loop: LoopName) -> type[Any]:
    if loop not in LOOPS:
        raise ValueError(f"loop must be one of {', '.join(LOOPS)}, got {loop!r}")
    if loop == "uvloop":
        with naming_extras(f"loop={loop!r}", {"uvloop": "uvloop"}):
            import uvloop  # noqa: PLC0415 -- optional: only for those who ask for it

        return uvloop.Loop
    return asyncio.SelectorEventLoop


def _task_factory(tasks: TaskStart) -> TaskFactory | None:
    if tasks not in TASK_FACTORIES:
        raise ValueError(f"tasks must be one of {', '.join(TASK_FACTORIES)}, got {tasks!r}")
    return TASK_FACTORIES[tasks]
