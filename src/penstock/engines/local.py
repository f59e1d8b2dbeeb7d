"""Kinds of functions, and functions that run on the loop."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, cast

type FunctionKind = Literal["async", "plain", "other"]
type SourceEngine = Literal["thread"]

SOURCE_ENGINES: Final[tuple[SourceEngine | None, ...]] = (None, "thread")


def kind_of(fn: Callable[..., object]) -> FunctionKind:
    """Tell an async function, a plain `def` function, and everything else (lambdas, classes, builtins) apart.

    It looks through `functools.partial`, bound methods, `__call__` and `__wrapped__`: `inspect.iscoroutinefunction`
    alone sends a callable object or a decorated async function to a thread.
    """
    seen: Any = fn
    for _ in range(100):  # a chain of wrappers longer than this is a cycle
        if inspect.iscoroutinefunction(seen):
            return "async"
        if isinstance(seen, functools.partial):
            seen = cast("functools.partial[object]", seen).func
        elif hasattr(seen, "__wrapped__"):
            seen = seen.__wrapped__
        elif inspect.ismethod(seen):
            seen = seen.__func__
        elif inspect.isfunction(seen):
            return "other" if seen.__name__ == "<lambda>" or inspect.isasyncgenfunction(seen) else "plain"
        elif isinstance(seen, type) or inspect.isbuiltin(seen) or not inspect.ismethod(getattr(seen, "__call__", None)):  # noqa: B004 -- the bound method itself is wanted
            return "other"
        else:
            seen = seen.__call__
    return "other"


def on_loop[T, U](fn: Callable[[T], U | Awaitable[U]]) -> Callable[[T], Awaitable[U]]:
    """Wrap `fn`: call it on the loop, and await an awaitable that it returns."""

    async def call(item: T) -> U:
        result = fn(item)
        return await cast("Awaitable[U]", result) if isinstance(result, Awaitable) else result

    return call
