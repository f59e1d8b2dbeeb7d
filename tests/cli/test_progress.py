"""Progress while a job runs."""

import asyncio
import os
import pty
import subprocess
import sys

import pytest

from penstock.cli import embed
from penstock.progress import ProgressDisplay
from penstock.workflows import EmbedJob


@pytest.mark.real_time
async def test_plain_lines_name_what_each_stage_counts_and_how_many_files_are_unchanged(docs, tmp_path, capsys):
    await EmbedJob(docs, tmp_path / "index.db").run()
    (docs / "new.md").write_text("# New\n\nA text.\n")
    job = EmbedJob(docs, tmp_path / "index.db")
    await job.run()
    shown = embed.shown_of(job)
    ProgressDisplay(asyncio.get_running_loop(), shown.stats, shown.note).close()
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == ("0 s, 3 files unchanged: read files 1 (+0), embed chunks 1 (+0), store files 1 (+0); 0 failed")


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
    assert "per second" in shown
    assert "\x1b[?25l" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert done.stdout.startswith("index.db: 3 files")


def test_a_command_without_stderr_does_its_work(tmp_path, docs):
    """A program that was started with a closed stderr has none to look at, or to write to."""
    command = f"{sys.executable} -m penstock embed docs --to index.db 2>&-"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.startswith("index.db: 3 files")
