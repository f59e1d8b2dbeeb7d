"""Running the real command line."""

import asyncio
import json
import os
import subprocess
import sys

import pytest

from penstock.workflows import embed

from ..forking import Forking  # noqa: TID252 -- tests are no package to name
from ..index_rows import rows_of  # noqa: TID252 -- as above

BOUND = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
"""Puts a command under the permissions that root ignores."""


class Done:
    """A command that has ended: without a traceback, whatever it was given."""

    def __init__(self, process):
        self.code, self.out, self.err = process.returncode, process.stdout, process.stderr
        assert "Traceback" not in self.err
        assert "Warning" not in self.err

    @property
    def json(self):
        """All of stdout, as one document."""
        return json.loads(self.out)


USED = "penstock.cli.*", "penstock.durable.*", "penstock.sinks.*", "penstock.workflows.*", "httpx", "rich.table"
"""What the commands import."""


@pytest.fixture(scope="session")
def forking():
    """What starts `penstock` in milliseconds."""
    forking = Forking(
        "penstock", "embed --help", imports=USED, options=["-W", "always"], env={"OPENBLAS_NUM_THREADS": "1"}
    )
    yield forking
    forking.close()


@pytest.fixture
def penstock(tmp_path, forking):
    """A function that runs `penstock` with its arguments in an empty directory.

    With options for `subprocess.run` it is started from the beginning.
    """

    def run(*arguments, prefix=(), **options):
        if not prefix and not options:
            return Done(forking(*map(str, arguments), cwd=tmp_path))
        command = [*prefix, sys.executable, "-W", "always", "-m", "penstock", *map(str, arguments)]
        options = {"cwd": tmp_path, "capture_output": True, "text": True, "errors": "replace"} | options
        return Done(subprocess.run(command, check=False, **options))

    return run


@pytest.fixture
def bound_penstock(penstock):
    """`penstock` under the permissions that root ignores."""
    return lambda *arguments, **options: penstock(*arguments, prefix=BOUND, **options)


@pytest.fixture
def stored(tmp_path):
    """A function that gives the rows of an index as anybody may read them, without their ids."""
    return lambda path=tmp_path / "index.db": rows_of(path)


@pytest.fixture
def indexed(tmp_path):
    """A function that indexes documents as the command does, without waiting for another process."""
    return lambda *paths: asyncio.run(embed(paths, tmp_path / "index.db"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", place], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", place], check=True)


def make_room(disk):
    """Give a small disk 100 MB."""
    subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)


@pytest.fixture
def docs(tmp_path):
    """Three documents."""
    root = tmp_path / "docs"
    root.mkdir()
    (root / "gzip.py").write_text('def compress(data):\n    """Compress bytes in one shot."""\n')
    (root / "shell.md").write_text("# Arguments\n\nHow the command line is parsed.\n")
    (root / "note.txt").write_text("C++ is a language.\n")
    return root


class Started:
    """A command that runs."""

    def __init__(self, command, **options):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        self._told = ""

    def wait_for(self, words):
        """Read stderr until a line with these words."""
        for line in self.process.stderr:
            self._told += line
            if words in line:
                return
        pytest.fail(f"ended with {self.process.wait()} and never said {words!r}: {self._told}")

    def finish(self):
        """Wait for the end."""
        out, err = self.process.communicate()
        return Done(subprocess.CompletedProcess(self.process.args, self.process.returncode, out, self._told + err))


@pytest.fixture
def started_penstock(tmp_path):
    """A function that starts `penstock` with its arguments in an empty directory."""
    started = []

    def start(*arguments):
        started.append(Started([sys.executable, "-m", "penstock", *map(str, arguments)], cwd=tmp_path))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()
