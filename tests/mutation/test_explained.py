"""Every mutant that is explained as one that no test can kill still has its place in the source."""

import ast
import re
import tomllib
from pathlib import Path

import penstock

CORE = Path(penstock.__file__).parent / "core"
EXPLAINED = Path(__file__).with_name("explained.toml")


def groups():
    return tomllib.loads(EXPLAINED.read_text()).get("explained", [])


def test_every_explanation_says_why():
    assert all(group["why"].strip() and group["mutants"] for group in groups())


def test_no_mutant_is_explained_twice():
    mutants = [key for group in groups() for key in group["mutants"]]
    assert len(mutants) == len(set(mutants))


def test_the_lines_that_an_explained_mutant_changes_are_in_its_function():
    """`make mutate` checks more: that there is such a mutant, and that no test kills it."""
    for key in (key for group in groups() for key in group["mutants"]):
        module, function, old = re.fullmatch(r"(\w+)\.([\w.]*): (.*) => .*", key).groups()
        assert squeezed(old) in squeezed(text_of(module, function)), key


def squeezed(text):
    return "".join(text.split())


def text_of(module, function):
    source = (CORE / f"{module}.py").read_text()
    if not function:
        return source
    inside = [ast.parse(source)]
    for name in function.split("."):
        inside = [
            node
            for outer in inside
            for node in ast.iter_child_nodes(outer)
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
        ]
    return "\n".join(ast.get_source_segment(source, node) for node in inside)
