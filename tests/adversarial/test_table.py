"""The table in README.md names every trap, and every test of one."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
TRAPS = {*map(str, range(1, 57)), "20a", "20b", "20c", "20d", "20e", "20f", "42a", "42b"}
ROW = re.compile(r"^\| (?P<trap>\d+[a-f]?) \| (?P<what>.+?) \| (?P<guard>.+) \|$")
NAME = re.compile(r"`(test_\w+)`")
DURABLE = {*map(str, range(43, 57))}
"""Traps whose tests stand in `tests/durable` or `tests/sinks`, where tests of other names guard them too."""
WORKERS = {"36", "37", "38", "39", "40", "41", "42", "42a"}
"""Traps whose tests stand in `tests/processes` or `tests/engines`, under other names."""


def rows():
    return [row for line in (HERE / "README.md").read_text().splitlines() if (row := ROW.match(line))]


def all_tests_in(*folders):
    """Their tests, by name, and the docstring of each."""
    return {
        node.name: ast.get_docstring(node) or ""
        for folder in folders
        for file in folder.glob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def trap_tests():
    found = all_tests_in(HERE, HERE.parent / "durable")
    return {name: said for name, said in found.items() if name.startswith("test_trap_")}


def trap_of(test):
    return test.removeprefix("test_trap_").split("_")[0].lstrip("0")


def test_every_trap_has_one_row():
    assert sorted(row["trap"] for row in rows()) == sorted(TRAPS)


def test_every_row_has_tests():
    assert [row["trap"] for row in rows() if not NAME.search(row["guard"])] == []


def test_the_table_names_every_test_under_its_trap():
    named = {name: row["trap"] for row in rows() for name in NAME.findall(row["guard"]) if "_trap_" in name}
    assert named == {name: trap_of(name) for name in trap_tests()}


def test_other_tests_that_guard_a_trap_exist():
    named = {(row["trap"], name) for row in rows() for name in NAME.findall(row["guard"]) if "_trap_" not in name}
    for traps, folders in ((DURABLE, ("durable", "sinks")), (WORKERS, ("processes", "engines"))):
        here = {(trap, name) for trap, name in named if trap in traps}
        assert {name for _, name in here} <= all_tests_in(*(HERE.parent / folder for folder in folders)).keys()
        named -= here
    assert named == set()


def test_every_docstring_names_its_trap():
    nameless = [name for name, said in trap_tests().items() if not said.startswith(f"Trap {trap_of(name)} (")]
    assert nameless == []


def test_acceptance_lines_name_tests_that_exist():
    section = (HERE / "README.md").read_text().partition("## Acceptance")[2]
    named = NAME.findall(section)
    assert len(named) >= 10
    assert set(named) <= all_tests_in(HERE).keys()
