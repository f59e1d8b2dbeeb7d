"""What many steps cost, in counts: commits, fingerprints, and what is in memory at once."""

import subprocess
import sys

import pytest

from penstock.flow import Pipeline, PipelineEngine, codes, step
from penstock.flow.recorder import Recorder
from penstock.flow.tree import Node

pytestmark = pytest.mark.real_time

STEPS = 200


async def inc(x):
    return x + 1


@pytest.fixture
def commits(monkeypatch):
    seen = []
    commit = Recorder._commit
    monkeypatch.setattr(Recorder, "_commit", lambda self, writes: (seen.append(len(writes)), commit(self, writes))[1])
    return seen


async def test_steps_in_a_row_share_a_commit_and_a_fingerprint(tmp_path, commits, monkeypatch):
    """`completed` and the `running` of the next step go together: one commit a step. Their function is told once."""
    told = []
    fingerprint = codes.fingerprint
    monkeypatch.setattr(codes, "fingerprint", lambda *given, **more: (told.append(1), fingerprint(*given, **more))[1])
    pipeline = Pipeline("p", [step(f"s{number}", inc) for number in range(STEPS)])
    result = await PipelineEngine(tmp_path).run(pipeline, 0, run_id="x")
    assert (result.output, len(told)) == (STEPS, 1)
    assert len(commits) < 1.5 * STEPS


async def test_no_more_nodes_are_alive_than_are_under_way(tmp_path, monkeypatch):
    """Items of a map are nodes while they run; before and after they are rows."""
    alive, peak = set(), 0
    begin, end = Node.begin, Node.end

    def begins(self, origin):
        nonlocal peak
        alive.add(self.path)
        peak = max(peak, len(alive))
        begin(self, origin)

    def ends(self):
        alive.discard(self.path)
        end(self)

    monkeypatch.setattr(Node, "begin", begins)
    monkeypatch.setattr(Node, "end", ends)
    pipeline = Pipeline("p").map("m", Pipeline("item").step("a", inc).step("b", inc)).review("r")
    await PipelineEngine(tmp_path, concurrency=4).run(pipeline, list(range(300)))
    assert peak <= 2 * 4 + 2  # the item and its leaf for each place; the run and the map


PROGRAM = """
import asyncio, sys
from penstock.flow import Pipeline, PipelineEngine
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
async def make(number): return "x" * 12_000
async def main():
    engine = PipelineEngine(sys.argv[1], concurrency=8)
    await engine.run(Pipeline("p").map("m", make).review("r"), list(range(100)))
    before = peak()
    result = await engine.run(Pipeline("p").map("m", make).review("r"), list(range(10_000)))
    assert len(result.steps) == 10_002
    print(peak() - before)
asyncio.run(main())
"""


@pytest.mark.slow
def test_ten_thousand_items_of_a_map_need_no_memory_for_their_outputs(tmp_path):
    """120 MB of outputs; what is kept of an item is its place, its status and its times: less than 5,000 bytes."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, tmp_path], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10_000 * 5_000
