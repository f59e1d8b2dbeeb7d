"""Every wrong implementation is rejected by the tests that are there to see it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from twins import TWINS  # noqa: E402 -- the plugin beside this file

TESTS = HERE.parent
FAILED = 1
ONE_PLACE = "asyncio-default or not asyncio and not uvloop"


@pytest.mark.slow
@pytest.mark.parametrize("name", TWINS)
def test_the_suite_rejects(name, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "twins", "-k", ONE_PLACE, TESTS / TWINS[name].rejected_by],
        env=os.environ | {"PENSTOCK_TWIN": name, "PENSTOCK_TWIN_SEEN": str(tmp_path / "seen"), "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == FAILED, f"{TWINS[name].wrong}: not seen\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    seen = {line.split()[0] for line in (tmp_path / "seen").read_text().splitlines()}
    assert seen == {TWINS[name].seen_as}, done.stdout[-2000:]
