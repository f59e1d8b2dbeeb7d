"""Python: a section for every top-level definition, and for the code between them."""

import ast
import re
import warnings
from collections.abc import Iterator
from itertools import islice
from threading import Lock

from penstock.workflows.documents.chunking import plain
from penstock.workflows.documents.chunking.pieces import SIZE, Checkpoint, Section, Text, packed, shortened

MARK = "."
LARGEST = 1_000_000
# A syntax tree takes up to 1 KB for each word: a 1 MB table of numbers took 490 MB.
MOST_WORDS_AND_SIGNS = 200_000

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

# Parsing holds the interpreter lock anyway; two trees at once would only double the memory. It also guards the
# process-wide warning filters, which `catch_warnings` puts aside.
_parser = Lock()


def sections(text: Text, check: Checkpoint) -> list[Section]:
    """Cut into sections by definition, a class larger than a chunk by its methods; as plain text if it is no Python.

    Neighbouring parts of such a class stay together as far as they fit into a chunk.
    """
    if len(text.content) > LARGEST or _is_dense(text.content):
        return plain.sections(text, check)
    with _parser:
        check()
        try:
            tree = _parse(text.content)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return plain.sections(text, check)
        return list(_sections(text, text.lines, tree.body, "", Section(1, len(text.starts))))


def _is_dense(content: str) -> bool:
    if len(content) <= MOST_WORDS_AND_SIGNS:
        return False
    return next(islice(re.finditer(r"\w+|[^\w\s]", content), MOST_WORDS_AND_SIGNS, None), None) is not None


def _parse(content: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(content)


def _sections(text: Text, lines: list[str], body: list[ast.stmt], owner: str, whole: Section) -> Iterator[Section]:
    """Split `whole`, the lines of `body`, into its definitions, named after `owner`, and the rest."""
    reached = whole.first
    for node in body:
        if not isinstance(node, Definition):
            continue
        first, last = max(reached, _first_line(node, lines)), node.end_lineno or node.lineno
        if last < first:
            continue
        if first > reached:
            yield Section(reached, first - 1, owner)
        yield from _definition(text, lines, node, owner, Section(first, last))
        reached = last + 1
    if reached <= whole.last:
        yield Section(reached, whole.last, owner)


def _definition(text: Text, lines: list[str], node: Definition, owner: str, whole: Section) -> Iterator[Section]:
    name = shortened(f"{owner}{MARK}{shortened(node.name)}" if owner else shortened(node.name), MARK)
    start, stop = text.span(whole)
    if isinstance(node, ast.ClassDef) and stop - start > SIZE:
        yield from packed(text, _sections(text, lines, node.body, name, whole), MARK, least=SIZE)
    else:
        yield Section(whole.first, whole.last, name)


def _first_line(node: Definition, lines: list[str]) -> int:
    """Return the line of the first decorator, or of the comment right above."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    while first > 1 and lines[first - 2].lstrip().startswith("#"):
        first -= 1
    return first
