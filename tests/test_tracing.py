"""Traces of runs, as the SDK of OpenTelemetry exports them."""

import asyncio
import sys

import pytest

import penstock
from penstock import OptionError, Retry, SqliteTable, stream
from penstock.flow import ModelError, Pipeline, PipelineEngine, Reply, parallel, prompt, step

sdk = pytest.importorskip("opentelemetry.sdk.trace")
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402 -- an extra
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402 -- as above
from opentelemetry.trace import SpanKind, StatusCode  # noqa: E402 -- as above


class Traces:
    """The spans of a test, in the order in which they ended."""

    def __init__(self):
        self._exporter = InMemorySpanExporter()
        provider = sdk.TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("test")

    @property
    def spans(self):
        return self._exporter.get_finished_spans()

    def names(self):
        return [each.name for each in self.spans]

    def of(self, name):
        return [each for each in self.spans if each.name == name]

    def parent(self, span):
        return next(
            (each.name for each in self.spans if span.parent and each.context.span_id == span.parent.span_id), None
        )


@pytest.fixture
def traces():
    return Traces()


def same(x):
    return x


async def double(x):
    return 2 * x


async def test_a_run_and_its_stages_are_spans(traces):
    with penstock.traced(traces.tracer):
        await stream(range(3)).map(double, name="double", concurrency=2).filter(lambda x: x, name="some").to_list()
    assert sorted(traces.names()) == ["stage double", "stage some", "stage source", "stream"]
    (run,), (stage,), (some,) = traces.of("stream"), traces.of("stage double"), traces.of("stage some")
    assert {traces.parent(each) for each in traces.spans if each is not run} == {"stream"}
    assert run.status.status_code is StatusCode.UNSET
    assert stage.attributes["penstock.stage.delivered"] == 3
    assert stage.attributes["penstock.stage.concurrency"] == 2
    assert some.attributes["penstock.stage.dropped"] == 1


async def test_a_failure_is_the_status_of_the_run_and_of_its_stage(traces):
    with penstock.traced(traces.tracer), pytest.raises(ZeroDivisionError):
        await stream([1, 0]).map(lambda x: 1 / x, name="invert").to_list()
    for name in ("stream", "stage invert"):
        (span,) = traces.of(name)
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes["error.type"] == "ZeroDivisionError"
        assert [each.name for each in span.events] == ["exception"]
    assert traces.of("stage source")[0].status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("operator", ["map", "inline", "flat_map", "map_batches", "add"])
async def test_a_sample_of_the_items_has_spans(traces, operator):
    def build(items):
        return {
            "map": lambda: items.map(double, name="work"),
            "inline": lambda: items.map(same, name="work"),
            "flat_map": lambda: items.flat_map(lambda x: [x], name="work"),
            "map_batches": lambda: items.map_batches(list, 1, name="work"),
            "add": lambda: items.add(step("work", double)),
        }[operator]()

    with penstock.traced(traces.tracer, items=0.25):
        assert len(await build(stream(range(40))).to_list()) == 40
    assert 8 <= len(traces.of("work")) <= 12
    assert {traces.parent(each) for each in traces.of("work")} == {"stage work"}


async def test_spans_of_the_users_functions_are_children(traces):
    async def asks(x):
        with traces.tracer.start_as_current_span("asks"):
            return x

    with penstock.traced(traces.tracer, items=1), traces.tracer.start_as_current_span("mine"):
        await stream([1]).map(asks, name="work").to_list()
    with penstock.traced(traces.tracer):
        await stream([1]).map(asks).to_list()
    assert [traces.parent(each) for each in traces.of("asks")] == ["work", "stream"]
    assert traces.parent(traces.of("stream")[0]) == "mine"


async def test_an_item_that_fails_says_so(traces):
    async def fail(x):
        raise OSError(x)

    with penstock.traced(traces.tracer, items=1):
        retry = Retry(on=OSError, attempts=2, initial=0)
        await stream([1]).map(fail, name="work", on_error="skip", retry=retry).to_list()
    (span,) = traces.of("work")
    assert span.attributes["error.type"] == "OSError"
    (stage,) = traces.of("stage work")
    assert stage.attributes["penstock.stage.retried"] == 1
    assert stage.status.status_code is StatusCode.UNSET


async def test_what_is_cancelled_has_not_failed(traces):
    with penstock.traced(traces.tracer, items=1):
        async with stream([1]).map(lambda x: asyncio.sleep(100), name="work").open() as run:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await anext(run)
    (span,) = traces.of("work")
    assert (span.status.status_code, span.attributes["penstock.cancelled"]) == (StatusCode.UNSET, True)


@pytest.mark.real_time
async def test_a_durable_run_is_named(traces, tmp_path):
    sink = SqliteTable(str(tmp_path / "x.db"), "t")
    with penstock.traced(traces.tracer):
        await penstock.keyed([1], key=str).map(lambda x: {"x": x}, name="row").to(sink, run="docs")
    (run,) = traces.of("durable run docs")
    assert "run 'docs' into" in run.attributes["penstock.run.description"]
    assert traces.parent(traces.of("stage row")[0]) == "durable run docs"


class Model:
    def __init__(self):
        self.asked = 0

    async def ask(self, prompt, /, *, system=None, max_tokens=4096):
        self.asked += 1
        if self.asked == 1:
            raise ModelError("busy", transient=True, reply=Reply("", "", 3, 0))
        return Reply(prompt.upper(), "stop", 3, 5)


@pytest.mark.real_time
async def test_a_pipeline_its_steps_and_what_it_asks_are_spans(traces, tmp_path):
    async def inner(x):
        return (await stream([x]).map(double).to_list())[0]

    asks = prompt("ask", lambda x: str(x), model=Model(), retry=Retry(on=ModelError, attempts=2, initial=0))
    pipeline = Pipeline("p", takes=int).add(parallel("m", [step("l", inner), step("r", double)])).map("each", asks)
    with penstock.traced(traces.tracer):
        result = await PipelineEngine(tmp_path).run(pipeline, 1, run_id="r1")
        again = await PipelineEngine(tmp_path).run(Pipeline("bad", [step("s", lambda x: 1 / 0)]), 1)
    assert (result.output, again.status) == (["2", "2"], "failed")
    one, bad = traces.of("pipeline p")[0], traces.of("pipeline bad")[0]
    assert (one.attributes["penstock.run.id"], one.attributes["penstock.run.status"]) == ("r1", "completed")
    assert bad.status.description == "STEP_FAILED: step 's': ZeroDivisionError('division by zero')"
    assert [each.attributes["penstock.step.path"] for each in traces.of("step each")].count("each[1]") >= 1
    assert {traces.parent(each) for each in traces.of("step m/l")} == {"pipeline p"}
    assert traces.parent(traces.of("stream")[0]) == "step m/l"
    first, *others = sorted(traces.of("chat Model"), key=lambda each: each.start_time)
    assert (first.kind, first.attributes["gen_ai.operation.name"]) == (SpanKind.CLIENT, "chat")
    assert first.attributes["error.type"] == "penstock.flow.models.ModelError"
    assert first.attributes["gen_ai.usage.input_tokens"] == 3
    assert len(others) == 2
    for each in others:
        assert each.attributes["gen_ai.usage.output_tokens"] == 5
        assert each.attributes["gen_ai.response.finish_reasons"] == ("stop",)
        assert traces.parent(each) == "step each"


async def test_off_it_costs_no_item_anything(traces):
    """The window calls the function itself, as ever: only the run has looked for a tracer. So without items, too."""

    def window_of(run):
        return next(each for each in run._scope.stages if each.name == "work")

    async with stream([1]).map(double, name="work").open() as run:
        window = window_of(run)
        assert window.work is window.plan.work
        assert run._scope.trace is None
    with penstock.traced(traces.tracer):
        async with stream([1]).map(double, name="work").open() as run:
            window = window_of(run)
            assert window.work is window.plan.work
        async with stream([1]).map(same, name="work").open() as run:
            assert window_of(run).plan.inline is not None


@pytest.mark.parametrize("items", [-1, 2, True, "all"])
def test_what_breaks_its_rule_raises(items):
    with pytest.raises(OptionError, match="items must be a number from 0 to 1"), penstock.traced(items=items):
        pass
    with pytest.raises(OptionError, match="tracer must be a Tracer of OpenTelemetry or None, got 3"):
        penstock.traced(3).__enter__()


async def test_without_a_provider_nothing_happens():
    with penstock.traced(items=1):
        assert await stream([1, 2]).map(double).to_list() == [2, 4]


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ModuleNotFoundError, match=r"penstock.traced needs opentelemetry.*penstock\[otel\]"):
        penstock.traced().__enter__()
