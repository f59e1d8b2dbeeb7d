"""What a step that does nothing costs, eight at once, when it is recorded: beside DBOS on SQLite and pydantic-graph."""

import argparse
import asyncio
import logging
import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import batched
from pathlib import Path
from time import perf_counter, process_time

from aims import Aim, print_aims
from timing import machine

from penstock.flow import Pipeline, PipelineEngine, step

CONCURRENCY = 8
AIM = 150.0
RESUMED = 10_000
RESUME_AIM = 1.0

type Runs = Callable[[Path, int], Awaitable[None]]


async def nothing(item: int) -> int:
    return item


MAP = Pipeline("steps", takes=list).map("each", nothing)


async def penstock(directory: Path, steps: int) -> None:
    engine = PipelineEngine(directory / "work", concurrency=CONCURRENCY)
    result = await engine.run(MAP, list(range(steps)), run_id="steps")
    assert result.output == list(range(steps))


async def in_a_row(directory: Path, steps: int) -> None:
    """One after the other: nobody else is under way during a commit."""
    row = Pipeline("row", [step(f"step {number}", nothing) for number in range(steps)])
    result = await PipelineEngine(directory / "work", concurrency=CONCURRENCY).run(row, 5, run_id="row")
    assert result.output == 5


async def dbos(directory: Path, steps: int) -> None:
    use_newer_sqlite()
    from dbos import DBOS  # noqa: PLC0415 -- a peer that may be missing

    logging.getLogger("dbos").setLevel(logging.ERROR)
    DBOS(config={"name": "steps", "system_database_url": f"sqlite:///{directory}/dbos.db", "log_level": "ERROR"})
    call = DBOS.step()(nothing)

    @DBOS.workflow()
    async def each(count: int) -> int:
        done = 0
        for some in batched(range(count), CONCURRENCY):
            done += len(await asyncio.gather(*map(call, some)))
        return done

    DBOS.launch()
    try:
        assert await each(steps) == steps
    finally:
        DBOS.destroy(destroy_registry=True)


def use_newer_sqlite() -> None:
    """DBOS needs a newer SQLite than some Pythons have."""
    if sqlite3.sqlite_version_info < (3, 45):
        import pysqlite3.dbapi2  # noqa: PLC0415 -- a peer that may be missing

        sys.modules.update({"sqlite3": pysqlite3, "sqlite3.dbapi2": pysqlite3.dbapi2})


async def pydantic_graph(_: Path, steps: int) -> None:
    """In memory: it records nothing; eight at once are not to be had, so that all of them are."""
    from pydantic_graph import GraphBuilder, StepContext, reduce_list_append  # noqa: PLC0415 -- a peer that may be missing

    builder = GraphBuilder(input_type=int, output_type=list[int])

    @builder.step
    async def spread(ctx: StepContext[None, None, int]) -> list[int]:
        return list(range(ctx.inputs))

    @builder.step
    async def each(ctx: StepContext[None, None, int]) -> int:
        return ctx.inputs

    join = builder.join(reduce_list_append, initial_factory=list[int])
    builder.add(
        builder.edge_from(builder.start_node).to(spread),
        builder.edge_from(spread).map().to(each),
        builder.edge_from(each).to(join),
        builder.edge_from(join).to(builder.end_node),
    )
    assert len(await builder.build().run(inputs=steps)) == steps


RUNS: dict[str, Runs] = {
    "penstock": penstock,
    "penstock, in a row": in_a_row,
    "DBOS on SQLite": dbos,
    "pydantic-graph, in memory": pydantic_graph,
}


def measured(runs: Runs, steps: int) -> tuple[float, float]:
    """Microseconds of processor time and of elapsed time for a step."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        began, cpu = perf_counter(), process_time()
        asyncio.run(runs(Path(directory), steps))
        return (process_time() - cpu) / steps * 1e6, (perf_counter() - began) / steps * 1e6


def resumed() -> tuple[float, float]:
    """Seconds until a run of many finished steps is passed over: of processor time, and elapsed."""
    with tempfile.TemporaryDirectory() as directory:
        engine = PipelineEngine(directory, concurrency=CONCURRENCY)
        pipeline = MAP.review("last")
        asyncio.run(engine.run(pipeline, list(range(RESUMED)), run_id="steps"))
        began, cpu = perf_counter(), process_time()
        asyncio.run(engine.run(pipeline, list(range(RESUMED)), run_id="steps"))
        return process_time() - cpu, perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a recorded step costs.")
    parser.add_argument("--steps", type=int, default=2_000, help="steps of a run; default: 2,000")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, of which the median counts; default: 3")
    options = parser.parse_args()
    print(machine(["penstock", "apsw"]))
    print(f"a step that does nothing, {CONCURRENCY} at once, {options.steps:,} a run: us of processor time, us elapsed")
    found: dict[str, float] = {}
    for name, runs in RUNS.items():
        with suppress(ModuleNotFoundError):
            rounds = [measured(runs, options.steps) for _ in range(options.rounds)]
            cpu, elapsed = (statistics.median(column) for column in zip(*rounds, strict=True))
            found[name] = cpu
            print(f"{name:28} {cpu:8.0f} {elapsed:8.0f}")
    cpu, seconds = resumed()
    print(f"passing over {RESUMED:,} finished steps: {cpu:.2f} s of processor time, {seconds:.2f} s elapsed")
    print_aims(
        [
            Aim("a recorded step, processor time", found["penstock"], AIM, form="{:.0f} us"),
            Aim(f"passing over {RESUMED:,} finished steps", seconds, RESUME_AIM, form="{:.2f} s"),
        ]
    )


if __name__ == "__main__":
    main()
