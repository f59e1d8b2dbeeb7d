"""Tests with real workers: they find the functions of `work.py` by name, as those of any module."""

import asyncio
from pathlib import Path

import pytest

from penstock.engines import Threads, processes

ENGINES = {"thread": lambda: Threads(2), "process": lambda: processes(2)}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent.parent))


@pytest.fixture(params=ENGINES)
def make(request):
    return ENGINES[request.param]


class Gates:
    """The files by which calls say that they have begun, and are let go on."""

    def __init__(self, folder):
        self.folder = folder

    def began(self):
        return {int(path.name.removeprefix("began-")) for path in self.folder.glob("began-*")}

    def open(self, *items):
        for item in items:
            (self.folder / f"go-{item}").touch()

    async def until(self, *items):
        while not self.began() >= set(items):  # noqa: ASYNC110 -- they are files
            await asyncio.sleep(0.002)


@pytest.fixture
def gates(tmp_path):
    return Gates(tmp_path)
