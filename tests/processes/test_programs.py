"""Programs that run worker processes: their main module, signals, and what is left when they end or are killed."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest

from . import programs
from .work import alive

pytestmark = pytest.mark.slow


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the kernel kills workers on Linux")


@pytest.fixture
def start(tmp_path):
    """Start a program, in a session of its own."""
    started = []

    def begin(program, *flags):
        path = tmp_path / "program.py"
        path.write_text(program)
        arguments = ["-c", program] if "-c" in flags else [str(path)]
        started.append(
            subprocess.Popen(
                [sys.executable, "-W", "error", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=tmp_path,
                start_new_session=True,
            )
        )
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_classes_of_the_main_module_stay_the_same_and_its_guard_is_false_in_workers(start):
    out, err = start(programs.GUARDED).communicate(timeout=60)
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == "imported as __main__"
    assert set(lines) == {
        "imported as __main__",
        "imported as __mp_main__",
        str([(True, n + 1) for n in range(5)]),
        "True True 8",
    }


def test_a_program_without_a_guard_is_told_so_and_starts_no_more_workers(start):
    """No fork bomb: also where failures are skipped."""
    process = start(programs.UNGUARDED)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'under `if __name__ == "__main__":`' in err
    assert "MisuseError: the main module of the program cannot be imported in a worker" in err
    assert 2 <= out.count("running") <= 1 + os.cpu_count()


def test_a_function_under_the_guard_is_not_there_and_that_is_said(start):
    _, err = start(programs.DEFINED_UNDER_THE_GUARD).communicate(timeout=60)
    assert "MisuseError: double cannot be loaded in a worker process: AttributeError" in err
    assert "what stands under the main guard is not there" in err


@pytest.mark.quick
def test_what_a_shell_or_a_notebook_defines_crosses_by_value(start):
    out, err = start(programs.INTERACTIVE, "-c").communicate(timeout=60)
    assert (out, err) == ("[(True, 3)]\n", "")


@pytest.mark.parametrize(
    ("program", "said"),
    [(programs.WITH_SYNC, "[0, 2, 4, 6, 8]\n"), (programs.NESTED, "[[2, 4], [6]]\n")],
    ids=["sync", "nested"],
)
def test_programs(start, program, said):
    out, err = start(program).communicate(timeout=60)
    assert (out, err) == (said, "")


def test_an_engine_works_in_a_child_that_was_forked(start):
    """A program of its own: the threads of a test run may hold locks when it forks."""
    out, err = start(programs.FORKED).communicate(timeout=60)
    assert (out, err) == ("[2]\n[4]\n0 [6]\n", "")


@LINUX
def test_when_the_driver_is_killed_nothing_is_left(start):
    """Also where a worker is in C code, and what it has started."""
    process = start(programs.BUSY)
    numbers = [int(number) for _ in range(2) for number in process.stdout.readline().split()]
    assert all(map(alive, numbers))
    process.kill()
    until(lambda: not any(map(alive, numbers)))
    assert process.communicate() == ("", "")


def test_ctrl_c_goes_to_the_driver_alone_and_ends_it_cleanly(start):
    process = start(programs.INTERRUPTED)
    worker = int(process.stdout.readline().split()[1])
    assert os.getpgid(worker) != process.pid
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("interrupted\n", "")
    assert not alive(worker)


def test_no_zombies_where_the_signals_of_children_are_ignored(start):
    out, err = start(programs.NO_CHILD_SIGNALS).communicate(timeout=60)
    assert (out, err) == ("[0, 1, 2, 4, 5]\n[]\n", "")


def test_an_engine_that_nobody_closes_does_not_keep_the_program(start):
    process = start(programs.LEFT_OPEN)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "8\n")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("nbclient") is None or find_spec("ipykernel") is None, reason="needs a notebook")
def test_the_cells_of_a_notebook():
    """What they define is nowhere but in the kernel; a class of theirs is the same one when it comes back."""
    command = [sys.executable, "-c", programs.NOTEBOOK, *programs.CELLS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "True 3\n[3]\n"), done.stderr
