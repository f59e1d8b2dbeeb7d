"""Progress while a job runs."""

import os
import pty
import subprocess
import sys
import threading

import pytest
from rich.console import Console

from penstock.cli import progress
from penstock.core.stats import StageStats
from penstock.workflows import EmbedReport


def report(**changed):
    stages = tuple(
        StageStats(name, taken, taken - 4, 0, 1, 0, 0, peak_running=2)
        for name, taken in (("read", 1_300), ("embed", 4_000), ("store", 1_200))
    )
    values = {
        "target": "index.db",
        "files": 1_196,
        "chunks": 5_000,
        "recalled": 0,
        "unchanged": 10,
        "failed": 1,
        "failures": (),
        "gone": 0,
        "gone_files": (),
        "removed": 0,
        "replaced": 0,
        "links": 0,
        "links_out": 0,
        "replaced_characters": 0,
        "seconds": 10.0,
        "first_row_seconds": 0.05,
        "peak_memory": None,
        "interrupted": False,
        "stages": stages,
    }
    return EmbedReport(**values | changed)


def test_a_table_has_a_row_per_stage():
    console = Console(width=100, color_system=None)
    with console.capture() as captured:
        console.print(progress.table(report()))
    lines = [line.split() for line in captured.get().splitlines()]
    assert lines == [
        ["10", "s,", "10", "files", "unchanged"],
        ["stage", "of", "in", "in", "flight", "out", "failed", "per", "s"],
        ["read", "files", "1,300", "3", "1,296", "1", "130"],
        ["embed", "chunks", "4,000", "3", "3,996", "1", "400"],
        ["store", "files", "1,200", "3", "1,196", "1", "120"],
    ]


def test_a_plain_line_says_the_same():
    assert progress.line(report()) == (
        "10 s: read 1,296 (+3), embed 3,996 (+3), store 1,196 (+3); 1 failed, 10 unchanged; 120 files/s"
    )


def test_plain_lines_come_at_the_first_document_and_then_regularly(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LOOK", 0)
    monkeypatch.setattr(progress, "_EVERY", 0)
    asked, enough = [], threading.Event()

    def look():
        asked.append(True)
        if len(asked) == 6:
            enough.set()
        return report(first_row_seconds=None if len(asked) < 3 else 0.05)

    with progress.display(look):
        assert enough.wait(60)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "first document stored after 0.05 s"
    assert len(lines) >= 3
    assert set(lines[1:]) == {progress.line(report())}


@pytest.fixture
def terminal():
    """A terminal: the end for the command, and a function that gives all that was written to it."""
    master, slave = pty.openpty()

    def written():
        os.close(slave)
        found = b""
        try:
            while piece := os.read(master, 65_536):
                found += piece
        except OSError:  # how the end of a terminal reads
            return found.decode()
        return found.decode()

    yield slave, written
    os.close(master)


def test_a_terminal_shows_a_live_table_that_is_gone_at_the_end(tmp_path, docs, terminal):
    slave, written = terminal
    command = [sys.executable, "-m", "penstock", "embed", "docs", "--to", "index.db"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
        check=True,
        env=os.environ | {"TERM": "xterm"},
    )
    shown = written()
    assert "in flight" in shown
    assert "\x1b[?25l" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert done.stdout.startswith("index.db: 3 files")
