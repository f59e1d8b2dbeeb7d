"""What traces runs, if somebody does: a run asks once, when it begins. Nothing here knows how traces are kept."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import Context, ContextVar
from typing import Final, Protocol

from penstock.core.outcome import Failed
from penstock.core.stats import Stats

type Attributes = Mapping[str, str | int | float | bool | list[str]]


class Block(Protocol):
    """A piece of work that is traced as one."""

    def note(self, attributes: Attributes) -> None:
        """Add attributes."""
        ...

    def failed(self, error: BaseException | None, said: str) -> None:
        """Say that it has failed."""
        ...


class RunTrace(Protocol):
    """The trace of one run of a stream."""

    @property
    def follows_items(self) -> bool:
        """Whether calls are traced for some items."""
        ...

    def opened(self, stages: list[str]) -> None:
        """Note the stages, from the source down."""
        ...

    def calls[T, U](self, stage: str, work: Callable[[T], Awaitable[U]]) -> Callable[[T], Awaitable[U]]:
        """Return `work`, or what traces its calls for some items."""
        ...

    def ended(self, stats: Stats, failure: Failed | None) -> None:
        """Note how it ended."""
        ...


class RunTracer(Protocol):
    """Traces runs."""

    def begin(self, title: str, description: str, context: Context) -> RunTrace:
        """Begin the trace of a run, whose work runs in copies of `context`."""
        ...

    def block(self, name: str, attributes: Attributes, *, asks: bool) -> AbstractContextManager[Block]:
        """Trace what is done in a block; `asks`: it waits for a service. What is raised in it is its failure."""
        ...


TRACER: Final[ContextVar[RunTracer | None]] = ContextVar("penstock_tracer", default=None)


class _Untraced:
    """A block that nobody traces."""

    def note(self, attributes: Attributes) -> None:
        """Do nothing."""

    def failed(self, error: BaseException | None, said: str) -> None:
        """Do nothing."""


_UNTRACED: Final = nullcontext[Block](_Untraced())


def block(name: str, attributes: Attributes, *, asks: bool = False) -> AbstractContextManager[Block]:
    """Trace what is done in this block, if somebody traces runs."""
    tracer = TRACER.get()
    return _UNTRACED if tracer is None else tracer.block(name, attributes, asks=asks)
