"""`penstock run` on a terminal: a tree while it runs, which leaves nothing behind; plain lines elsewhere."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios

import pytest

pytestmark = [pytest.mark.real_time, pytest.mark.slow]

LONG = "a-name-that-is-longer-than-a-narrow-terminal-is-wide"
JOBS = f"""
import asyncio, os, sys
from penstock.flow import Pipeline, parallel, step

async def gate(x):
    print(end="\\x1b]gate\\x07", file=sys.__stdout__, flush=True)  # what waits for it reads on
    while not os.path.exists("open"):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.6)  # two looks of the tree
    return x

def fail(x):
    raise ValueError("no")

both = parallel("both", [step("left", gate), step("{LONG}", gate)])
p = Pipeline("article").step("first", str).add(both).map("each", str).step("last", str)
failing = Pipeline("failing").step("first", str).step("fails", fail)
"""

CONTROL = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b\]gate\x07|([\r\n])|([^\x1b\r\n])")


class Screen:
    """A terminal that knows what rich says to it; anything else fails."""

    def __init__(self, columns):
        self.columns, self.lines, self.row, self.column = columns, [""], 0, 0
        self.hidden, self.colours, self.frames = False, set(), []

    def feed(self, text):
        place = 0
        for found in CONTROL.finditer(text):
            assert found.start() == place, text[place : found.start()]
            place = found.end()
            arguments, control, line, char = found.groups()
            if control:
                self.obey(arguments, control)
            elif line:
                self.column = 0
                self.go_to(self.row + (line == "\n"))
            elif char:
                self.write(char)
        assert place == len(text), text[place:]
        self.frames.append("\n".join(self.lines))

    def obey(self, arguments, control):
        if control == "A":
            self.row -= int(arguments or 1)
            assert self.row >= 0
        elif control == "K":
            self.lines[self.row] = ""
        elif control == "m":
            self.colours.add(arguments)
        else:
            assert (arguments, control) in {("?25", "l"), ("?25", "h")}
            self.hidden = control == "l"

    def go_to(self, row):
        self.row = row
        self.lines += [""] * (row + 1 - len(self.lines))

    def write(self, char):
        if self.column >= self.columns:
            self.column = 0
            self.go_to(self.row + 1)
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + char + line[self.column + 1 :]
        self.column += 1


def shown(tmp_path, columns=80, *, rows=24, then=None, name="p", **variables):
    """Run a pipeline on a terminal; `then` is its width from the moment on when a step is under way."""
    (tmp_path / "jobs.py").write_text(JOBS)
    (tmp_path / "open").unlink(missing_ok=True)
    ours, theirs = pty.openpty()
    size = lambda width: fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, width, 0, 0))  # noqa: E731
    size(columns)
    env = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "COLUMNS", "LINES"}}
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock", "run", f"jobs:{name}", "--run-id", "r", "-i", "[1, 2]"],
        cwd=tmp_path,
        env=env | {"TERM": "xterm"} | variables,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    screen, begun = Screen(columns), 0
    while (readable := bool(select.select([ours], [], [], 0.1)[0])) or process.poll() is None:
        if not readable:
            continue
        text = os.read(ours, 65_536).decode()
        screen.feed(text)
        begun += text.count("\x1b]gate\x07")
        if begun == 2:
            if then is not None:
                size(then)
                screen.columns = then
            (tmp_path / "open").touch()
    os.close(ours)
    os.close(theirs)
    return process.returncode, screen


ENDING = ["first: completed", "both: completed", "both/left: completed", f"both/{LONG}: completed"]


def wrapped(lines, columns):
    return [line[at : at + columns] for line in lines for at in range(0, len(line), columns)]


@pytest.mark.parametrize(
    ("columns", "then", "rows"), [(80, None, 24), (20, None, 24), (80, 120, 24), (120, 50, 24), (80, None, 3)]
)
def test_the_tree_is_gone_when_the_run_is_over(tmp_path, columns, then, rows):
    """Also where its names are wider than the terminal, where that changes meanwhile, and where it is low."""
    code, screen = shown(tmp_path, columns, then=then, rows=rows)
    assert (code, screen.hidden) == (0, False)
    at_the_end = [line for line in screen.lines if line]
    assert at_the_end[: len(wrapped(ENDING, screen.columns))] == wrapped(ENDING, screen.columns)
    assert "".join(at_the_end).endswith("run r: completed")
    assert "running" not in "".join(at_the_end)
    assert any("article" in frame for frame in screen.frames)


def test_no_colour_is_shown_to_who_wants_none(tmp_path):
    _, screen = shown(tmp_path, rows=3, NO_COLOR="1")
    assert not {each for each in screen.colours if each.strip("0;1")}


@pytest.mark.parametrize("name", ["p", "failing"])
def test_a_terminal_that_takes_nothing_back_is_told_in_lines(tmp_path, name):
    _, screen = shown(tmp_path, TERM="dumb", name=name)
    assert screen.lines[:2] == ["run r: running", "first: completed"]
    assert name == "p" or "fails: failed: ValueError('no')" in screen.lines


def test_without_a_terminal_lines_go_to_stderr(penstock, tmp_path):
    (tmp_path / "jobs.py").write_text(JOBS)
    done = penstock("run", "jobs:failing", "--run-id", "r", "-i", "1")
    assert done.err.splitlines() == ["run r: running", "first: completed", "fails: failed: ValueError('no')"]
    assert "\x1b" not in done.out + done.err
