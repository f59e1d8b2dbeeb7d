"""Every wrong implementation is rejected by the tests that are there to see it."""

import sys
from pathlib import Path

import pytest

from ..forking import Forking  # noqa: TID252 -- tests are no package to name

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from twins import TWINS  # noqa: E402 -- the plugin beside this file

TESTS = HERE.parent
FAILED = 1
ONE_PLACE = "asyncio-default or not asyncio and not uvloop"
QUICK = "coarse_clock"


@pytest.fixture(scope="module")
def run_pytest():
    """What starts pytest in milliseconds, with nothing of penstock imported that tests import by themselves."""
    env = {"PYTHONPATH": str(HERE), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    forking = Forking("pytest", "--version", imports=["penstock.streams", "penstock.testing", "hypothesis"], env=env)
    yield lambda *arguments, **more: forking(*arguments, cwd=TESTS.parent, env=env | more)
    forking.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.quick) if name == QUICK else name for name in TWINS]
)
def test_the_suite_rejects(name, tmp_path, run_pytest):
    options = ["-x", "-q", "-p", "twins", "-k", ONE_PLACE]
    seen = tmp_path / "seen"
    done = run_pytest(*options, TESTS / TWINS[name].rejected_by, PENSTOCK_TWIN=name, PENSTOCK_TWIN_SEEN=str(seen))
    assert done.returncode == FAILED, f"{TWINS[name].wrong}: not seen\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert {line.split()[0] for line in seen.read_text().splitlines()} == {TWINS[name].seen_as}, done.stdout[-2000:]
