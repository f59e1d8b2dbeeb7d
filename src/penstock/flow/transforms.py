"""Transforms: stages of a stream that read the items themselves."""

import inspect
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable
from functools import partial
from typing import Any, overload

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.scope import Scope
from penstock.core.text import name_of
from penstock.flow.context import StepContext, in_stream
from penstock.flow.function import takes_context
from penstock.flow.steps import checked_name
from penstock.ops.adding import Transform
from penstock.tasks.tokens import CancelToken


@overload
def transform[T, U](
    name: str, fn: Callable[[AsyncIterator[T]], AsyncIterable[U]], /, **refused: object
) -> Transform[T, U]: ...
@overload
def transform[T, U](
    name: str, fn: Callable[[AsyncIterator[T], StepContext], AsyncIterable[U]], /, **refused: object
) -> Transform[T, U]: ...
def transform(name: str, fn: Callable[..., AsyncIterable[Any]], /, **refused: object) -> Transform[Any, Any]:
    """Make a stage that reads the items itself, for `Stream.add`: an async generator function over them.

    It is opened once a run, goes on when the stage below wants an item (P2), and is closed with the run before the
    source is (P4). A failure of a stage above is raised where it reads; whatever it makes of that, the run fails with
    it.

    Args:
        name: 1 to 100 printable characters without `/`, `[`, `]`, and not `.` or `..`.
        fn: takes the items, and the `StepContext` if it has a second required parameter; gives an async iterable.
        **refused: there are no options: a generator that has raised cannot be called again.

    Raises:
        OptionError: the name breaks its rule, the function cannot be called so, or an option is given.

    Example:
        async def pairs(items: AsyncIterator[int]) -> AsyncIterator[tuple[int, int]]:
            async for item in items:
                yield item, await anext(items)

        penstock.stream(range(4)).add(transform("pairs", pairs))
    """
    for option in refused:
        raise OptionError(
            f"transform has no option {option!r}: it is one generator over all items, and none that has raised can be "
            "called again"
        )
    checked = checked_name(name)
    whose = f"the function of transform {name!r}"
    validate.function(whose, fn)
    inner = fn if inspect.isroutine(fn) else getattr(fn, "__call__", fn)  # noqa: B004 -- the bound method itself is wanted
    for each in (fn, inner):
        if inspect.iscoroutinefunction(each) or inspect.isgeneratorfunction(each):
            raise OptionError(f"{whose} must be an async generator function, got {name_of(fn)}")
    if not takes_context(whose, fn, "the items"):
        return Transform(checked, lambda _: (fn, _nothing))
    return Transform(checked, partial(_with_context, checked, fn))


def _with_context(
    name: str, fn: Callable[..., Any], scope: Scope
) -> tuple[Callable[[AsyncIterator[Any]], AsyncIterable[Any]], Callable[[], None]]:
    """Return what is called with the items in a run, and what signals its cancellation."""
    token = CancelToken()
    log = logging.getLogger(f"penstock.flow.{name}")
    ctx = StepContext(step=name, attempt=1, state=in_stream(scope.snapshots), cancel=token, log=log, recording=None)
    return (lambda items: fn(items, ctx)), lambda: token.cancel(scope.reason)


def _nothing() -> None:
    """Signal nobody."""
