"""The definitions in Python source: by a scan, or by a syntax tree, which takes six times as long.

The scan puts `""` for each string and nothing for a comment, and marks the lines on which strings, brackets and
backslashes go on. What is left are logical lines: a definition reaches from its line to the last one before the next
line that is not indented further. It is not sure of what few files have: an f-string in which its own quote stands,
tabs beside spaces, names and white space beyond ASCII, a backslash before a blank line.
"""

import ast
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from threading import Lock

from penstock.workflows.documents.chunking.pieces import Checkpoint

_HIDDEN = re.compile(
    r'''
    """ [^"\\]*+ (?: (?: \\. | "(?!"") ) [^"\\]*+ )*+ """
    | \'\'\' [^'\\]*+ (?: (?: \\. | '(?!'') ) [^'\\]*+ )*+ \'\'\'
    | "(?!"") [^"\\\n]*+ (?: \\. [^"\\\n]*+ )*+ "
    | '(?!'') [^'\\\n]*+ (?: \\. [^'\\\n]*+ )*+ '
    | \#[^\n]*+ | \\\n | ["'\\]
    ''',
    re.DOTALL | re.VERBOSE,
)
"""Strings, comments and backslashes; one character is a quote that nothing closes, or a backslash that joins none."""

_IN_STRING, _JOINED = "\1", "\2"
"""Begin a line that goes on with a string or a bracket; with what a backslash has joined."""

_DEEPEST = 100
"""Columns by which a body may be indented: a tree says what is deeper."""

_MARKS = _IN_STRING + _JOINED
_INNER = " \t" + _MARKS
_PLAIN = bytes([*map(ord, f"\n{_INNER}"), *range(0x20, 0x7F)])
_NO_BRACKETS = bytes(set(range(256)) - set(b"()[]{}\n"))
_CLOSING = {ord("("): ord(")"), ord("["): ord("]"), ord("{"): ord("}")}
_UNSURE = re.compile(rf"^(?:\ +\t|\t+\ )|{_JOINED}[ \t]*$", re.MULTILINE)
_DECORATOR = re.compile(r"[ \t]*@[ \t]*(\w?)")
_HEAD = re.compile(r"[ \t]*(?:async\b[ \t]*)?(?:def|(class))\b[ \t]*(\w*)")

# Parsing holds the interpreter lock anyway; two trees at once would only double the memory. It also guards the
# process-wide warning filters, which `catch_warnings` puts aside.
_parser = Lock()


@dataclass(frozen=True, slots=True)
class Definition:
    """A function or a class, from its first decorator to its last line (from 1, both included).

    Attributes:
        is_class: whether it is a class.
        inner: gives the definitions that are statements of its body.
    """

    name: str
    first: int
    last: int
    is_class: bool
    inner: "Callable[[], list[Definition]]"


class UnsureError(Exception):
    """The scan cannot tell."""


def parsed(content: str, check: Checkpoint) -> list[Definition]:
    """Return the definitions that are statements of the module, by a syntax tree; `check` is called before.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: it has none.
    """
    with _parser:
        check()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _of_statements(ast.parse(content).body)


def _of_statements(body: Iterable[ast.stmt]) -> list[Definition]:
    found = list[Definition]()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            inner = partial(_of_statements, node.body)
            found.append(
                Definition(node.name, first, node.end_lineno or node.lineno, isinstance(node, ast.ClassDef), inner)
            )
    return found


def scanned(content: str) -> list[Definition]:
    """Return the same by a scan, which finds them also where something else is no Python.

    Raises:
        UnsureError: it cannot tell; so does `inner` of a definition.
    """
    lines = _marked(content)
    statements = [number for number, line in enumerate(lines) if line and line[0] not in _INNER]
    return list(_of_lines(lines, statements, len(lines)))


def _marked(content: str) -> list[str]:
    """Return the lines without strings and comments; those begin with a mark that go on with what began before."""
    if _IN_STRING in content or _JOINED in content:
        raise UnsureError
    text = _HIDDEN.sub(_blanked, content).replace("\f\n", "\n")
    plain = text.encode("ascii", "replace")
    if not text.isascii() or plain.translate(None, _PLAIN) or _UNSURE.search(text):
        raise UnsureError
    lines, expected = text.split("\n"), list[int]()
    for number, brackets in enumerate(_brackets(plain)):
        if expected and (line := lines[number]):
            lines[number] = _IN_STRING + line
        for bracket in brackets:
            if bracket in _CLOSING:
                expected.append(_CLOSING[bracket])
            elif not expected or expected.pop() != bracket:
                raise UnsureError
    if expected:
        raise UnsureError
    return lines


def _blanked(hidden: re.Match[str]) -> str:
    found = hidden[0]
    if found[0] == "#":
        return ""
    if found == "\\\n":
        return f"\n{_JOINED}"
    if len(found) == 1 or ("{" in found and _is_cut(hidden)):
        raise UnsureError
    return '""' + f"\n{_IN_STRING}" * found.count("\n")


def _is_cut(string: re.Match[str]) -> bool:
    """Whether this is part of an f-string: one of its fields is open, so that what ends it is a string in the field."""
    before = string.string[max(0, string.start() - 2) : string.start()].lower().rstrip("r")[-1:]
    if before not in {"f", "t"}:
        return False
    depth = 0
    for brace in re.findall("[{}]", string[0]):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return True
    return depth > 0


def _brackets(text: bytes) -> list[bytes]:
    """Return the brackets of each line; most of those that are closed on it are left out."""
    text = text.translate(None, _NO_BRACKETS)
    for _ in range(4):
        text = text.replace(b"()", b"").replace(b"[]", b"").replace(b"{}", b"")
    return text.split(b"\n")


def _of_lines(lines: list[str], statements: Sequence[int], end: int) -> Iterator[Definition]:
    """Give the definitions among the statements of a body, which begin at these lines and end before line `end`."""
    first: int | None = None
    for number, following in pairwise([*statements, end]):
        line = lines[number]
        if decorator := _DECORATOR.match(line):
            if not decorator[1]:  # a tree has the line of what stands in its brackets
                raise UnsureError
            first = number if first is None else first
        elif head := _HEAD.match(line):
            if not head[2]:
                raise UnsureError
            last = following - 1
            while not lines[last].strip():
                last -= 1
            inner = partial(_of_body, lines, number, last)
            yield Definition(head[2], (number if first is None else first) + 1, last + 1, head[1] is not None, inner)
            first = None
        elif first is not None or line.strip() == "async":
            raise UnsureError
    if first is not None:
        raise UnsureError


def _of_body(lines: list[str], head: int, last: int) -> list[Definition]:
    """Return the definitions that are statements of the body that begins behind the line `head` and ends at `last`."""
    begun = [number for number in range(head + 1, last + 1) if lines[number].strip() and lines[number][0] not in _MARKS]
    if not begun:
        return []
    margin = len(lines[begun[0]]) - len(lines[begun[0]].lstrip())
    if margin > _DEEPEST:
        raise UnsureError
    statements = [number for number in begun if lines[number][margin : margin + 1].strip()]
    return list(_of_lines(lines, statements, last + 1))
