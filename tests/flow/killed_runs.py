"""Kills a run before and after each single write of its journal and its files, and has the same call go on.

A program of its own: `python tests/flow/killed_runs.py [FIRST:LAST:STEP]` says how many points there are, how many were
tried, and what was wrong at which; `... KILLS [SEED]` kills runs at random moments. Every run is a child that was
forked, so that a point costs some milliseconds.
"""

import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from penstock.flow import Pipeline, PipelineEngine, parallel, step
from penstock.flow import recorder as recording
from penstock.flow.recorder import Recorder

CONCURRENCY = 2
RUN = "killed"


@dataclass(frozen=True)
class Draft:
    text: str
    round: int = 0


class Points:
    """Counts the points that a run comes to; at one of them it dies."""

    def __init__(self, last):
        self.last = last
        self.reached = 0

    def reach(self):
        self.reached += 1
        if self.reached == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function):
        def with_points(*args, **options):
            self.reach()
            result = function(*args, **options)
            self.reach()
            return result

        return with_points

    def watch(self):
        """Look at each statement, at each commit, at each file that is begun or put in its place."""
        Recorder._apply = self.around(Recorder._apply)
        Recorder._commit = self.around(Recorder._commit)
        recording._write_part = self.around(recording._write_part)
        recording._replace = self.around(recording._replace)


class Calls:
    """Notes calls in a file, which no kill takes back."""

    def __init__(self, path):
        self.path = path

    def note(self, ctx):
        with self.path.open("a") as file:
            file.write(f"{ctx.step}\n")

    def take(self):
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.path.unlink(missing_ok=True)
        return lines


def build(calls):
    async def write(topic, ctx):
        calls.note(ctx)
        return Draft(topic)

    def large(draft, ctx):
        calls.note(ctx)
        return draft.text.encode() * 40_000

    def small(draft, ctx):
        calls.note(ctx)
        return draft.text.encode() * 10

    async def size(content, ctx):
        calls.note(ctx)
        await asyncio.sleep(0)
        return len(content)

    def edit(number, ctx):
        calls.note(ctx)
        return number + 1

    body = Pipeline("item").step("first", size).step("second", edit)
    return (
        Pipeline("killed", takes=str)
        .step("write", write)
        .add(parallel("both", [step("left", large), step("right", large), step("a", small), step("b", small)]))
        .map("each", body, concurrency=2)
        .step("sum", lambda numbers: sum(numbers))
        .loop("refine", step("edit", edit), until=lambda number: number >= 160_046, max_rounds=5)
        .branch("kind", lambda number: number > 0, {True: step("some", edit), False: step("none", edit)})
        .review("editor")
        .step("last", edit)
        .step("after", edit)
        .step("end", edit)
    )


async def go(workspace, calls):
    """The call that is made again and again: it approves what waits, and runs."""
    engine = PipelineEngine(workspace, concurrency=CONCURRENCY)
    pipeline = build(calls)
    result = await engine.run(pipeline, "ab", run_id=RUN)
    if result.status == "paused" and engine.pending(RUN):
        engine.approve(RUN, by="ann")
    if result.status == "paused":
        result = await engine.run(pipeline, "ab", run_id=RUN)
    return result


def child(act):
    """Have it done in a child; its exit code, or minus the signal."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            code = act() or 0
        except BaseException as error:  # noqa: BLE001
            sys.stderr.write(f"{error!r}\n")
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def finished(workspace):
    """The paths of finished steps, as they are recorded."""
    engine = PipelineEngine(workspace)
    if RUN not in {each.run_id for each in engine.runs()}:
        return [], "new"
    result = engine.result(RUN)
    return [each.path for each in result.steps if each.status == "completed"], result.status


def attempt(workspace, calls, last):
    """Run until point `last`; the number of points, or None if it died."""
    counted = workspace / "points"

    def act():
        points = Points(last)
        points.watch()
        result = asyncio.run(go(workspace / "work", calls))
        counted.write_text(json.dumps([points.reached, result.status, result.output]))

    code = child(act)
    if code == -signal.SIGKILL:
        return None
    assert code == 0, f"exit code {code}"
    return json.loads(counted.read_text())


def attempt_for(workspace, calls, seconds):
    """Run, and be killed after so many seconds; whether it was."""
    pid = os.fork()
    if not pid:
        try:
            asyncio.run(go(workspace / "work", calls))
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def try_moments(kills, seed):
    """Kill runs at random moments, each run again and again until it is through; what was wrong, if anything was."""
    moments = random.Random(seed)
    killed, wrong = 0, []
    while killed < kills and not wrong:
        with tempfile.TemporaryDirectory() as directory:
            workspace = Path(directory)
            calls = Calls(workspace / "calls")
            while attempt_for(workspace, calls, moments.uniform(0, LONGEST)) and killed < kills:
                killed += 1
                done, _ = finished(workspace / "work") if (workspace / "work").exists() else ([], "new")
                before = calls.take()
                if again := set(before) & set(known := getattr(calls, "known", set())):
                    wrong.append(f"called again: {again} of {known}")
                calls.known = set(done)
            points = attempt(workspace, calls, 0)
            if points[1:] != ["completed", 160_050] or set(calls.take()) & set(getattr(calls, "known", ())):
                wrong.append(f"it came to {points}")
    return killed, wrong


LONGEST = 0.08
"""Seconds after which a run is killed at the latest: a little more than it takes."""


def try_point(last):  # noqa: PLR0911 -- each is another thing that can be wrong
    """Say what is wrong after a death at point `last`; an empty text if nothing is; None if it came to fewer points."""
    with tempfile.TemporaryDirectory() as directory:
        workspace = Path(directory)
        calls = Calls(workspace / "calls")
        if attempt(workspace, calls, last) is not None:
            return None
        first = calls.take()
        done, status = finished(workspace / "work")
        if status not in {"new", "pending", "killed", "paused", "completed"}:
            return f"the status is {status}"
        points = attempt(workspace, calls, 0)
        again = calls.take()
        if points[1:] != ["completed", 160_050]:
            return f"it came to {points}"
        if repeated := set(again) & set(done):
            return f"finished steps were called again: {repeated}"
        if len(twice := set(first) & set(again)) > CONCURRENCY:
            return f"called twice: {twice}"
        if (odd := [path for path in first + again if (first + again).count(path) > 2]) or len(set(again)) < len(again):
            return f"called too often: {odd or again}"
        outputs = workspace / "work/runs" / RUN / "outputs"
        if len(list(outputs.iterdir())) != 2:
            return f"files are left: {sorted(each.name for each in outputs.iterdir())}"
        done, status = finished(workspace / "work")
        return "" if status == "completed" and len(done) == len(set(done)) == EXPECTED else f"{status}: {done}"


EXPECTED = 29
"""Steps that are finished at the end."""


def main(chosen="1::1", seed="1"):
    if ":" not in chosen:
        killed, wrong = try_moments(int(chosen), int(seed))
        sys.stdout.write(json.dumps({"killed": killed, "wrong": wrong}))
        return bool(wrong)
    with tempfile.TemporaryDirectory() as directory:
        workspace = Path(directory)
        count, status, output = attempt(workspace, Calls(workspace / "calls"), 0)
        assert (status, output) == ("completed", 160_050), (status, output)
        done, _ = finished(workspace / "work")
        assert len(done) == EXPECTED, done
    first, last, stride = (int(each) if each else 0 for each in chosen.split(":"))
    points = range(first, (last or count) + 1, stride)
    tried = {point: what for point in points if (what := try_point(point)) is not None}
    wrong = {point: what for point, what in tried.items() if what}
    sys.stdout.write(json.dumps({"points": count, "tried": len(tried), "wrong": wrong}))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
