"""Commands as steps of runs: failures by their codes, secrets that are stored nowhere, kills that leave no program."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from penstock import Retry
from penstock.flow import Pipeline, PipelineEngine
from penstock.flow.commands import command
from penstock.flow.programs import CommandError
from penstock.flow.secrets import secret

pytestmark = pytest.mark.real_time

SECRET = "s3cr3t-0123456789"


@pytest.fixture
def run(tmp_path):
    async def go(*steps, value=None, run_id="r", **options):
        engine = PipelineEngine(tmp_path / "work", **options)
        return await engine.run(Pipeline("p", list(steps)), value, run_id=run_id)

    return go


async def test_the_output_of_a_program_goes_on(run):
    result = await run(command("c", lambda value: ["echo", value]), command("d", ["cat"], stdin=str.upper), value="abc")
    assert (result.status, result.output) == ("completed", "ABC\n")


async def test_a_program_that_fails_fails_its_step(run):
    result = await run(command("c", ["sh", "-c", "echo why >&2; exit 3"]))
    assert (result.error.code, result.error.step) == ("STEP_FAILED", "c")
    assert isinstance(result.error.__cause__, CommandError)
    assert "sh exited with code 3: why" in str(result.error)


@pytest.mark.parametrize("argv", [["penstock-has-none"], lambda _: ["penstock-has-none"], ["./none"]])
async def test_a_program_that_is_not_there_is_no_attempt(run, argv):
    result = await run(command("c", argv, retry=Retry(on=CommandError)))
    assert (result.error.code, result.error.step) == ("TASK_CREATION_FAILED", "c")
    assert "none" in str(result.error)


async def test_a_secret_that_is_not_there_is_named(run, monkeypatch):
    monkeypatch.delenv("PENSTOCK_NONE", raising=False)
    result = await run(command("c", ["true"], env={"X": secret("PENSTOCK_NONE")}))
    assert result.error.code == "TASK_CREATION_FAILED"
    assert "'PENSTOCK_NONE'" in str(result.error)
    assert result.steps[0].attempts == 0


async def test_a_timeout_ends_the_program(run, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    result = await run(command("c", ["sh", "-c", f"sleep 1000 > {fifo}"], timeout=0.1, grace=0.05))
    assert result.error.code == "STEP_FAILED"
    assert "0.1" in str(result.error)
    assert os.read(reading, 10) == b""  # nobody holds the other end
    os.close(reading)


async def test_secrets_are_in_no_file(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_TEST_SECRET", SECRET)
    token = secret("PENSTOCK_TEST_SECRET")
    result = await run(
        command("c", ["sh", "-c", "echo $TOKEN"], env={"TOKEN": token}),
        command("d", ["sh", "-c", "echo $TOKEN >&2; exit 1"], env={"TOKEN": token}),
    )
    assert result.outputs["c"] == "***\n"
    assert "***" in str(result.error)
    assert SECRET not in repr((result, result.error.__cause__, vars(result.error.__cause__)))
    files = [path for path in (tmp_path / "work").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


PROGRAM = """
import asyncio, sys
from penstock.flow import Pipeline, PipelineEngine
from penstock.flow.commands import command
steps = [command("c", ["sh", "-c", sys.argv[1]])]
print(asyncio.run(PipelineEngine("work").run(Pipeline("p", steps), None, run_id="r")).output, end="")
"""


@pytest.mark.slow
@pytest.mark.slow
async def test_after_a_kill_no_second_copy_begins_while_the_first_lives(tmp_path):
    """Each takes a lock that it keeps to its end, and says if another has it."""
    os.mkfifo(tmp_path / "ready")
    script = (
        "exec 9> ../../../../../lock; flock -n 9 || { echo two at once; exit; }; trap '' TERM; "
        "if [ -e ../../../../../again ]; then echo alone; exit; fi; "
        "echo ready > ../../../../../ready; while :; do sleep 0.01; done"
    )
    start = [sys.executable, "-W", "error", "-c", PROGRAM, script]
    for _ in range(3):
        engine = subprocess.Popen(start, cwd=tmp_path)  # noqa: ASYNC220 -- nothing else runs
        assert (await asyncio.to_thread((tmp_path / "ready").read_text)) == "ready\n"
        engine.send_signal(signal.SIGKILL)
        engine.wait()
    (tmp_path / "again").touch()
    done = subprocess.run(start, cwd=tmp_path, check=True, capture_output=True, text=True)  # noqa: ASYNC221 -- as above
    assert (done.stdout, done.stderr) == ("alone\n", "")


async def test_a_hundred_commands_share_one_keeper(run):
    names = [str(number) for number in range(100)]
    pipeline = Pipeline("p", takes=list).map("each", command("c", lambda name: ["echo", name]), concurrency=8)
    assert (await run(*pipeline.steps, value=names, concurrency=8)).output == [f"{name}\n" for name in names]
