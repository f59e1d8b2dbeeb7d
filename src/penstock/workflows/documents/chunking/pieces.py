"""Cuts a text into chunks of about 1,000 characters that know their lines."""

import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from operator import add

SIZE = 1_000
OVERLAP = 150
LEAST = 200
"""A section with fewer characters is joined to its neighbour, if both fit into a chunk."""

LONGEST = 200
"""Characters of a title, and of a heading, which is a title with those above it."""

_BREAKS = ("\n\n", "\n", " ")
_INK = re.compile(r"\S")


type Checkpoint = Callable[[], None]
"""Called now and then while a document is split; ends that by raising."""


def unchecked() -> None:
    """Let it go on."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document, with its lines (from 1, both included)."""

    first_line: int
    last_line: int
    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class Section:
    """The part of a text from line `first` to line `last` (from 1, both included) under one heading."""

    first: int
    last: int
    heading: str = ""


class Text:
    """A text whose lines end with a line feed, with the places where they begin."""

    def __init__(self, content: str, numbers: Sequence[int] | None = None) -> None:
        """Take the content; `numbers` gives the number of each line in the source, if that is not its position."""
        self.content = content
        self.starts: array[int] = array("L", [0])
        self.starts.extend(accumulate(map(add, map(len, self.lines[:-1]), repeat(1))))
        self._numbers = numbers or range(1, len(self.starts) + 1)

    @property
    def lines(self) -> list[str]:
        """Return the lines, without their ends."""
        return self.content.split("\n")

    def number(self, offset: int) -> int:
        """Return the source line of the character at `offset`."""
        return self._numbers[bisect_right(self.starts, offset) - 1]

    def span(self, section: Section) -> tuple[int, int]:
        """Return where the section begins and ends, without blank lines round it and white space behind it."""
        start = self.starts[section.first - 1]
        stop = self.starts[section.last] if section.last < len(self.starts) else len(self.content)
        stop = start + len(self.content[start:stop].rstrip())
        return _line_of_ink(self.content, start, stop), stop


def packed(text: Text, sections: Iterable[Section], mark: str, least: int = LEAST) -> Iterator[Section]:
    """Join sections to at least `least` characters, as far as they fit into a chunk.

    `mark` joins a heading to its parent.
    """
    group, start, small = list[Section](), 0, True
    for section in sections:
        first, stop = text.span(section)
        if stop <= first:
            continue
        if group and (stop - start > SIZE or not (small or stop - first < least)):
            yield _together(group, mark)
            group = []
        if not group:
            start = first
        group.append(section)
        small = stop - start < least
    if group:
        yield _together(group, mark)


def _together(group: list[Section], mark: str) -> Section:
    """Join sections under the headings of all: `Reader.read, close` for `Reader`, `Reader.read` and `Reader.close`."""
    if len(group) == 1:
        return group[0]
    names = dict.fromkeys(section.heading for section in group if section.heading)
    above = {name.rpartition(mark)[0] for name in names}
    lowest = [name for name in names if name not in above]
    owners = {name.rpartition(mark)[0] for name in lowest}
    if len(owners) == 1 and (owner := owners.pop()):
        heading = f"{owner}{mark}{', '.join(name.rpartition(mark)[2] for name in lowest)}"
    else:
        heading = ", ".join(lowest)
    return Section(group[0].first, group[-1].last, shortened(heading))


def shortened(heading: str, mark: str = "") -> str:
    """Shorten `heading` to at most 200 characters: of titles joined by `mark`, the outer ones are dropped first."""
    while len(heading) > LONGEST and mark and mark in heading:
        heading = heading.partition(mark)[2]
    return heading if len(heading) <= LONGEST else f"{heading[: LONGEST - 1].rstrip()}…"


def cut(text: Text, sections: Iterable[Section]) -> Iterator[Chunk]:
    """Cut sections into chunks: a small one is one chunk, a large one several that overlap.

    No chunk crosses a border.
    """
    for section in sections:
        start, end = text.span(section)
        while start < end:
            stop = _stop(text.content, start, end)
            piece = text.content[start:stop].rstrip()
            yield Chunk(text.number(start), text.number(start + len(piece) - 1), section.heading, piece)
            start = end if stop == end else _line_of_ink(text.content, _resume(text.content, stop), end)


def _stop(content: str, start: int, end: int) -> int:
    """Return where the chunk from `start` ends: at the last paragraph, line or word that begins in its second half."""
    if end - start <= SIZE + OVERLAP:
        return end
    for mark in _BREAKS:
        found = content.rfind(mark, start + SIZE // 2, start + SIZE)
        if found >= 0:
            return found + len(mark)
    return start + SIZE


def _resume(content: str, stop: int) -> int:
    """Return where the chunk after `stop` begins: at the first line, else word, that begins within the overlap."""
    overlap = content[stop - OVERLAP : stop].rstrip()
    for mark in ("\n", " "):
        found = overlap.find(mark)
        if found >= 0:
            return stop - OVERLAP + found + 1
    return stop - OVERLAP


def _line_of_ink(content: str, start: int, stop: int) -> int:
    """Move `start` past blank lines, but not past a usual indentation of the line that follows."""
    ink = _INK.search(content, start, stop)
    if ink is None:
        return stop
    return max(start, content.rfind("\n", start, ink.start()) + 1, ink.start() - OVERLAP)
