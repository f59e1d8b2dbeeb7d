"""What the tests of workflows share."""

import numpy as np
import pytest

from ..index_rows import rows_of  # noqa: TID252 -- tests are no package to name


class Fake:
    """An embedder with vectors of three numbers: the counts of a, b and c."""

    name = "fake"
    dimensions = 3

    def embed(self, texts):
        return np.array([[text.count(letter) for letter in "abc"] for text in texts], np.float32).reshape(-1, 3)


@pytest.fixture
def fake():
    return Fake()


@pytest.fixture
def rows():
    """A function that gives every row of an index as a reader of another connection sees it, without its ids."""
    return rows_of
