# ruff: noqa: SIM905, E501 -- lines and pieces of documents are read best in one string
"""Whatever a file holds: it is split in linear time, into chunks of bounded size that leave nothing out."""

import importlib.metadata
import time
from itertools import pairwise
from pathlib import Path

import pytest
from docutils import nodes
from docutils.core import publish_doctree
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from penstock.workflows.documents.chunking import markdown, rst, split
from penstock.workflows.documents.chunking.pieces import LONGEST, OVERLAP, SIZE, Text

pytestmark = pytest.mark.slow

KINDS = ("a.md", "a.rst", "a.html", "a.py", "a.txt")
QUIET = {
    "report_level": 5,
    "halt_level": 6,
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "_disable_config": True,
    "doctitle_xform": False,
}


def shown(tokens):
    """What a reader sees of a line."""
    breaks = {"softbreak": " ", "hardbreak": " "}
    return "".join("" if each.type == "html_inline" else breaks.get(each.type, each.content) for each in tokens)


def of_markdown(text):
    """Headings as its parser has them, with the text of their titles."""
    tokens = MarkdownIt("commonmark").parse(text, {"references": markdown._NoReferences()})
    return [
        (each.map[0] + 1, int(each.tag[1]), " ".join(shown(inline.children).split()))
        for each, inline in pairwise(tokens)
        if each.type == "heading_open"
    ]


def found_in_markdown(text):
    """Ours, on the level that they have in their quote or item; without what ends these."""
    found = [(line, (level - 1) % 6 + 1, title) for line, level, title in markdown._headings(Text(text))]
    return [each for each in found if each[2]]


def of_rst(text):
    """Titles as docutils has them."""
    document = publish_doctree(text, settings_overrides=QUIET)
    found = []
    for section in document.findall(nodes.section):
        above, level = section, 0
        while above is not document:
            above, level = above.parent, level + 1
        found.append((level, section[0].rawsource.strip()))
    return found


def found_in_rst(text):
    return [(level, title) for _, level, title in rst._titles(Text(text).lines)]


MARKDOWN_LINES = (
    "# a|## b #|text|===|---|> # q|> text|- # l|- item|  text|    code|```|~~~|<!--|-->|<div>|[a]: b|[a|*|1. # x||"
    "\t# t|   # s|**B**|<b>|> - # z|  - # y|***|     # v|- - a|-|--|1. - # p|10) a|# *a* `b`|# [a](b)|# ![a](b) <b>|**a**"
).split("|")
RST_LINES = (
    "Title\0=====\0-----\0---\0--\0=\0~~~~\0\0 ind\0- item\x001. item\x002. item\0(a) x\0i. x\0:field: x\0.. note::\0..\0::\0para::"
    "\0text\0> quoted\0*\0+---+\0| line\0== ==\0=== ===\0>>> x\0-a  opt\0-a\0--long\0__ a\0A longer title\0漢字\0....\0\\::\0`a`:"
).split("\0")


def documents(lines):
    return st.lists(st.sampled_from(lines), min_size=1, max_size=12).map("\n".join)


@given(documents(MARKDOWN_LINES))
@settings(deadline=None, max_examples=300)
def test_headings_of_markdown_are_those_of_its_parser(text):
    if not markdown._front_matter(text.split("\n")):
        assert found_in_markdown(text) == [each for each in of_markdown(text) if each[2]]


@given(documents(RST_LINES))
@settings(deadline=None, max_examples=300)
def test_titles_of_rst_are_those_of_docutils(text):
    assert found_in_rst(text) == of_rst(text)


def test_headings_of_real_documents_are_those_of_the_parsers():
    root = Path(__file__).parents[2]
    for path in [*root.glob("*.md"), *root.glob("docs/*.md")]:
        text = path.read_text(encoding="utf-8")
        assert found_in_markdown(text) == of_markdown(text), path
    described = [each.metadata for each in importlib.metadata.distributions()]
    for metadata in described:
        kind, text = metadata.get("Description-Content-Type", ""), metadata.get_payload()
        if "rst" in kind and len(text) < 30_000:
            assert found_in_rst(text) == of_rst(text), metadata["Name"]


PIECES = """word |<p>|<h1>|</h2>|<i>|# |===
|
|

|def f():
|class A:
|    pass
|<!--|-->|> |- |	|&amp;|<pre>|::|[|'''""".split("|")
ANYTHING = st.lists(
    st.sampled_from([*PIECES, " " * 400, "x" * 1_300, "\xa0", "\u2028", "\ufffd", "\x0c"]) | st.text(max_size=5),
    max_size=60,
).map("".join)


@given(st.sampled_from(KINDS), ANYTHING)
@settings(deadline=None, max_examples=400)
def test_chunks_are_bounded_and_not_blank_and_leave_nothing_out(name, text):
    chunks = split(name, text)
    for chunk in chunks:
        assert chunk.text.strip()
        assert len(chunk.text) <= SIZE + OVERLAP
        assert len(chunk.heading) <= LONGEST
    if name != "a.html":
        whole = text.replace("\r\n", "\n").replace("\r", "\n")
        reached = 0
        for chunk in chunks:
            start = whole.index(chunk.text, max(0, reached - OVERLAP))
            assert not whole[reached:start].strip()
            reached = start + len(chunk.text)
        assert not whole[reached:].strip()


def test_a_run_of_spaces_is_no_chunk():
    for text in ("a" + " " * 5_000 + "b", "a" + "\n" * 5_000 + "b", "a" + ("\n" + " " * 3_000) * 3 + "b"):
        assert [chunk.text[0] + chunk.text.strip()[-1] for chunk in split("a.txt", text)] in (
            ["aa", "bb"],
            ["aa", " b"],
        )


def seconds(name, text):
    began = time.process_time()
    split(name, text)
    return time.process_time() - began


HOSTILE = {
    "a.md": {
        "spaces in a heading": lambda n: "# a" + " " * n + "b\n",
        "hashes": lambda n: "# a" + " #" * n,
        "headings": lambda n: "# a\n" * (n // 8),
        "quotes": lambda n: ">" * n,
        "quotes in lines": lambda n: ("> " * 25 + "a\n") * (n // 100),
        "items": lambda n: "- a\n" * (n // 8),
        "titles with links": lambda n: ("# " + "[" * 200 + "\n") * (n // 200),
        "titles with stars": lambda n: ("# " + "*a_" * 70 + "\n") * (n // 200),
        "one paragraph": lambda n: "1a\n" * (n // 6),
        "underlines": lambda n: "a\n-\n" * (n // 8),
        "stars": lambda n: "*" * n,
        "items in each other": lambda n: "".join(" " * (2 * (k % 50)) + "- a\n" for k in range(n // 50)),
        "backticks": lambda n: "`" * n,
        "fences that grow": lambda n: "".join("`" * (3 + k) + "\n" for k in range(int((2 * n) ** 0.5))),
        "brackets": lambda n: "[" * n,
        "definitions": lambda n: "[a]: http://b 'c\n" * (n // 40),
        "a host of many letters": lambda n: "[a]: http://" + "é" * n,
        "tables": lambda n: "|---" * n + "\n" + "| a |\n" * (n // 20),
        "comments": lambda n: "<!--\n" * (n // 10),
        "a tag": lambda n: "<a " + "b=" * n,
    },
    "a.rst": {
        "titles": lambda n: "Title\n=====\n\n" * (n // 13),
        "overlines": lambda n: "=\na\n" * (n // 8),
        "tables": lambda n: "== ==\na\n" * (n // 8),
        "options": lambda n: "-a b, " * n,
        "fields": lambda n: ":\\a" * n,
        "literal": lambda n: "\\" * n + "::\n",
        "items": lambda n: "- a\n" * (n // 4),
    },
    "a.html": {
        "open and other closed": lambda n: "<i>" * (n // 4) + "</b>" * (n // 4),
        "divisions and closed paragraphs": lambda n: "<div>" * (n // 4) + "</p>" * (n // 4),
        "a heading without an end": lambda n: "<h1>a" + "</div>\n<div>b" * (n // 12),
        "comments": lambda n: "<!--" * n,
        "attributes": lambda n: "<a " + "".join(f"b{k}=c " for k in range(n // 4)) + ">",
        "script": lambda n: "<script>" + "</s" * n,
    },
    "a.py": {
        "brackets": lambda n: "[" * n,
        "lists in each other": lambda n: ("[" * 90 + "]" * 90 + ",\n") * (n // 180),
        "signs": lambda n: "x=" + "-" * n + "1",
        "calls": lambda n: "x" + "()" * n,
        "definitions": lambda n: "# a\ndef f(): pass\n" * (n // 18),
        "a long name": lambda n: f"class {'a' * n}:\n" + "  def f(self): pass\n" * (n // 20),
    },
    "a.txt": {
        "spaces": lambda n: "a" + " " * n + "a",
        "indented": lambda n: ("a\n" + " " * 3_000) * (n // 3_000),
        "blank lines": lambda n: "a" + "\n" * n + "a",
        "one word": lambda n: "a" * n,
    },
}


@pytest.mark.parametrize(("name", "what"), [(name, what) for name, kinds in HOSTILE.items() for what in kinds])
def test_splitting_takes_linear_time(name, what):
    """Four times the text takes about four times as long; with the square it would be sixteen.

    The best of two, since others use the processor too; what takes no time has none to compare.
    """
    small, large = (HOSTILE[name][what](n) for n in (30_000, 120_000))
    quick = max(0.01, min(seconds(name, small) for _ in range(2)))
    assert min(seconds(name, large) for _ in range(2)) < 9 * quick
