"""The fixtures of these tests, at work on tests that fail: one run of pytest for what must pass and what must not."""

import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

HERE = Path(__file__).parent

SUITE = """
import asyncio, threading, warnings
import pytest
from hypothesis import given, strategies
from penstock.testing import Clock, VirtualLoop

async def numbers():
    yield 1
    yield 2

kept = []

async def test_good_off_virtual_time(clock):
    await asyncio.sleep(3600)
    assert clock.now == 3600.0

@pytest.mark.real_time
async def test_good_off_real_time():
    assert not isinstance(asyncio.get_running_loop(), VirtualLoop)

def test_good_off_plain(run):
    assert run(asyncio.sleep(5, "result")) == "result"

@given(strategies.integers(0, 10))
async def test_good_off_given(seconds):
    await asyncio.sleep(seconds)
    assert asyncio.get_running_loop().time() == seconds

@pytest.mark.grid
async def test_good_grid(place):
    await asyncio.sleep(0)

@given(strategies.integers())
async def test_bad_given(number):
    await asyncio.sleep(1)
    assert number < 100

async def test_bad_assertion():
    assert False

async def test_bad_task():
    kept.append(asyncio.create_task(asyncio.sleep(60)))

async def test_bad_timer():
    asyncio.get_running_loop().call_later(60, print)

async def test_bad_generator():
    kept.append(numbers())
    await anext(kept[-1])

async def test_bad_deadlock():
    await asyncio.Event().wait()

async def test_bad_lost_exception():
    async def fail():
        raise ValueError("lost")
    await asyncio.wait([asyncio.create_task(fail())])

async def test_bad_never_awaited():
    asyncio.sleep(1)

async def test_bad_warning():
    warnings.warn("careless")

gate = threading.Event()

def test_bad_thread():
    kept.append(threading.Thread(target=gate.wait))
    kept[-1].start()

def test_good_off_end_of_the_thread():
    gate.set()
    kept[-1].join()

class Grumpy:
    def __init__(self):
        self.me = self
    def __del__(self):
        raise RuntimeError("in a destructor")

def test_bad_destructor():
    Grumpy()

def test_bad_open_file(tmp_path):
    open(tmp_path / "file", "w")
"""

GRID_SUITE = """
import asyncio

async def test_good_in_folder():
    await asyncio.sleep(1)

def test_good_run_in_folder(run):
    run(asyncio.sleep(1))

def test_good_off_in_folder():
    pass
"""

PYTEST = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None; "


def outcomes(folder, suites, before=""):
    """Run `suites`, by path, beside a copy of our conftest; return the outcomes of each test, and the output."""
    tests = folder / "tests"
    for path, text in suites.items():
        (tests / path).parent.mkdir(parents=True, exist_ok=True)
        (tests / path).write_text(text)
    shutil.copy(HERE / "conftest.py", tests)
    options = ["-c", HERE.parent / "pyproject.toml", "--rootdir", folder, "-q", "-rA", "--tb=no", tests]
    command = [sys.executable, "-c", before + PYTEST, *options]
    output = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False).stdout
    found = defaultdict(set)
    for outcome, name in re.findall(r"^(PASSED|FAILED|ERROR) .*::(\S+)", output, re.MULTILINE):
        found[name].add(outcome)
    return found, output


@pytest.mark.slow
def test_good_tests_pass_bad_tests_do_not_and_grid_folders_run_on_the_grid(tmp_path):
    """Each detector fails the test that it is there for, and no other."""
    pytest.importorskip("uvloop")
    found, output = outcomes(tmp_path, {"test_all.py": SUITE, "guarantees/test_grid.py": GRID_SUITE})
    places = [f"{loop}-{tasks}" for loop in ("asyncio", "uvloop") for tasks in ("default", "lazy", "eager")]
    on_grid = {f"test_good_{name}[{place}]" for name in ("grid", "in_folder", "run_in_folder") for place in places}
    good = {name for name in found if found[name] == {"PASSED"}}
    assert good == on_grid | set(re.findall(r"test_good_off_\w+", SUITE + GRID_SUITE)), output
    assert set(found) - good == set(re.findall(r"test_bad_\w+", SUITE)), output


@pytest.mark.slow
def test_without_uvloop_its_half_of_the_grid_is_skipped_with_the_reason(tmp_path):
    _, output = outcomes(tmp_path, {"adversarial/test_grid.py": GRID_SUITE}, WITHOUT_UVLOOP)
    assert "7 passed, 6 skipped" in output
    assert "uvloop is not installed" in output
