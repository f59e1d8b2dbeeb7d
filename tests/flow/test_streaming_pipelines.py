"""Streaming pipelines: named functions from stream to stream."""

import pytest

import penstock
from penstock import OptionError, SqliteTable
from penstock.flow import Pipeline, PipelineEngine, StreamingPipeline


async def double(x: int) -> int:
    return 2 * x


def chain(numbers: penstock.Stream[int]) -> penstock.Stream[int]:
    return numbers.map(double, concurrency=3)


doubles = StreamingPipeline("doubles", chain)


@pytest.mark.parametrize(
    "source",
    [[1, 2], range(1, 3), lambda: iter([1, 2]), penstock.stream([1, 2]), penstock.stream([0, 1]).map(lambda x: x + 1)],
)
async def test_it_goes_over_any_source(source):
    assert await doubles.to_list(source) == [2, 4]
    assert await doubles.reduce(source, lambda a, b: a + b, 0) == 6
    assert await doubles.over(source).first() == 2
    async with doubles.open(source, timing=True) as run:
        assert [x async for x in run] == [2, 4]


async def test_nothing_of_a_run_stays_in_it():
    async with doubles.open([1, 2]) as one, doubles.open(iter([3])) as other:
        assert [await anext(one), await anext(other), await anext(one)] == [2, 6, 4]
    assert await doubles.to_list([]) == []


def test_its_stream_can_be_read_without_async():
    with doubles.over([1, 2]).sync() as items:
        assert list(items) == [2, 4]


@pytest.mark.real_time
async def test_to_is_a_durable_run_of_its_name(tmp_path):
    rows = StreamingPipeline("rows", lambda s: s.map(lambda x: {"x": x}))
    sink = SqliteTable(str(tmp_path / "out.db"), "t")
    source = penstock.keyed([1, 2], key=str)
    report = await rows.to(source, sink)
    assert (report.run, report.delivered) == ("rows", 2)
    assert (await rows.to(source, sink, limit=1)).already_done == 2
    assert (await rows.to(source, sink, run="other", on_error="collect")).run == "other"
    with pytest.raises(OptionError, match="source whose items have keys"):
        await rows.to(penstock.stream([1]), sink)


@pytest.mark.real_time
async def test_as_step_reads_all_and_gives_a_list(tmp_path):
    pipeline = Pipeline("p", takes=list[int]).add(doubles.as_step()).add(doubles.as_step("again"))
    result = await PipelineEngine(tmp_path).run(pipeline, [1, 2])
    assert result.output == [4, 8]
    assert [each.path for each in result.steps] == ["doubles", "again"]


def times(number):
    return StreamingPipeline("s", lambda s: s.map(lambda x: x * number))


@pytest.mark.real_time
async def test_other_code_of_the_stream_is_other_code_of_its_step(tmp_path):
    engine = PipelineEngine(tmp_path)
    results = [await engine.run(Pipeline("p", [times(n).as_step()]), [1], run_id="r") for n in (2, 2, 3)]
    assert [result.output for result in results] == [[2], [2], [2]]
    assert [result.changed for result in results] == [(), (), ("s",)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StreamingPipeline("a/b", chain), r"name must be a str of 1 to 100 .*, got 'a/b'"),
        (lambda: StreamingPipeline("a", 1), "build must be callable, got 1"),
        (lambda: StreamingPipeline("a", double), "build must be a plain function, got the async"),
        (lambda: StreamingPipeline("a", lambda s: double(s)), "build must be a plain function, it gave a coroutine"),
        (lambda: StreamingPipeline("a", lambda s: 3), r"build\(stream\) must be a Stream, got 3"),
        (
            lambda: StreamingPipeline("a", lambda s: s.map(double, concurrency=0)),
            "concurrency must be an int >= 1, got 0",
        ),
        (lambda: StreamingPipeline("a", chain, takes=3), "takes must be a type, got 3"),
        (lambda: doubles.over(3), "source must be an iterable"),
        (lambda: doubles.as_step("/"), "name must be a str"),
        (lambda: doubles.open([1], grace=-1), "grace must be"),
    ],
)
def test_what_breaks_its_rule_raises_when_it_is_given(make, message):
    with pytest.raises(OptionError, match=message):
        make()


def test_it_says_what_it_is():
    assert (repr(doubles), doubles.name, doubles.takes) == ("<streaming pipeline 'doubles'>", "doubles", None)


@pytest.mark.real_time
async def test_the_log_says_how_runs_go(tmp_path, caplog):
    """Each pipeline has a logger of its own; texts of others are escaped."""

    def fail(x):
        raise ValueError("a\x1b[31m")

    with caplog.at_level("INFO", logger="penstock.flow"):
        await PipelineEngine(tmp_path).run(Pipeline("good", [doubles.as_step()]), [1], run_id="r")
        await PipelineEngine(tmp_path).run(Pipeline("bad", takes=int).step("f", fail), 1, run_id="s")
    said = [(each.name, each.levelname, each.getMessage()) for each in caplog.records if "run '" in each.getMessage()]
    assert said == [
        ("penstock.flow.good", "INFO", "run 'r' begins, or goes on"),
        ("penstock.flow.good", "INFO", "run 'r' is completed"),
        ("penstock.flow.bad", "INFO", "run 's' begins, or goes on"),
        ("penstock.flow.bad", "WARNING", r"""run 's' is failed: STEP_FAILED: step 'f': ValueError('a\x1b[31m')"""),
    ]
