"""Traces of runs by OpenTelemetry: a span for each run, stage, pipeline and step, and, for a sample, for each item.

Only the API package is needed, and it is imported when a block is entered. What becomes of spans is up to the SDK
that the application has set up.
"""

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import Context
from itertools import count
from math import sqrt
from typing import TYPE_CHECKING, Any, Final

from penstock.core import validate
from penstock.core.errors import said as shown_error
from penstock.core.outcome import Failed
from penstock.core.stats import StageStats, Stats
from penstock.core.traces import TRACER, Attributes
from penstock.exports import naming_extras

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

_GOLDEN: Final = (sqrt(5) - 1) / 2
_COUNTERS: Final = ("taken", "delivered", "dropped", "failed", "cancelled", "discarded", "retried")


@contextmanager
def traced(tracer: "Tracer | None" = None, *, items: float = 0.0) -> Generator[None]:
    """Trace the runs that begin in this block: streams, durable runs, pipelines and their steps.

    A span stands for a run, with one for each stage in it; for a run of a pipeline, with one for each attempt of a
    step; and for each request of a `prompt`. Spans that your functions begin are children of these.

    Args:
        tracer: of OpenTelemetry; None, the default: that of the global provider, named `penstock`.
        items: the share of the calls of each stage that have a span, 0 to 1; default 0.

    Raises:
        ModuleNotFoundError: opentelemetry-api is not installed.
        OptionError: an argument breaks its rule.

    Example:
        with penstock.traced(items=0.01):
            report = await stream.to(sink, run="docs")
    """
    share = validate.share("items", items)
    with naming_extras("penstock.traced", {"opentelemetry": "otel"}):
        from opentelemetry import trace  # noqa: PLC0415 -- an extra, and only wanted here
    own = trace.get_tracer("penstock") if tracer is None else tracer
    validate.instance("tracer", own, trace.Tracer, "a Tracer of OpenTelemetry or None")
    token = TRACER.set(SpanTracer(own, share))
    try:
        yield
    finally:
        TRACER.reset(token)


class SpanTracer:
    """Traces runs by spans."""

    def __init__(self, tracer: "Tracer", share: float) -> None:
        self.tracer = tracer
        self.share = share

    def begin(self, title: str, description: str, context: Context) -> "RunSpans":
        """Begin the span of a run; it is the current one of all work of the run."""
        from opentelemetry.context import attach  # noqa: PLC0415 -- an extra
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 -- as above

        attributes = {"penstock.run.description": description} if description else {}
        span = self.tracer.start_span(title, attributes=attributes)
        context.run(attach, set_span_in_context(span))
        return RunSpans(self, span)

    @contextmanager
    def block(self, name: str, attributes: Attributes, *, asks: bool) -> Generator["BlockSpan"]:
        """Make a span the current one for the block."""
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 -- an extra

        kind = SpanKind.CLIENT if asks else SpanKind.INTERNAL
        with self.tracer.start_as_current_span(
            name, kind=kind, attributes=dict(attributes), record_exception=False, set_status_on_exception=False
        ) as span:
            found = BlockSpan(span)
            try:
                yield found
            except BaseException as error:
                found.failed(error, shown_error(error))
                raise


class BlockSpan:
    """The span of a block."""

    def __init__(self, span: "Span") -> None:
        self._span = span

    def note(self, attributes: Attributes) -> None:
        """Add attributes."""
        self._span.set_attributes(dict(attributes))

    def failed(self, error: BaseException | None, said: str) -> None:
        """Say that it has failed: by its status, the attribute `error.type`, and an event `exception`."""
        fail(self._span, error, said)


class RunSpans:
    """The spans of one run of a stream."""

    def __init__(self, owner: SpanTracer, span: "Span") -> None:
        self._owner = owner
        self._span = span
        self._stages: list[Span] = []
        self._names: list[str] = []
        self._numbers: dict[str, count[int]] = {}

    @property
    def follows_items(self) -> bool:
        """Whether some items have spans."""
        return self._owner.share > 0

    def opened(self, stages: list[str]) -> None:
        """Begin the spans of the stages."""
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 -- an extra

        within = set_span_in_context(self._span)
        self._names = stages
        self._stages = [self._owner.tracer.start_span(f"stage {name}", context=within) for name in stages]

    def calls[T, U](self, stage: str, work: Callable[[T], Awaitable[U]]) -> Callable[[T], Awaitable[U]]:
        """Have calls for a sample of the items be spans of their own, in that of their stage."""
        share = self._owner.share
        if not share:
            return work
        numbers = self._numbers.setdefault(stage, count())

        async def call(item: T) -> U:
            number = next(numbers)
            if share < 1 and number * _GOLDEN % 1 >= share:  # spread evenly, and with no period
                return await work(item)
            from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 -- an extra

            places = [each for name, each in zip(self._names, self._stages, strict=True) if name == stage]
            within = set_span_in_context(places[0] if places else self._span)
            with self._owner.tracer.start_as_current_span(
                stage, context=within, record_exception=False, set_status_on_exception=False
            ) as span:
                try:
                    return await work(item)
                except BaseException as error:
                    inner = getattr(error, "error", error)
                    cause = inner if isinstance(inner, BaseException) else error
                    fail(span, cause, shown_error(cause))
                    raise

        return call

    def ended(self, stats: Stats, failure: Failed | None) -> None:
        """End all spans, with what was counted."""
        for stage, span in zip(stats.stages, self._stages, strict=False):
            span.set_attributes(attributes_of(stage))
            if failure is not None and failure.stage == stage.name:
                fail(span, failure.error, shown_error(failure.error))
            span.end()
        if failure is not None:
            fail(self._span, failure.error, shown_error(failure.error))
        self._span.end()


def attributes_of(stage: StageStats) -> dict[str, Any]:
    """Return what was counted of a stage, and how long calls took."""
    found: dict[str, Any] = {f"penstock.stage.{name}": getattr(stage, name) for name in _COUNTERS}
    if stage.concurrency is not None:
        found["penstock.stage.concurrency"] = stage.concurrency
        found["penstock.stage.peak_running"] = stage.peak_running
    if stage.latency is not None:
        found |= {f"penstock.stage.latency.{name}": getattr(stage.latency, name) for name in ("p50", "p95", "p99")}
    return found


def fail(span: "Span", error: BaseException | None, said: str) -> None:
    """Give a span the status of a failure; a cancellation is none."""
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 -- an extra

    if isinstance(error, CancelledError):
        span.set_attribute("penstock.cancelled", True)
        return
    span.set_status(Status(StatusCode.ERROR, said))
    if error is not None:
        kind = type(error)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        span.set_attribute("error.type", name)
        if isinstance(error, Exception):
            span.record_exception(error)
