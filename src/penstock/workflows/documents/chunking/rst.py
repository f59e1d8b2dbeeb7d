"""reStructuredText: a section for every title, named by it and the titles above it."""

import re
from collections.abc import Iterator
from unicodedata import combining, east_asian_width

from penstock.workflows.documents.chunking.headings import Heading, by_headings
from penstock.workflows.documents.chunking.pieces import LONGEST, Checkpoint, Section, Text, unchecked

_RULE = re.compile(r"([!-/:-@[-`{-~])\1*$")
_SHORT = 4
"""A rule of fewer characters is text, unless a title fits it."""

_OPTION = r"(?:[-+][a-zA-Z0-9](?: ?{arg})?|(?:--|/)[a-zA-Z0-9][a-zA-Z0-9_-]*(?:[ =]{arg})?)".replace(
    "{arg}", "(?:[a-zA-Z][a-zA-Z0-9_-]*|<[^<>]+>)"
)
_OPTIONS = re.compile(rf"(?>{_OPTION})(?>, {_OPTION})*(  +|$)")
_FIELD = re.compile(r":(?![: ])(?:[^:\\]|\\.|:(?![ `]|$))*+:(?: +|$)")
_ENUMERATOR = re.compile(r"(\(?)([0-9]{1,9}|[a-zA-Z]|[ivxlcdm]{1,9}|[IVXLCDM]{1,9}|#)([).])(?: +|$)")
_MARKED = re.compile(r"(?:[-+*\u2022\u2023\u2043]|\||\.\.|__)(?: +|$)")
"""Begins an item, a line or an explicit construct: the indented lines below belong to it."""

_GRID = re.compile(r"\+-[-+]+-\+$")
_TABLE = re.compile(r"=+(?: +=+)+$")
_BORDER = re.compile(r"=+[ =]*$")
_LITERAL = re.compile(r"(?<!\\)(?:\\\\)*::$")
_INDENT = tuple(" \t\v\f")


def sections(text: Text, check: Checkpoint) -> Iterator[Section]:
    """Cut into sections by title; the levels are those in which the adornments first appear.

    It finds what docutils finds, with which the tests compare it. docutils itself takes time with the square of the
    number of sections or lists, and executes directives.
    """
    return by_headings(_titles(text.lines, check), len(text.starts))


def _titles(lines: list[str], check: Checkpoint = unchecked) -> Iterator[Heading]:
    """Give the titles, each on the level of its adornment; a title that would skip a level is none."""
    styles, level = list[str](), 0
    for line, style, title in _Blocks(lines).titles(check):
        found = styles.index(style) + 1 if style in styles else len(styles) + 1
        if found > level + 1:
            continue
        if found > len(styles):
            styles.append(style)
        level = found
        yield line, level, title[: 2 * LONGEST].strip()


class _Blocks:
    """Goes from block to block, as the state machine of docutils does on the outermost level: only there are titles.

    Indented lines belong to the block above, and are passed over.
    """

    def __init__(self, lines: list[str]) -> None:
        self._lines = [line.rstrip() for line in lines]
        self._at = 0

    def titles(self, check: Checkpoint) -> Iterator[tuple[int, str, str]]:
        """Give line, adornment and text of each title."""
        while self._at < len(self._lines):
            check()
            line = self._lines[self._at]
            if not line or line.startswith(_INDENT) or self._starts_block(line):
                self._at += 1
            elif line.startswith(">>>") and line[3:4] in ("", " "):
                self._pass_text(self._at)
            elif _GRID.match(line):
                self._pass_grid()
            elif _TABLE.match(line):
                self._pass_table()
            elif found := self._overlined(line) if _RULE.match(line) else self._text(line):
                yield found

    def _line(self, number: int) -> str:
        return self._lines[number] if number < len(self._lines) else ""

    def _starts_block(self, line: str) -> bool:
        if _MARKED.match(line) or _FIELD.match(line):
            return True
        if found := _OPTIONS.match(line):
            return found.end() < len(line) or self._is_indented_below()
        return self._is_item(line)

    def _is_indented_below(self) -> bool:
        below = self._at + 1
        while below < len(self._lines) and not self._lines[below]:
            below += 1
        return self._line(below).startswith(_INDENT)

    def _is_item(self, line: str) -> bool:
        """Whether the line is an item of an enumeration: it is not, if the line below continues its text."""
        found = _ENUMERATOR.match(line)
        if not found or (found[1] and found[3] == "."):
            return False
        below = self._line(self._at + 1)
        return not below or below.startswith((*_INDENT, *_followers(*found.groups())))

    def _pass_text(self, number: int) -> None:
        """Go to the blank line behind a block."""
        while self._line(number):
            number += 1
        self._at = number

    def _pass_grid(self) -> None:
        while self._line(self._at).startswith(("+", "|")):
            self._at += 1

    def _pass_table(self) -> None:
        """Go behind its second border, or its first if a blank line or one shorter than its top follows."""
        top, borders = self._at, 0
        last = len(self._lines) - 1
        for number in range(top + 1, len(self._lines)):
            if not _BORDER.match(self._lines[number]):
                continue
            self._at = number + 1
            borders += 1
            blank = number == last or not self._lines[number + 1]
            if borders == 2 or blank or len(self._lines[number]) != len(self._lines[top]):  # noqa: PLR2004 -- its top not counted
                return
        if not borders:
            self._at = len(self._lines)

    def _overlined(self, rule: str) -> tuple[int, str, str] | None:
        """Return a title between two rules, if `rule` is the first of them."""
        start, text, under = self._at, self._line(self._at + 1), self._line(self._at + 2)
        if not text or _RULE.match(text):
            self._at += 2 if text else 1
        elif under == rule and (len(rule) >= _SHORT or _columns(text) <= len(rule)):
            self._at += 3
            return start + 1, rule[0] * 2, text
        else:
            self._at += 3
        return None if len(rule) >= _SHORT else self._text_at(start)

    def _text_at(self, start: int) -> tuple[int, str, str] | None:
        self._at = start
        return self._text(self._lines[start])

    def _text(self, line: str) -> tuple[int, str, str] | None:
        """Pass a paragraph; return a title if a rule stands under its first line."""
        start, under = self._at, self._line(self._at + 1)
        if under.startswith(_INDENT):
            self._at += 1
        elif _RULE.match(under) and (len(under) >= _SHORT or _columns(line) <= len(under)):
            self._at += 2
            return start + 1, under[0], line
        else:
            self._pass_paragraph()
        return None

    def _pass_paragraph(self) -> None:
        """Go behind the paragraph, and behind quoted lines that it announces."""
        self._at += 1
        while self._line(self._at) and not self._line(self._at).startswith(_INDENT):
            self._at += 1
        if not _LITERAL.search(self._lines[self._at - 1][-LONGEST:]):
            return
        while self._at < len(self._lines) and not self._lines[self._at]:
            self._at += 1
        quote = self._line(self._at)[:1]
        if quote and _RULE.match(quote):
            while self._line(self._at).startswith(quote):
                self._at += 1


def _followers(before: str, number: str, after: str) -> Iterator[str]:
    """Give the ways in which the next item of an enumeration may begin."""
    if number != "#":
        following = str(int(number) + 1) if number.isdigit() else chr(ord(number[0]) + 1)
        yield f"{before}{following}{after} "
    yield f"{before}#{after} "


def _columns(title: str) -> int:
    return sum(0 if combining(char) else 1 + (east_asian_width(char) in "WF") for char in title)
