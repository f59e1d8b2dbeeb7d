"""A run that is killed at any instant goes on by the same call: no finished step is called again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_run_survives_a_kill_before_and_after_a_write():
    """A sample of what `make kill-runs` does for each single write of the journal and of files."""
    program = Path(__file__).parent / "killed_runs.py"
    done = subprocess.run([sys.executable, program, "3::19"], capture_output=True, text=True, check=False)
    said = json.loads(done.stdout)
    assert said["wrong"] == {}
    assert (said["points"] >= 200, said["tried"] >= 9) == (True, True)
    assert done.returncode == 0
