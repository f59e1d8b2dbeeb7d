"""docs/guarantees.md says which tests prove which promise, and every promise has some."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GRID = [f"P{number}" for number in range(1, 10)]
BESIDE = ["P10", "P11", "P12"]
"""Promises whose tests stand beside what they are about."""


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tool = load(ROOT / "tools" / "guarantees.py")


@pytest.fixture(scope="module")
def tests():
    return tool.all_tests()


def test_the_document_is_up_to_date(tests):
    document = tool.DOCUMENT.read_text()
    assert document == tool.written(document, tests), "run `make docs`"


def test_every_promise_stands_in_the_document_and_has_a_test_on_the_grid(tests):
    promised = [*GRID, *BESIDE]
    assert [promise for promise, _ in tool.PROMISE.findall(tool.DOCUMENT.read_text())] == [*promised, *promised]
    proven = {
        promise for test in tests if test.on_grid and test.path.parent.name == tool.HOME for promise in test.promises
    }
    assert proven >= set(GRID)
    assert {promise for test in tests for promise in test.promises} == set(promised)


def test_every_test_of_a_guarantee_names_it_and_stands_in_its_file(tests):
    wrong = [
        f"{test.path.name}::{test.name}"
        for test in tests
        if test.path.parent.name == tool.HOME and test.path.stem.split("_")[1].upper() not in test.promises
    ]
    assert wrong == []


def test_names_of_promises_are_read_from_docstrings():
    assert tool.named("P4: leaves nothing.") == ("P4",)
    assert tool.named("P1, P3, P5: all of it.") == ("P1", "P3", "P5")
    assert tool.named("P5.") == ("P5",)
    assert tool.named("P5, errors in time: what is handed on.") == ("P5",)
    assert tool.named("Trap 9: after `break` (P4).") == ()
    assert tool.named(None) == ()
