"""Markdown: a section for every heading, known by the headings above it."""

import re
from collections.abc import Iterable, Iterator

from penstock.workflows.documents.chunking.pieces import Section, Text

MARK = " > "

_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*$")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^\n]*)$")
_PARAGRAPH = re.compile(r" {0,3}(?![-+*>|#\s]|\d{1,9}[.)][ \t])\S")

type Heading = tuple[int, int, str]
"""Line, level, title."""


def sections(text: Text) -> Iterator[Section]:
    """Sections by heading, as `Install > Linux`; what stands before the first heading has none."""
    return by_headings(_headings(text.lines), len(text.starts))


def by_headings(headings: Iterable[Heading], last: int) -> Iterator[Section]:
    """Sections of `last` lines that begin at their headings."""
    first, above = 1, list[tuple[int, str]]()
    for line, level, title in headings:
        if line > first:
            yield Section(first, line - 1, _trail(above))
        first = line
        above = [*(entry for entry in above if entry[0] < level), (level, title)]
    yield Section(first, last, _trail(above))


def _trail(above: list[tuple[int, str]]) -> str:
    return MARK.join(title for _, title in above if title)


def _headings(lines: list[str]) -> Iterator[Heading]:
    """ATX and setext headings; none inside a fenced block, none in the front matter."""
    fence, before = "", ""
    start = _front_matter(lines)
    for number, line in enumerate(lines[start:], start + 1):
        opened = _FENCE.match(line)
        if fence:
            if opened and opened[1].startswith(fence) and not opened[2].strip():
                fence = ""
            before = ""
            continue
        if opened and not (opened[1][0] == "`" and "`" in opened[2]):
            fence = opened[1]
        elif heading := _ATX.match(line):
            yield number, len(heading[1]), (heading[2] or "").strip()
        elif (under := _SETEXT.match(line)) and _PARAGRAPH.match(before):
            yield number - 1, 1 if under[1][0] == "=" else 2, before.strip()
        else:
            before = line
            continue
        before = ""


def _front_matter(lines: list[str]) -> int:
    """How many lines the `---` block at the very beginning takes."""
    if lines[0].rstrip() != "---":
        return 0
    return next((number for number, line in enumerate(lines[1:], 2) if line.rstrip() in ("---", "...")), 0)
