"""A streaming pipeline: a named function from stream to stream."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Generic, Unpack, cast, override

from penstock.core import validate
from penstock.core.source import Source
from penstock.durable.options import DeliverOptions
from penstock.durable.report import RunReport
from penstock.durable.sink import Sink
from penstock.flow import function
from penstock.flow.pipeline import Pipeline, checked_type
from penstock.flow.steps import Step, checked_name
from penstock.functions import as_stream, stream
from penstock.ops.adding import AddableStep, I_contra, O_co
from penstock.ops.operator import Operator
from penstock.readable import OpenOptions
from penstock.run import Run
from penstock.streams import Stream


class StreamingPipeline(Generic[I_contra, O_co]):  # noqa: UP046 -- inferred variance needs members that show it
    """A named function from stream to stream: it goes over any source, as often as wanted.

    Nothing of a run stays in it. What it has no method for, the stream of `over` has: `sync()`, `first()` and the like.

    Attributes:
        name: 1 to 100 printable characters without `/`, `[`, `]`.
        takes: the type of the items, or None: not said.

    Args:
        name: see above.
        build: a plain function that adds operators to a stream. It is pure: it is called once when the pipeline is
            made, on a stream without items, so that options that break a rule raise there, and then for each run.
        takes: the type of the items, for type checkers: with it, `build` may be a lambda.

    Raises:
        OptionError: an argument breaks its rule, or an option of an operator does.

    Example:
        pages = StreamingPipeline("pages", lambda urls: urls.map(fetch, concurrency=8), takes=str)
        found = await pages.to_list(urls)
    """

    __slots__ = ("_build", "_name", "_takes")

    def __init__(
        self,
        name: str,
        build: Callable[[Stream[I_contra]], Stream[O_co]],
        /,
        *,
        takes: type[I_contra] | None = None,
    ) -> None:
        self._name = checked_name(name)
        self._takes: type[Any] | None = checked_type(takes)
        validate.plain_function("build", build)
        self._build = build
        self.over(())

    @property
    def name(self) -> str:
        """Its name, which is that of its durable runs, too."""
        return self._name

    @property
    def takes(self) -> type[Any] | None:
        """The type of the items, or None."""
        return self._takes

    @override
    def __repr__(self) -> str:
        return f"<streaming pipeline {self._name!r}>"

    def over(self, source: Source[I_contra], /) -> Stream[O_co]:
        """Return the stream over `source`: what `penstock.stream` takes, or a stream.

        Raises:
            OptionError: it is none of these.
        """
        return _built(self._build, source)

    def open(self, source: Source[I_contra], /, **options: Unpack[OpenOptions]) -> Run[O_co]:
        """Make a run over `source`, for `async with`: see `Stream.open`."""
        return self.over(source).open(**options)

    async def to_list(self, source: Source[I_contra], /) -> list[O_co]:
        """Return all results in a list: see `Stream.to_list`."""
        return await self.over(source).to_list()

    async def reduce[A](self, source: Source[I_contra], fn: Callable[[A, O_co], A], initial: A, /) -> A:
        """Fold the results into one value: see `Stream.reduce`."""
        return await self.over(source).reduce(fn, initial)

    async def to(
        self, source: Stream[I_contra], sink: Sink, /, *, run: str | None = None, **options: Unpack[DeliverOptions]
    ) -> RunReport:
        """Run to the end into `sink`, durably: see `Stream.to`.

        Args:
            source: a stream whose items have keys.
            sink: where the rows go.
            run: the name of the run; None, the default: that of the pipeline.
            options: see `penstock.durable.options.DeliverOptions`.
        """
        return await self.over(source).to(sink, run=self._name if run is None else run, **options)

    def as_step(self, name: str | None = None, /) -> Step[Iterable[I_contra], list[O_co]]:
        """Return a step that reads all items of its value and gives a list; its name is that of the pipeline.

        Raises:
            OptionError: the name breaks its rule.
        """
        read = partial(_read_all, self._build)
        made = function.step(self._name if name is None else name, read)
        return cast("Step[Iterable[I_contra], list[O_co]]", made)


def _built(build: Callable[[Stream[Any]], Stream[Any]], source: Source[Any]) -> Stream[Any]:
    built = validate.plain_result("build", build(as_stream(source)))
    return validate.instance("build(stream)", built, Stream, "a Stream")


async def _read_all(build: Callable[[Stream[Any]], Stream[Any]], items: Iterable[Any]) -> list[Any]:
    return await _built(build, stream(items)).to_list()


def to_streaming[I, O](pipeline: Pipeline[I, O], /) -> StreamingPipeline[I, O]:
    """Make each step of a pipeline a stage of a streaming pipeline of its name.

    A step keeps its `retry`, `timeout`, `limit`, `engine`, `memo` and `deps`. Each stage has one call at a time: a
    function of your own adds steps with a `concurrency`.

    Raises:
        OptionError: it is no pipeline, has no steps, or one that cannot be part of a stream: a review, or a step with
            `on_interrupted="ask"`.
    """
    validate.instance("pipeline", pipeline, Pipeline, "a Pipeline")
    pipeline.refuse_stream("")
    build = partial(_each_step, pipeline)
    return cast("StreamingPipeline[I, O]", StreamingPipeline[Any, Any](pipeline.name, build, takes=pipeline.takes))


def _each_step(pipeline: Pipeline[Any, Any], stream: Stream[Any]) -> Stream[Any]:
    for each in pipeline.steps:
        stream = stream.add(_StageOf(each, pipeline.name))
    return stream


class _StageOf(AddableStep[Any, Any]):
    """A step of a pipeline as a stage: its context says of which pipeline it is."""

    __slots__ = ("_pipeline", "_step")

    def __init__(self, step: Step[Any, Any], pipeline: str) -> None:
        self._step = step
        self._pipeline = pipeline

    @override
    def operator(self, options: Mapping[str, Any]) -> Operator:
        return self._step.stage(options, self._pipeline, self._step.name)
