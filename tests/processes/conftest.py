"""Tests with real worker processes: they find the functions of `work.py` by name, as those of any module."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent.parent))
