"""reStructuredText: a section for every title, known by the titles above it."""

import re
from collections.abc import Iterator

from penstock.workflows.documents.chunking.markdown import Heading, by_headings
from penstock.workflows.documents.chunking.pieces import Section, Text

_RULE = re.compile(r"([!-/:-@[-`{-~])\1+\s*$")


def sections(text: Text) -> Iterator[Section]:
    """Sections by title; the levels are those in which the adornments first appear, as docutils has it."""
    return by_headings(_titles(text.lines), len(text.starts))


def _titles(lines: list[str]) -> Iterator[Heading]:
    styles = list[tuple[str, bool]]()
    rows = [line.rstrip() for line in lines]
    for number, (above, title, rule) in enumerate(zip(["", *rows], rows, rows[1:], strict=False), 1):
        if not _is_title(title, rule):
            continue
        over = above == rule
        if not over and (above or title[0].isspace()):
            continue
        style = (rule[0], over)
        if style not in styles:
            styles.append(style)
        yield number - over, styles.index(style) + 1, title.strip()


def _is_title(title: str, rule: str) -> bool:
    return bool(title) and _RULE.match(rule) is not None and len(rule) >= len(title) and not _RULE.match(title)
