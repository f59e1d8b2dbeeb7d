"""P10, P11: through random pipelines every root comes to what plain list code says, whatever fails on the way."""

import asyncio
import random
from contextlib import suppress

import apsw
import pytest

from penstock.sinks.table import SqliteTable
from penstock.sources.keyed import keyed
from penstock.testing import run_in_real_time

from .looking import DEAD, look
from .pipelines import Pipeline

PIPELINES = 400
LIMIT = 20.0
"""Seconds after which a run counts as hung."""


async def run_to_the_end(pipeline, database, passes=None):
    """Run; cancel after so many passes of the loop, if that is told. The report, or None."""
    running = asyncio.ensure_future(pipeline.stream().to(SqliteTable(database, "rows"), run="run"))
    if passes is not None:
        for _ in range(passes):
            await asyncio.sleep(0)
        running.cancel()
    with suppress(asyncio.CancelledError):
        async with asyncio.timeout(LIMIT):
            return await running


def in_order(database):
    """The texts of every root that is not dead, as they stand in the table."""
    connection = apsw.Connection(str(database))
    try:
        texts = {key: [] for (key,) in connection.execute("SELECT key FROM penstock_roots WHERE state != ?", (DEAD,))}
        if list(connection.execute("PRAGMA table_info(rows)")):
            for key, text in connection.execute(
                "SELECT key, text FROM rows JOIN penstock_roots ON penstock_root = id ORDER BY rows.rowid"
            ):
                texts[key].append(text)
        return texts
    finally:
        connection.close()


def explore(seed, folder):
    """Run a random pipeline: until it fails or is cancelled at random, if so, and then to its end."""
    pipeline, chances = Pipeline(seed), random.Random(f"{seed} runs")
    database = folder / f"{seed}.db"
    told = f"seed {seed}: {pipeline}"
    if pipeline.may_raise or chances.random() < 0.3:
        passes = chances.choice((None, chances.randrange(200)))
        with suppress(ValueError):
            run_in_real_time(run_to_the_end(pipeline, database, passes))
        found = look(database, pipeline.expected)
        assert found.is_whole, (told, found)
    pipeline.heals = True
    report = run_in_real_time(run_to_the_end(pipeline, database))
    assert report is not None, told
    assert report.complete, told
    found = look(database, pipeline.expected)
    assert found.is_whole, (told, found)
    assert len(found.settled) == len(pipeline.items), told
    assert report.delivered + report.dead + report.already_done + report.dead_before == len(pipeline.items), told
    if pipeline.is_ordered:
        assert in_order(database) == {
            key: pipeline.in_order(key, version) for key, (version, state) in found.settled.items() if state != DEAD
        }, told
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.slow
def test_every_root_comes_to_what_list_code_says(memory):
    """Fan-out, filters, batches across roots, merges, retries; failures skipped, set aside, raised; runs cancelled."""
    for seed in range(PIPELINES):
        explore(seed, memory)


@pytest.mark.parametrize("ordered", [True, False])
def test_batches_that_wait_for_more_than_there_is_room_for_are_not_a_deadlock(tmp_path, ordered):
    """Trap 51: four roots of ten pieces each, batches of 64 that wait for ever, a place for one root at a time."""

    async def main():
        stream = keyed([0, 1, 2, 3], key=lambda root: root)
        return await (
            stream.flat_map(lambda root: [(root, n) for n in range(10)], concurrency=1, ordered=ordered)
            .map_batches(lambda pieces: [{"text": f"{piece}"} for piece in pieces], 64, ordered=ordered)
            .to(SqliteTable(tmp_path / "run.db", "rows"), run="run")
        )

    report = run_in_real_time(asyncio.wait_for(main(), LIMIT))
    assert (report.delivered, report.rows, report.complete) == (4, 40, True)
