"""What tests of durable runs share."""

import tempfile
from pathlib import Path

import pytest

from .crafted import index_job, made

MEMORY = Path("/dev/shm")


@pytest.fixture
def memory(tmp_path):
    """A folder in memory, if there is one: for tests that write many files, where waiting for a disk proves nothing."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="penstock-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """The database of a run into a table, to be copied and changed."""
    return made(tmp_path_factory.mktemp("made") / "made.db")


@pytest.fixture(scope="session")
def index(tmp_path_factory):
    """That of a run into an index."""
    return made(tmp_path_factory.mktemp("made") / "index.db", index_job)
