"""The scan that finds the definitions of Python source: where it is sure, a syntax tree says the same."""

import sysconfig
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from penstock.workflows.documents.chunking.definitions import UnsureError, parsed, scanned
from penstock.workflows.documents.chunking.pieces import unchecked

STATEMENTS = (
    "x = 1",
    "x = 'def f():' ; y = \"class A: #\"",
    'x = """\ndef f():\n  class A:\n"""',
    "x = r'''\n\\\\'\n@a\n''' + \"\\\"\"",
    "x = (1\n@ y\n)",
    "x = [1, (2,\n\n# ]\n3), {\n}]",
    "x = 1 + \\\n2",
    "x = 'a\\\nb'",
    "x = f'{y}' f\"{y['a']}\" rf'{{' f'}}'",
    "x = f'{y:{z}}'",
    "x = f'''{\ny\n}'''",
    'f(\n"""\n\n""")',
    "async with a: pass",
    "defined = classes = async_ = 1",
    "lambda: (yield)",
    "'''doc'''",
)
HEADS = (
    "def f():",
    "async  def g(a='):',\n  b=1):",
    "class A:",
    "class B(x['#'],\n\n y): # z",
    "if x:",
    "with x: # def",
)
DECORATORS = ("@a", "@ a.b(\n1)", "@a  # x")
BETWEEN = ("", "", "# comment", "        # deep", "\f", "#")


def tree(definitions):
    return [(each.name, each.first, each.last, each.is_class, tree(each.inner())) for each in definitions]


@st.composite
def bodies(draw, depth=0):
    """Give lines of statements at column 0."""
    lines = []
    for _ in range(draw(st.integers(1, 3))):
        lines += [draw(st.sampled_from(BETWEEN)) for _ in range(draw(st.integers(0, 2)))]
        if depth == 3 or draw(st.booleans()):
            lines.append(draw(st.sampled_from(STATEMENTS)))
            continue
        head = draw(st.sampled_from(HEADS))
        if head.startswith(("def", "async", "class")):
            lines += draw(st.lists(st.sampled_from(DECORATORS), max_size=2))
        lines.append(head)
        if head.endswith(":") and draw(st.booleans()):
            lines[-1] += " x; y = '''\n'''"
            continue
        margin = draw(st.sampled_from((" ", "    ", "\t")))
        lines += [f"{margin}{line}" if line.strip() else line for line in draw(bodies(depth + 1))]
    return lines


@settings(max_examples=150, deadline=None)
@given(bodies())
def test_a_scan_finds_what_a_tree_has(lines):
    text = "\n".join(lines)
    try:
        wanted = tree(parsed(text, unchecked))
    except SyntaxError:
        assume(False)
    try:
        found = tree(scanned(text))
    except UnsureError:
        assume(False)
    assert found == wanted


@pytest.mark.slow
def test_a_scan_finds_what_a_tree_has_in_the_standard_library():
    """And it is sure of nearly all files: else it saves nothing."""
    unsure, paths = [], sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    for path in paths:
        text = path.read_text(errors="replace")
        try:
            assert tree(scanned(text)) == tree(parsed(text, unchecked)), path
        except UnsureError:
            unsure.append(path.name)
    assert len(unsure) < len(paths) / 20, unsure


@pytest.mark.parametrize(
    "text",
    [
        "x = f'{y['def']}'\n",
        "x = f'}}{y:{z['a']}'\n",
        "@(\na)\ndef f(): pass\n",
        "if x:\n \tdef f(): pass\n",
        "def \N{LATIN SMALL LETTER E WITH ACUTE}(): pass\n",
        "x = 1 + \\\n\ndef f(): pass\n",
        "def \\\nf(): pass\n",
        "async \\\ndef f(): pass\n",
        "x = '\n",
        'x = """\n',
        "x = (\n",
        "x = )\n",
        "x\1\n",
        "\fx = 1\n",
        "x \\ y\n",
        "@a\nx = 1\n",
        "@a\n",
    ],
)
def test_a_scan_says_of_what_it_is_not_sure(text):
    with pytest.raises(UnsureError):
        scanned(text)


def test_a_scan_is_not_sure_of_bodies_that_are_deep():
    outer = scanned(f"class A:\n{' ' * 200}def f(): pass\n")
    with pytest.raises(UnsureError):
        outer[0].inner()


def test_definitions_are_found_beside_what_is_no_python():
    assert tree(scanned("print 'two'\nclass A:\n    def f():\n      exec x\n   what\n"))[0][:3] == ("A", 2, 5)
