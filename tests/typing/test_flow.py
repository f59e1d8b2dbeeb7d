"""What type checkers infer of pipelines, without an annotation beyond those of named functions; never executed."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, assert_type

from penstock import Record, Result, Retry, Run, Stream, stream
from penstock.flow import (
    AnthropicMessages,
    EnvSecret,
    OpenAIChat,
    Pending,
    Pipeline,
    PipelineEngine,
    PipelineError,
    PipelineResult,
    Reply,
    RunInfo,
    Step,
    StepContext,
    StepResult,
    StreamingPipeline,
    Transform,
    command,
    parallel,
    prompt,
    review,
    secret,
    step,
    template,
    to_streaming,
    transform,
)
from penstock.flow.prompts import Prompt
from penstock.tasks import CancelToken
from penstock.workflows import AskReport, ask


@dataclass(frozen=True)
class Outline:
    headings: list[str]


async def make(topic: str) -> Outline:
    return Outline([topic])


def write(topic: str) -> str:
    return topic


async def count(text: str, ctx: StepContext) -> int:
    return len(text) + ctx.attempt


def flags(number: int, ctx: StepContext) -> bool:
    return number > ctx.attempt


outline = step("outline", make, retry=Retry(on=OSError), timeout=60)


def steps() -> None:
    assert_type(outline, Step[str, Outline])
    assert_type(step("w", write), Step[str, str])
    assert_type(step("c", count), Step[str, int])
    assert_type(step("f", flags), Step[int, bool])
    assert_type(step("u", str.upper), Step[str, str])
    assert_type(parallel("m", [step("a", write), step("b", write)]), Step[str, list[str]])
    assert_type(parallel("m", (outline, step("b", write))), Step[str, tuple[Outline, str]])
    assert_type(
        parallel("m", (outline, step("b", write), step("c", count), outline, outline)),
        Step[str, tuple[Outline, str, int, Outline, Outline]],
    )


def pipelines() -> None:
    first = Pipeline("a", takes=str)
    assert_type(first, Pipeline[str, str])
    assert_type(first.add(outline), Pipeline[str, Outline])
    assert_type(first.step("o", make), Pipeline[str, Outline])
    assert_type(first.step("o", count), Pipeline[str, int])
    assert_type(first.step("o", lambda text: len(text)), Pipeline[str, int])
    assert_type(first.step("o", write).review("r"), Pipeline[str, str])
    assert_type(first.review("r", check=lambda text: text.upper()), Pipeline[str, str])
    assert_type(first.loop("l", step("w", write), until=lambda text: len(text) > 3, max_rounds=3), Pipeline[str, str])
    assert_type(
        first.branch("b", lambda text: len(text) > 3, {True: step("u", str.upper), False: step("w", write)}),
        Pipeline[str, str],
    )
    assert_type(
        first.add(parallel("m", (outline, step("u", str.upper)))).step("f", lambda pair: pair[0].headings),
        Pipeline[str, list[str]],
    )
    assert_type(first.add(Pipeline("inner", takes=str).step("o", make)), Pipeline[str, Outline])
    assert_type(Pipeline("any", [outline]), Pipeline[Any, Any])


def maps() -> None:
    texts = Pipeline("a", takes=str).step("o", make).step("h", lambda made: made.headings)
    assert_type(texts, Pipeline[str, list[str]])
    assert_type(texts.map("n", count), Pipeline[str, list[int]])
    assert_type(texts.map("n", write, concurrency=4, on_error="collect"), Pipeline[str, list[str]])
    assert_type(texts.map("n", lambda text: len(text)), Pipeline[str, list[int]])
    assert_type(texts.map("n", count, on_error="return"), Pipeline[str, list[Result[int]]])
    assert_type(texts.map("n", outline), Pipeline[str, list[Outline]])
    assert_type(texts.map("n", Pipeline("each", takes=str).step("o", make)), Pipeline[str, list[Outline]])
    assert_type(texts.map("n", outline, on_error="return"), Pipeline[str, list[Result[Outline]]])


async def output(ctx: StepContext) -> None:
    assert_type(ctx.output(outline), Outline)
    assert_type(ctx.output(review("r")), Any)


def wrong(pipeline: Pipeline[str, int]) -> None:
    pipeline.add(outline)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pipeline.step("w", write)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    pipeline.step("f", flags, retries=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    pipeline.map("n", write)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    step("w", write, timeout="1s")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    step("w", write, nmae="x")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


def words(topic: str) -> list[str]:
    return [topic]


def programs_and_models() -> None:
    model = OpenAIChat("m", key=secret("KEY"), base_url="http://127.0.0.1", idle=3)
    first = Pipeline("a", takes=str)
    assert_type(secret("KEY"), EnvSecret)
    assert_type(command("c", ["ls"]), Step[object, str])
    assert_type(command("c", words, ok=[0, 1], grace=3), Step[str, str])
    assert_type(prompt("p", "text", model=model), Prompt[object, str])
    assert_type(prompt("p", "text", model=model, parse=str.splitlines), Prompt[object, list[str]])
    assert_type(prompt("p", write, model=model, parse=len), Prompt[str, int])
    assert_type(prompt("p", write, model=model, schema=Outline), Prompt[str, Outline])
    assert_type(prompt("p", "Outline rivers.", model=model, schema=Outline), Prompt[object, Outline])
    assert_type(stream(["a"]).map(prompt("p", write, model=model, parse=len), concurrency=2), Stream[int])
    assert_type(stream([{"a": 1}]).map(prompt("p", template("{a}"), model=model)), Stream[str])
    assert_type(first.add(command("c", ["cat"], stdin=lambda text: text, env={"X": secret("X")})), Pipeline[str, str])
    assert_type(first.add(prompt("p", lambda text: text.upper(), model=AnthropicMessages("m"))), Pipeline[str, str])
    assert_type(
        first.add(prompt("p", lambda text: text.upper(), model=model, parse=str.splitlines)), Pipeline[str, list[str]]
    )
    assert_type(
        first.step("w", words).map("m", prompt("p", lambda word: f"On {word}.", model=model, parse=len)),
        Pipeline[str, list[int]],
    )


async def asking() -> None:
    assert_type(await ask([{"a": 1}], "{a}", model=OpenAIChat("m"), schema=Outline), list[Any])
    assert_type(await ask("rows.csv", "{a}", model="openai:m", to="out.db", max_cost=5, price=(1, 2)), AskReport)
    assert_type(await OpenAIChat("m").ask("Hi", system="Be brief", max_tokens=3), Reply)


async def runs(engine: PipelineEngine, pipeline: Pipeline[str, int], token: CancelToken) -> None:
    assert_type(await engine.run(pipeline, "x"), PipelineResult[int])
    assert_type((await engine.run(pipeline, "x", run_id="r", cancel=token)).output, int)
    assert_type(await engine.run_or_raise(pipeline, "x"), int)
    assert_type(await engine.resume("r", pipeline=pipeline, on_change="restart"), PipelineResult[int])
    assert_type(engine.runs(), list[RunInfo])
    assert_type(engine.pending("r"), list[Pending])
    assert_type(engine.result("r").error, PipelineError | None)
    assert_type(engine.result("r").steps, tuple[StepResult, ...])
    assert_type(engine.fork("r", at="a"), str)
    await engine.run(pipeline, 3)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    await engine.run(pipeline, "x", on_change="maybe")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await engine.run(pipeline, "x", runid="r")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def split(text: str) -> list[str]:
    return text.split()


async def embed(texts: list[str]) -> list[float]:
    return [float(len(text)) for text in texts]


def chain(texts: Stream[str]) -> Stream[float]:
    return texts.flat_map(split).map_batches(embed, 64)


async def streaming_pipelines() -> None:
    vectors = StreamingPipeline("v", chain)
    assert_type(vectors, StreamingPipeline[str, float])
    assert_type(
        StreamingPipeline("d", lambda s: s.flat_map(split).map_batches(embed, 64), takes=str),
        StreamingPipeline[str, float],
    )
    assert_type(vectors.over(["a"]), Stream[float])
    assert_type(vectors.over(stream(["a"])), Stream[float])
    assert_type(vectors.open(["a"], grace=1), Run[float])
    assert_type(await vectors.to_list(["a"]), list[float])
    assert_type(await vectors.reduce(["a"], lambda total, x: total + x, 0.0), float)
    assert_type(Pipeline("a", takes=str).step("s", split).add(vectors.as_step()), Pipeline[str, list[float]])
    vectors.over([1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    vectors.open(["a"], grcae=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    unknown = StreamingPipeline("d", lambda s: s.flat_map(split))  # type: ignore[var-annotated]  # pyright: ignore[reportUnknownVariableType]
    assert unknown.name


async def pairs(items: AsyncIterator[str]) -> AsyncIterator[tuple[str, str]]:
    async for item in items:
        yield item, await anext(items)


async def counted(items: AsyncIterator[str], ctx: StepContext) -> AsyncIterator[int]:
    async for item in items:
        yield len(item) + ctx.attempt


def in_streams(texts: Stream[str], pipeline: Pipeline[str, Outline]) -> None:
    assert_type(texts.add(outline), Stream[Outline])
    assert_type(texts.add(step("u", str.upper), concurrency=4), Stream[str])
    assert_type(texts.add(pipeline, on_error="skip"), Stream[Outline])
    assert_type(texts.add(pipeline, on_error="return"), Stream[Result[Outline]])
    assert_type(texts.add(parallel("m", (outline, step("c", count)))), Stream[tuple[Outline, int]])
    assert_type(to_streaming(pipeline), StreamingPipeline[str, Outline])
    assert_type(transform("p", pairs), Transform[str, tuple[str, str]])
    assert_type(transform("c", counted), Transform[str, int])
    assert_type(texts.add(transform("p", pairs)), Stream[tuple[str, str]])
    assert_type(texts.checkpoint("n", keep=3), Stream[str])
    assert_type(stream([1]).checkpoint("n", fold=lambda a, b: a + b, initial=0), Stream[int])
    assert_type(texts.checkpoint("n", fold=lambda seen, text: [*seen, text], initial=list[str]()), Stream[str])
    assert_type(texts.map(len).with_metadata(sample=0.5), Stream[Record[int]])
    assert_type(texts.with_metadata().map(lambda record: record.value), Stream[str])
    assert_type(texts.open().state, Mapping[str, Any])
    texts.add(step("f", flags))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    texts.add(outline, retry=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    texts.add(transform("p", pairs), concurrency=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    stream([1]).add(transform("p", pairs))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    to_streaming(pipeline).over([1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
