"""Python: a section for every top-level definition, and for the code between them."""

import re
from collections.abc import Iterator
from itertools import islice

from penstock.workflows.documents.chunking import plain
from penstock.workflows.documents.chunking.definitions import Definition, UnsureError, parsed, scanned
from penstock.workflows.documents.chunking.pieces import SIZE, Checkpoint, Section, Text, packed, shortened

MARK = "."
LARGEST = 1_000_000
# A syntax tree takes up to 1 KB for each word: a 1 MB table of numbers took 490 MB.
MOST_WORDS_AND_SIGNS = 200_000


def sections(text: Text, check: Checkpoint) -> list[Section]:
    """Cut into sections by definition, a class larger than a chunk by its methods; as plain text if none can be told.

    Neighbouring parts of such a class stay together as far as they fit into a chunk.
    """
    check()
    try:
        return _by(text, scanned(text.content))
    except UnsureError:
        if len(text.content) > LARGEST or _is_dense(text.content):
            return plain.sections(text, check)
    try:
        definitions = parsed(text.content, check)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return plain.sections(text, check)
    return _by(text, definitions)


def _by(text: Text, definitions: list[Definition]) -> list[Section]:
    return list(_sections(text, text.lines, definitions, "", Section(1, len(text.starts))))


def _is_dense(content: str) -> bool:
    if len(content) <= MOST_WORDS_AND_SIGNS:
        return False
    return next(islice(re.finditer(r"\w+|[^\w\s]", content), MOST_WORDS_AND_SIGNS, None), None) is not None


def _sections(
    text: Text, lines: list[str], definitions: list[Definition], owner: str, whole: Section
) -> Iterator[Section]:
    """Split `whole` into its definitions, named after `owner`, and the rest."""
    reached = whole.first
    for each in definitions:
        first, last = max(reached, _first_line(each, lines)), each.last
        if last < first:
            continue
        if first > reached:
            yield Section(reached, first - 1, owner)
        yield from _definition(text, lines, each, owner, Section(first, last))
        reached = last + 1
    if reached <= whole.last:
        yield Section(reached, whole.last, owner)


def _definition(text: Text, lines: list[str], each: Definition, owner: str, whole: Section) -> Iterator[Section]:
    name = shortened(f"{owner}{MARK}{shortened(each.name)}" if owner else shortened(each.name), MARK)
    start, stop = text.span(whole)
    if each.is_class and stop - start > SIZE:
        yield from packed(text, _sections(text, lines, each.inner(), name, whole), MARK, least=SIZE)
    else:
        yield Section(whole.first, whole.last, name)


def _first_line(each: Definition, lines: list[str]) -> int:
    """Return the line of the first decorator, or of the comment right above."""
    first = each.first
    while first > 1 and lines[first - 2].lstrip().startswith("#"):
        first -= 1
    return first
