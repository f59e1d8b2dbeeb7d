"""What tests of durable runs share."""

import pytest

from .crafted import index_job, made


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """The database of a run into a table, to be copied and changed."""
    return made(tmp_path_factory.mktemp("made") / "made.db")


@pytest.fixture(scope="session")
def index(tmp_path_factory):
    """That of a run into an index."""
    return made(tmp_path_factory.mktemp("made") / "index.db", index_job)
