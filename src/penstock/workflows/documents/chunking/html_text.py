"""HTML: its text, line for line as in the source, with a section for every heading."""

import re
from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any, cast

from lxml import etree

from penstock.workflows.documents.chunking.headings import Heading, by_headings
from penstock.workflows.documents.chunking.pieces import LONGEST, Checkpoint, Section, Text

_HEADING = re.compile(r"h[1-6]$")
_SPACE = re.compile(r"\s+")
_INLINE_TAGS = """
a abbr acronym b bdi bdo big cite code data del dfn em font i img ins kbd label mark q s samp small span strike strong
sub sup time tt u var wbr
"""
_INLINE = frozenset(_INLINE_TAGS.split())
_UNSEEN = frozenset(("script", "style", "template", "noscript"))

_PIECE = 1_000
_DEEPEST = 500
"""Nested elements after which the parser starts afresh: at every tag it goes through all that are open."""


def read(content: str, check: Checkpoint) -> tuple[Text, Iterator[Section]]:
    """Return the text that a reader sees, and its sections by heading.

    The parser reports elements while lines are fed to it, and builds no tree: a tree took 50 times the size of the
    file.
    """
    page = _Page()
    if content.strip():
        _feed(page, content, check)
    text = Text("\n".join(page.lines), page.numbers)
    return text, by_headings(page.headings, len(text.starts))


def _feed(page: "_Page", content: str, check: Checkpoint) -> None:
    """Feed a page its content, in pieces that end before a tag where possible: so each call of the parser is short."""
    parser = _parser(page)
    for line in StringIO(content):  # `splitlines` knows more ends of lines than a line feed
        page.line += 1
        start = 0
        while start < len(line):
            check()
            if page.depth > _DEEPEST:
                parser.close()
                parser = _parser(page)
            end = start + _PIECE
            if end < len(line):
                tag = line.rfind("<", start + 1, end)
                end = tag if tag > 0 else end
            parser.feed(line[start:end])
            start = end
    parser.close()


def _parser(page: "_Page") -> etree.HTMLParser:
    return etree.HTMLParser(target=cast("Any", page), huge_tree=True)


class _Page:
    """A target of the parser: takes the characters between two tags as one run.

    The parser hands over the end of a run when it meets the next tag: on the line that is being fed then.
    """

    def __init__(self) -> None:
        self.line = 0
        self.depth = 0
        self.lines = list[str]()
        self.numbers = list[int]()
        self.headings = list[Heading]()
        self._run = list[str]()
        self._run_ends = 0
        self._pieces = list[str]()
        self._number = 1
        self._unseen = 0
        self._preformatted = 0
        self._heading = 0

    def start(self, tag: str, _attributes: Mapping[str, str]) -> None:
        self._take()
        self.depth += 1
        if tag not in _INLINE:
            self._break()
        self._unseen += tag in _UNSEEN
        self._preformatted += tag == "pre"
        if _HEADING.match(tag):
            self._heading = len(self.lines) + 1

    def end(self, tag: str) -> None:
        self._take()
        self.depth -= 1
        if tag not in _INLINE:
            self._break()
        self._unseen -= tag in _UNSEEN
        self._preformatted -= tag == "pre"
        if _HEADING.match(tag) and 0 < self._heading <= len(self.lines):
            title = " ".join(self.lines[self._heading - 1 : self._heading + LONGEST]).strip(" ¶")[: 2 * LONGEST]
            self.headings.append((self._heading, int(tag[1]), title))
            self._heading = 0

    def data(self, data: str) -> None:
        self._run.append(data)
        self._run_ends = self.line

    def comment(self, _text: str) -> None:
        self._take()

    def close(self) -> None:
        self._take()
        self._break()

    def _take(self) -> None:
        run = "".join(self._run)
        self._run.clear()
        if self._unseen:
            return
        first = self._run_ends - run.count("\n")
        for number, part in enumerate(run.split("\n"), first):
            if number != self._number:
                self._finish_line()
                self._number = number
            if part:
                self._pieces.append(part if self._preformatted else _SPACE.sub(" ", part))

    def _finish_line(self) -> None:
        line = "".join(self._pieces)
        self._pieces.clear()
        if line.strip():
            self.lines.append(line.rstrip() if self._preformatted else line.strip())
            self.numbers.append(self._number)

    def _break(self) -> None:
        """Add a blank line where a block begins or ends, so that chunks are cut there."""
        self._finish_line()
        if self.lines and self.lines[-1]:
            self.lines.append("")
            self.numbers.append(self._number)
