"""What tests of sinks share."""

import tempfile
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture
def memory(tmp_path):
    """A folder in memory, if there is one: for tests that write many files, where waiting for a disk proves nothing."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="penstock-") as folder:
        yield Path(folder)
