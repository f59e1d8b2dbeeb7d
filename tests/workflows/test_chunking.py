"""Chunks: about 1,000 characters, never across a border, with exact lines."""

import random
import warnings

import pytest

from penstock.workflows.documents.chunking import split
from penstock.workflows.documents.chunking.pieces import LEAST, LONGEST, OVERLAP, SIZE

BODY = "word " * 60
"""300 characters: no section that has it is put together with its neighbour."""


def outline(name, text):
    return [(chunk.first_line, chunk.last_line, chunk.heading) for chunk in split(name, text)]


def prose(seed, paragraphs):
    pick = random.Random(seed)
    return "\n\n".join(
        "\n".join(
            " ".join("x" * pick.randint(1, 12) for _ in range(pick.randint(1, 30))) for _ in range(pick.randint(1, 9))
        )
        for _ in range(paragraphs)
    )


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.rst", "a.py", "a.unknown"])
@pytest.mark.parametrize("seed", range(5))
def test_the_lines_of_a_chunk_are_those_it_stands_on(name, seed):
    text = prose(seed, 60)
    lines = text.split("\n")
    chunks = split(name, text)
    assert len(chunks) > 5
    for chunk in chunks:
        assert chunk.text in "\n".join(lines[chunk.first_line - 1 : chunk.last_line])
        assert chunk.text.split("\n")[0] in lines[chunk.first_line - 1]
        assert chunk.text.split("\n")[-1] in lines[chunk.last_line - 1]


@pytest.mark.parametrize(
    "text",
    [
        prose(1, 80),
        "".join(f"{n:05}" for n in range(4_000)),
        "".join(f"word{n} " for n in range(3_000)),
        "".join(f"line {n}\n" for n in range(3_000)),
        "".join(f"{'p' * 200} {n}\n\n" for n in range(100)),
    ],
    ids=["prose", "no space", "words", "lines", "paragraphs"],
)
def test_chunks_are_of_bounded_size_and_overlap_and_leave_nothing_out(text):
    chunks = split("a.txt", text)
    reached = 0
    for chunk in chunks:
        assert SIZE // 3 < len(chunk.text) <= SIZE + OVERLAP or chunk is chunks[-1]
        start = text.index(chunk.text, max(0, reached - OVERLAP - 1))
        assert text[reached:start].strip() == ""
        reached = start + len(chunk.text)
    assert text[reached:].strip() == ""
    overlaps = sum(len(chunk.text) for chunk in chunks) - len(text.strip())
    assert overlaps > 0


def test_a_cut_is_made_at_a_paragraph_where_that_can_be():
    chunks = split("a.txt", "\n\n".join("word " * 60 + f"end{n}." for n in range(8)))
    assert [chunk.text[-5:] for chunk in chunks] == ["end2.", "end4.", "end7."]
    assert all(chunk.text.startswith("word") for chunk in chunks)


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.rst", "a.py", "a.html"])
@pytest.mark.parametrize("text", ["", "\n", " \n\t\n "])
def test_nothing_gives_no_chunk(name, text):
    assert split(name, text) == []


def test_line_ends_of_every_kind_count_as_one():
    for end in ("\r\n", "\r", "\n"):
        assert [chunk.last_line for chunk in split("a.txt", f"one{end}two{end}{end}four")] == [4]


def test_small_neighbours_are_put_together():
    """A thousand one-line functions are not a thousand vectors."""
    chunks = split("a.py", "".join(f"def f{n}(): pass\n" for n in range(1_000)))
    assert all(len(chunk.text) > LEAST for chunk in chunks[:-1])
    assert chunks[0].heading.startswith("f0, f1, f2, ")
    assert all("def f" in chunk.text and len(chunk.heading) <= LONGEST for chunk in chunks)
    assert "".join(chunk.text for chunk in chunks).count("def f") == 1_000


# Python

MODULE = f'''"""{BODY}"""

import os


# about f
@decorated
def f():
    """{BODY}"""


class Small:
    """{BODY}"""

    def method(self):
        pass


class Large:
    """{BODY}"""

    limit = 1

    def first(self):
        return """{BODY}{BODY}"""

    async def second(self):
        return """{BODY}"""

    def third(self):
        """{BODY}"""

    class Inner:
        """{BODY}"""


LAST = """{BODY}"""
'''


def test_python_is_cut_at_definitions_and_large_classes_at_methods():
    assert outline("a.py", MODULE) == [
        (1, 3, ""),
        (6, 9, "f"),
        (12, 16, "Small"),
        (19, 25, "Large.first"),
        (27, 31, "Large.second, third"),
        (33, 34, "Large.Inner"),
        (37, 37, ""),
    ]


def test_a_large_function_is_several_chunks_under_its_name():
    text = "def f():\n" + "".join(f"    step({n})  # {'x' * 40}\n" for n in range(100))
    chunks = split("a.py", text)
    assert len(chunks) > 4
    assert {chunk.heading for chunk in chunks} == {"f"}


def test_a_form_feed_is_no_line_of_python():
    """Lines are those of the compiler; `str.splitlines` counts more."""
    text = f'x = 1\n\x0c\n\x1c\ndef f():\n    """{BODY}"""\n'
    with_separator = f'x = "\x85\u2028"\n\ndef f():\n    """{BODY}"""\n'
    assert outline("a.py", text.replace("\x1c", ""))[-1] == (1, 5, "f")
    assert outline("a.py", with_separator)[-1] == (1, 4, "f")
    assert split("a.py", with_separator)[-1].text.count("\n") == 3


@pytest.mark.parametrize(
    "text",
    [
        "def f(:\n  pass\n" + BODY,
        "print 'two'\n" + BODY,
        "x = '\\ud800'\n\tif" + BODY,
        "(" * 5_000,
        "x = " + "-" * 100_000 + "1",
        "x = [" + "[]," * 100_000 + "]",
        "x" + "()" * 100_000,
    ],
    ids=["syntax", "python 2", "indent", "brackets", "depth", "lists", "calls"],
)
def test_what_does_not_parse_is_plain_text(text):
    assert split("a.py", text)[0].heading == ""
    assert "".join(chunk.text for chunk in split("a.py", text))[:20] == text[:20]


@pytest.mark.parametrize(
    "text",
    ["# comment\n" * 110_000 + "def f():\n    pass\n", "x = [" + "1, " * 100_001 + "]\ndef f():\n    pass\n"],
    ids=["over 1 MB", "over 100,000 words"],
)
def test_python_whose_tree_would_be_too_large_is_plain_text_where_it_takes_a_tree(text):
    assert "f" in {chunk.heading for chunk in split("a.py", text)}
    assert {chunk.heading for chunk in split("a.py", text + "x = f'{y['a']}'")} == {""}


def test_parsing_warns_of_nothing():
    """The warnings of files that are only read are nobody's concern; the filters stay as they were."""
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        split("a.py", "x = '\\d' is 1\nassert (1, 'a')\n1 if 2else 3\n")
    assert caught == []
    assert warnings.filters == before


# Markdown


def test_markdown_is_cut_at_headings_known_by_those_above():
    text = f"{BODY}\n\n# Top #\n{BODY}\n\n## Left\n{BODY}\n\n### Deep\n{BODY}\n\n## Right\n{BODY}\n"
    assert outline("a.md", text) == [
        (1, 1, ""),
        (3, 4, "Top"),
        (6, 7, "Top > Left"),
        (9, 10, "Top > Left > Deep"),
        (12, 13, "Top > Right"),
    ]


@pytest.mark.parametrize(
    ("title", "text"),
    [
        ("**Bold title**", "Bold title"),
        ("`open()` and _more_", "open() and more"),
        ("[Links](https://a.example/b_c) to", "Links to"),
        ("![logo](a.png) Name", "logo Name"),
        ("a \\* b &amp; c_d_e", "a * b & c_d_e"),
        ('<a name="x"></a>Anchored', "Anchored"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("[unknown]", "[unknown]"),
    ],
)
def test_a_title_of_markdown_reads_as_text(title, text):
    assert [chunk.heading for chunk in split("a.md", f"# {title}\n\nwords\n")] == [text]


def test_underlined_headings_count():
    text = f"Top\n===\n{BODY}\n\nSub\n---\n{BODY}\n"
    assert outline("a.md", text) == [(1, 3, "Top"), (5, 7, "Top > Sub")]


@pytest.mark.parametrize(
    "text",
    [
        f"```sh\n# no heading\n```\n{BODY}",
        f"~~~\n# no\n```\n# no\n~~~\n{BODY}",
        f"````\n```\n# no\n```\n````\n{BODY}",
        f"    # indented code\n{BODY}",
        f"---\ntitle: front matter\n---\n{BODY}",
        f"- item\n---\n{BODY}",
        f"\n---\n{BODY}",
        f"---\n# no\ntitle: front matter\n---\n{BODY}",
        f"<!--\n# hidden\n-->\n\n{BODY}",
        f"[a]: b\n===\n{BODY}",
        f"#hashtag\n{BODY}",
        f"####### seven\n{BODY}",
    ],
)
def test_what_only_looks_like_a_heading_is_none(text):
    assert {chunk.heading for chunk in split("a.md", text)} == {""}


def test_a_rule_at_the_top_is_no_front_matter():
    assert outline("a.md", f"---\n\n# Top\n{BODY}\n\n---\n{BODY}\n") == [(1, 7, "Top")]


def test_a_heading_in_a_quote_or_an_item_holds_to_its_end():
    text = f"# Top\n{BODY}\n\n> ## Quoted\n> {BODY}\n\n{BODY}\n\n- # Item\n\n  {BODY}\n\n{BODY}\n\n## Sub\n{BODY}\n"
    assert outline("a.md", text) == [
        (1, 2, "Top"),
        (4, 5, "Top > Quoted"),
        (7, 7, "Top"),
        (9, 11, "Top > Item"),
        (13, 13, "Top"),
        (15, 16, "Top > Sub"),
    ]


def test_a_heading_of_several_lines_is_one_title():
    assert outline("a.md", f"Top\n  of it\n===\n{BODY}\n") == [(1, 4, "Top of it")]


def test_a_fence_that_is_never_closed_ends_with_the_file():
    assert outline("a.md", f"# A\n```\n# no\n{BODY}") == [(1, 4, "A")]


# reStructuredText


def test_rst_is_cut_at_titles_with_levels_as_they_appear():
    text = f"=====\nTitle\n=====\n\n{BODY}\n\nSub\n---\n{BODY}\n\nDeep\n....\n{BODY}\n\nOther\n-----\n{BODY}\n"
    assert outline("a.rst", text) == [
        (1, 5, "Title"),
        (7, 9, "Title > Sub"),
        (11, 13, "Title > Sub > Deep"),
        (15, 17, "Title > Other"),
    ]


def test_a_title_may_be_longer_than_its_underline():
    assert outline("a.rst", f"Installation guide\n=================\n\n{BODY}\n") == [(1, 4, "Installation guide")]


def test_rules_and_short_underlines_are_no_titles():
    text = f"para\n\n----\n\n{BODY}\n\nlonger than its line\n---\n{BODY}\n\n::\n\n    code\n    ----\n"
    assert {chunk.heading for chunk in split("a.rst", text)} == {""}


# HTML

PAGE = f"""<!-- a comment -->
<!DOCTYPE html>
<html><head><title>The page</title>
<style>p {{ color: red }}</style>
<script>if (a < b) document.write("<h1>no</h1>")</script></head>
<body>
<h1>Top
  <b>bold</b></h1>
<p>caf&eacute; &amp; bar <!-- not
this -->over
two lines {BODY}
<p>unclosed<br>broken <a
  href="x">link</a>ed
<pre>
  kept
    as is
</pre>
<h2>Sub &para;</h2>
<div>{BODY}</div>
</body></html>
"""


def test_html_is_its_text_with_the_lines_of_the_source():
    top, sub = split("a.html", PAGE)
    assert (top.first_line, top.heading, sub.heading) == (3, "Top bold", "Top bold > Sub")
    assert (sub.first_line, sub.last_line) == (18, 19)
    assert top.last_line == 16
    shown = top.text.split("\n")
    assert shown[:5] == ["The page", "", "Top", "bold", ""]
    assert "café & bar" in shown
    assert "over" in shown
    assert "unclosed" in shown
    assert "broken link" not in shown
    assert "linked" in top.text.replace("broken ", "")
    assert "  kept\n    as is" in top.text
    for unseen in ("color", "document", "not", "comment", "href", "<"):
        assert unseen not in top.text.replace("not\nthis", "")


def test_only_a_line_feed_ends_a_line_of_html():
    (chunk,) = split("a.html", "<p>a\u2028b\x0cc\x85d</p>\r\n<p>second</p>")
    assert (chunk.first_line, chunk.last_line) == (1, 2)


def test_html_without_a_tree_is_flat_in_depth():
    (chunk,) = split("a.html", "<div>" * 5_000 + "deep" + "</div>" * 5_000)
    assert chunk.text == "deep"


@pytest.mark.parametrize(
    "text", ["<", "<a" * 1_000, "<!--" * 1_000, "a < b", "<p", "&#0;x", "<?pi ?>x", "]]>", "\x01x"]
)
def test_html_that_is_broken_does_not_fail(text):
    split("a.html", text)
