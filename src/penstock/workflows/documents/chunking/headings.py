"""Headings: the names of the parts of a document."""

from collections.abc import Iterable, Iterator

from penstock.workflows.documents.chunking.pieces import Section, shortened

MARK = " > "
type Heading = tuple[int, int, str]
"""Line, level, title; one without a title ends those of its level."""


def by_headings(headings: Iterable[Heading], last: int) -> Iterator[Section]:
    """Cut `last` lines into sections that begin at their headings."""
    first, above = 1, list[tuple[int, str]]()
    for line, level, title in headings:
        if line > last:
            break
        if line > first:
            yield Section(first, line - 1, _trail(above))
        first = line
        while above and above[-1][0] >= level:
            above.pop()
        above.append((level, title))
    yield Section(first, last, _trail(above))


def _trail(above: list[tuple[int, str]]) -> str:
    return shortened(MARK.join(shortened(title) for _, title in above if title), MARK)
