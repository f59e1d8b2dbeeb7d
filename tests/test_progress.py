"""`open(progress=True)`: a live table on a terminal, plain lines elsewhere, both on stderr."""

import asyncio
import io
import os
import pty
import re
import subprocess
import sys
from contextlib import nullcontext

import pytest
from rich.console import Console

import penstock
from penstock.core.stats import StageStats, Stats
from penstock.progress import LiveTable


async def second(number):
    await asyncio.sleep(1)
    if number == 3:
        raise ValueError(number)
    return number


async def read(stream, **options):
    async with stream.open(progress=True, **options) as results:
        async for _ in results:
            pass


async def test_plain_lines_come_regularly_and_at_the_end(capsys):
    await read(penstock.stream(range(12)).map(second, name="work", on_error="collect"))
    assert capsys.readouterr().err.splitlines() == [
        "5 s, 42%, 7 s left: source 5 (+0), work 3 (+1); 1 failed",
        "10 s, 83%, 2 s left: source 10 (+0), work 8 (+1); 1 failed",
        "12 s: source 12 (+0), work 11 (+0); 1 failed",
    ]


async def test_nothing_is_said_of_a_run_that_takes_nothing(capsys):
    await read(penstock.stream([]))
    assert capsys.readouterr().err == ""


async def test_without_a_total_there_is_no_guess(capsys):
    await read(penstock.stream(iter(range(2))).map(second, concurrency=2, name="work"))
    assert capsys.readouterr().err == "1 s: source 2 (+0), work 2 (+0); 0 failed\n"


async def test_the_total_that_was_given(capsys):
    await read(penstock.stream(iter(range(6)), total=60).map(second, name="work", on_error="skip"))
    assert capsys.readouterr().err.startswith("5 s, 8%, 55 s left: source 5 (+0)")


@pytest.mark.parametrize("leave", ["break", "failure"])
async def test_it_ends_with_the_run(leave, capsys):
    with pytest.raises(ValueError, match="3") if leave == "failure" else nullcontext():
        async with penstock.stream(range(100)).map(second, name="work").open(progress=True) as results:
            async for _ in results:
                if leave == "break":
                    break
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    await asyncio.sleep(100)
    assert capsys.readouterr().err == ""


class Stderr(io.StringIO):
    """Whoever reads it goes away: `error` is raised by what is written then."""

    def __init__(self, *, terminal):
        super().__init__()
        self.terminal = terminal
        self.error = None
        self.failed = 0

    def isatty(self):
        return self.terminal

    def write(self, text):
        if self.error is not None:
            self.failed += 1
            raise self.error
        return super().write(text)


@pytest.mark.parametrize("terminal", [False, True], ids=["lines", "table"])
@pytest.mark.parametrize("gone_at", [0, 2])
@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError("I/O operation on closed file")])
async def test_a_run_goes_on_when_nobody_can_be_shown_how(terminal, gone_at, error, monkeypatch):
    """Nothing more is shown after the first failure, and what rich has put in the place of stderr is taken away."""
    stderr = Stderr(terminal=terminal)
    monkeypatch.setattr(sys, "stderr", stderr)
    failed = []
    stderr.error = None if gone_at else error
    async with penstock.stream(range(12)).map(second, on_error="skip").open(progress=True) as results:
        async for number in results:
            if number == gone_at:
                stderr.error = error
            failed.append(stderr.failed)
    assert len(failed) == 11
    assert 0 < failed[6] == stderr.failed
    assert sys.stderr is stderr


async def test_without_stderr_nothing_is_shown(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    await read(penstock.stream(range(12)).map(second, on_error="skip"))
    assert capsys.readouterr().out == ""


def test_the_table():
    stages = (
        StageStats("source", 1_300, 1_300, 0, 0, 0, 0, total=2_600),
        StageStats("work", 1_300, 1_200, 0, 1, 0, 0, running=90, buffered=9, concurrency=100),
    )
    console = Console(width=100, color_system=None, force_terminal=True)
    with console.capture() as captured:
        shown = LiveTable(console, stays=True)
        shown.show(Stats(stages, 10.0), "7 unchanged")
        shown.close()
    lines = [line.split() for line in re.sub(r"\x1b\[\S*?[a-zA-Z]", "", captured.get()).splitlines()]
    assert ["10", "s,", "50%,", "10", "s", "left,", "7", "unchanged"] in lines
    assert ["source", "1,300", "of", "2,600", "130"] in lines
    assert ["work", "1,201", "90", "9", "1", "120"] in lines


PROGRAM = """
import asyncio
import penstock

async def work(number):
    await asyncio.sleep(0.01)

asyncio.run(penstock.stream(range(50)).map(work, concurrency=5, name="work").drain())

async def main():
    async with penstock.stream(range(50)).map(work, concurrency=5, name="work").open(progress=True) as results:
        async for _ in results:
            pass

asyncio.run(main())
"""


def test_on_a_terminal_there_is_a_table_that_stays():
    leader, follower = pty.openpty()
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=follower, stdout=subprocess.PIPE)
    os.close(follower)
    shown = b""
    try:
        while chunk := os.read(leader, 65536):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(leader)
    with program:
        assert program.stdout.read() == b""
    assert program.returncode == 0
    text = shown.decode()
    assert "per second" in text
    assert "50 of 50" in text.rsplit("stage", 1)[-1]


def test_in_scripts_too(capsys):
    with penstock.stream(range(3)).map(str, name="text").sync(progress=True) as texts:
        assert list(texts) == ["0", "1", "2"]
    assert capsys.readouterr().err == "0 s: source 3 (+0), text 3 (+0); 0 failed\n"


def test_without_rich_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("penstock.progress.find_spec", lambda _: None)
    needs = r"^open\(progress=True\) needs rich: pip install 'penstock\[progress\]'$"
    with pytest.raises(ModuleNotFoundError, match=needs):
        penstock.stream([]).open(progress=True)


@pytest.mark.parametrize("value", [1, "yes", None])
def test_progress_is_a_flag(value):
    with pytest.raises(penstock.OptionError, match=f"progress must be True or False, got {value!r}"):
        penstock.stream([]).open(progress=value)
