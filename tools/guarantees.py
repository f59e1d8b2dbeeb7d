# ruff: noqa: INP001, T201 -- a program that prints
"""Write into docs/guarantees.md which tests prove which promise; with `--check`, only say whether it is up to date.

A test names its promises at the beginning of its docstring ("P4: ..." or "P1, P3: ..."), or its module does for all.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock.testing import LOOPS, TASK_FACTORIES

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
DOCUMENT = ROOT / "docs" / "guarantees.md"
BEGIN, END = "<!-- tests: written by `make docs` -->\n", "<!-- end of tests -->\n"
PLACES = len(LOOPS) * len(TASK_FACTORIES)
HOME = "guarantees"
"""The folder whose tests all name a promise."""

NAMES = re.compile(r"(P\d+(?:, P\d+)*)[:.,]\s*(.*)", re.DOTALL)
PROMISE = re.compile(r"^\*\*(P\d+) (.+?)\.?\*\*", re.MULTILINE)


@dataclass(frozen=True)
class Test:
    """A test function, and the promises that it names."""

    path: Path
    name: str
    promises: tuple[str, ...]
    on_grid: bool


def named(docstring: str | None) -> tuple[str, ...]:
    """The promises at the beginning of a docstring."""
    found = NAMES.match(docstring or "")
    return tuple(found[1].split(", ")) if found else ()


def sentence(path: Path) -> str:
    """What a module says of itself, in its first paragraph, without the promise."""
    said = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0]
    found = NAMES.match(said)
    return " ".join((found[2] if found else said).split()).removesuffix(".")


def tests_of(path: Path, grid_folders: set[str]) -> Iterator[Test]:
    """The tests of a module."""
    tree = ast.parse(path.read_text())
    of_module = named(ast.get_docstring(tree))
    everywhere = not grid_folders.isdisjoint(path.relative_to(TESTS).parts[:-1])
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test_"):
            continue
        decorators = {word for each in node.decorator_list for word in re.findall(r"\w+", ast.unparse(each))}
        takes_run = "run" in {argument.arg for argument in node.args.args}
        promises = of_module + named(ast.get_docstring(node))
        on_grid = (everywhere or "grid" in decorators) and (isinstance(node, ast.AsyncFunctionDef) or takes_run)
        yield Test(path, node.name, promises, on_grid)


def all_tests() -> list[Test]:
    """The tests of every folder, by path."""
    folders = re.search(r"^GRID_FOLDERS = (\{.+\})$", (TESTS / "conftest.py").read_text(), re.MULTILINE)
    assert folders is not None
    grid_folders = ast.literal_eval(folders[1])
    return [test for path in sorted(TESTS.rglob("test_*.py")) for test in tests_of(path, grid_folders)]


def section(promise: str, title: str, tests: list[Test]) -> str:
    """What the document says of the tests of one promise: by file, with a sentence each."""
    lines = [f"**{promise} {title}**\n"]
    beside = []
    for path in dict.fromkeys(test.path for test in tests):
        link = f"[{path.relative_to(TESTS).as_posix()}](../{path.relative_to(ROOT).as_posix()})"
        if not path.stem.startswith(f"test_{promise.lower()}_"):
            beside.append(link)
            continue
        here = [test for test in tests if test.path == path]
        on_grid = sum(test.on_grid for test in here)
        elsewhere = f", {len(here) - on_grid} at one" if on_grid < len(here) else ""
        lines.append(f"- {link}: {sentence(path)}. {on_grid} tests at {PLACES} places{elsewhere}.")
    if beside:
        lines.append(f"- beside what they are about: {', '.join(beside)}.")
    return "\n".join(lines) + "\n"


def written(document: str, tests: list[Test]) -> str:
    """The document with the list of tests as it should be."""
    head, _, rest = document.partition(BEGIN)
    _, _, tail = rest.partition(END)
    sections = [
        section(promise, title, found)
        for promise, title in PROMISE.findall(head)
        if (found := [test for test in tests if promise in test.promises])
    ]
    return "\n".join([head + BEGIN, *sections, END + tail])


def main() -> int:
    """Write, or with `--check` compare; 1 if the document was out of date."""
    document = DOCUMENT.read_text()
    wanted = written(document, all_tests())
    if "--check" not in sys.argv:
        DOCUMENT.write_text(wanted)
        return 0
    if document == wanted:
        return 0
    print("docs/guarantees.md is out of date: run `make docs`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
