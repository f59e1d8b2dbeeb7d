"""docs/oracles.md: every test that it names exists, and every case has a test or a reason."""

import ast
import functools
import re
from pathlib import Path

TESTS = Path(__file__).parent.parent
DOCUMENT = TESTS.parent / "docs" / "oracles.md"
TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


def rows():
    lines = DOCUMENT.read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]
    return [row for row in cells if row[0] != "case"]


@functools.cache
def functions(path):
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_case_says_what_it_means_and_has_a_test_or_a_reason():
    assert len(rows()) > 100
    wrong = [row for row in rows() if len(row) != 3 or not all(row) or (not TEST.search(row[2]) and len(row[2]) < 20)]
    assert wrong == []


def test_every_test_that_is_named_exists():
    missing = [
        f"{path}::{name}"
        for path, name in TEST.findall(DOCUMENT.read_text())
        if not (TESTS / path).exists() or name not in functions(TESTS / path)
    ]
    assert missing == []


def test_every_test_of_an_oracle_stands_in_the_table():
    named = set(TEST.findall(DOCUMENT.read_text()))
    mine = {
        (f"oracles/{path.name}", name)
        for path in Path(__file__).parent.glob("test_*.py")
        if path != Path(__file__)
        for name in functions(path)
        if name.startswith("test_")
    }
    assert mine <= named, mine - named
