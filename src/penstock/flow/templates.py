"""Texts with references in them, `${{ input.name }}`: filled in when a step is called. Nothing is evaluated."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast, override

from penstock.core.errors import PenstockError
from penstock.core.text import a, one_line
from penstock.flow.json_values import as_json

OPEN: Final = "${{"
_CLOSE: Final = "}}"
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<word>[\w-]+)|(?P<dot>\.)|(?P<text>"(?:[^"\\]|\\.)*"|'[^']*')|(?P<open>\[)|(?P<close>\])|(?P<end>\}\}))"""
)
_SHOWN: Final = 20
"""Keys that are named in place of one that is not there."""


class ReferenceFailed(PenstockError, LookupError):
    """A reference leads to what is not there; the message names it, and the keys there are."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One `${{ ... }}`: where it begins ("input", "outputs", "secrets", or "" for a text), and the way from there."""

    source: str
    root: str
    way: tuple[str | int, ...]


class Malformed(ValueError):
    """A text has a reference that is none."""


def parsed(text: str) -> "tuple[str | Reference, ...]":
    """Return the pieces of a text.

    Raises:
        Malformed: it has a reference that is none.
    """
    pieces: list[str | Reference] = []
    at = 0
    while (begin := text.find(OPEN, at)) >= 0:
        reference, end = _reference(text, begin)
        pieces += [text[at:begin], reference if reference.root else str(reference.way[0])]
        at = end
    pieces.append(text[at:])
    return tuple(piece for piece in pieces if piece != "")


def _reference(text: str, begin: int) -> tuple[Reference, int]:
    tokens: list[tuple[str, str]] = []
    at = begin + len(OPEN)
    while True:
        match = _TOKEN.match(text, at)
        if match is None:
            shown = one_line(text[begin : begin + 60])
            raise Malformed(f"{shown} is no reference: input, outputs.NAME, secrets.NAME or a quoted text, then }}}}")
        at = match.end()
        kind = cast("str", match.lastgroup)
        if kind == "end":
            break
        tokens.append((kind, match.group(kind)))
    source = text[begin:at]
    root, way = _way(tokens, one_line(source, 100))
    return Reference(source, root, way), at


def _way(tokens: Sequence[tuple[str, str]], source: str) -> tuple[str, tuple[str | int, ...]]:
    kinds = [kind for kind, _ in tokens]
    if kinds == ["text"]:
        return "", (_unquoted(tokens[0][1]),)
    root = tokens[0][1] if kinds[:1] == ["word"] else ""
    if root not in {"input", "outputs", "secrets"}:
        raise Malformed(f"{source} is no reference: it must begin with input, outputs.NAME, secrets.NAME or a text")
    way: list[str | int] = []
    rest = list(tokens[1:])
    while rest:
        match [kind for kind, _ in rest[:3]]:
            case ["dot", "word", *_]:
                way.append(rest[1][1])
                del rest[:2]
            case ["open", "text", "close"]:
                way.append(_unquoted(rest[1][1]))
                del rest[:3]
            case ["open", "word", "close"] if re.fullmatch(r"-?[0-9]{1,9}", rest[1][1]):
                way.append(int(rest[1][1]))
                del rest[:3]
            case _:
                raise Malformed(f'{source} is no reference: after {root} stand .key, ["key"] and [0]')
    if root != "input" and (not way or not isinstance(way[0], str)):
        raise Malformed(f"{source} is no reference: {root} needs a name, as in {root}.NAME")
    if root == "secrets" and len(way) != 1:
        raise Malformed(f"{source} is no reference: a secret is secrets.NAME")
    return root, tuple(way)


def _unquoted(text: str) -> str:
    if text.startswith("'"):
        return text[1:-1]
    try:
        return cast("str", json.loads(text, strict=False))
    except ValueError:
        raise Malformed(f"{one_line(text, 100)} is no text as JSON writes it") from None


class Filled:
    """What is made of the value of a step and the outputs before it."""

    __slots__ = ()

    def source(self) -> object:
        """Return what it is made by, as JSON-like values."""
        raise NotImplementedError

    def fill(self, value: Any, outputs: Mapping[str, Any]) -> Any:
        """Make it."""
        raise NotImplementedError

    def references(self) -> Iterator[Reference]:
        """Give the references in it."""
        raise NotImplementedError

    def __call__(self, value: Any) -> Any:
        """Make it where there are no outputs."""
        return self.fill(value, {})


@dataclass(frozen=True, slots=True)
class Template(Filled):
    """A text with references."""

    pieces: tuple[str | Reference, ...]

    @override
    def source(self) -> str:
        """Return the text."""
        return "".join(piece if isinstance(piece, str) else piece.source for piece in self.pieces)

    @override
    def fill(self, value: Any, outputs: Mapping[str, Any]) -> str:
        """Return the text, references filled in: a text as it is, all else as JSON."""
        return "".join(
            piece if isinstance(piece, str) else _text_of(_found(piece, value, outputs)) for piece in self.pieces
        )

    @override
    def references(self) -> Iterator[Reference]:
        return (piece for piece in self.pieces if isinstance(piece, Reference))


@dataclass(frozen=True, slots=True)
class Words(Filled):
    """Several of them."""

    words: tuple[Template, ...]

    @override
    def source(self) -> list[str]:
        """Return the texts."""
        return [word.source() for word in self.words]

    @override
    def fill(self, value: Any, outputs: Mapping[str, Any]) -> list[str]:
        """Return the texts, references filled in."""
        return [word.fill(value, outputs) for word in self.words]

    @override
    def references(self) -> Iterator[Reference]:
        for word in self.words:
            yield from word.references()


def filled(made: Callable[[Any], Any], value: Any, outputs: Mapping[str, Any]) -> Any:
    """Return what `made` gives: a function of the value, or one of these."""
    return made.fill(value, outputs) if isinstance(made, Filled) else made(value)


def source_of(made: object) -> object:
    """Return what one of these is made by; None of anything else."""
    return made.source() if isinstance(made, Filled) else None


def _text_of(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(as_json(value), ensure_ascii=False)


def _found(reference: Reference, value: Any, outputs: Mapping[str, Any]) -> Any:
    way = list(reference.way)
    if reference.root == "outputs":
        name = way.pop(0)
        try:
            value = outputs[cast("str", name)]
        except KeyError as error:
            raise ReferenceFailed(f"{reference.source}: {error.args[0] if error.args else error}") from None
    for key in way:
        value = _step(reference, value, key)
    return value


def _step(reference: Reference, value: object, key: str | int) -> Any:
    """Return what is at `key` of a value: an item, or an attribute that is data."""
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value)
        if key in items:
            return items[key]
        raise _missing(reference, key, items, list(items))
    if isinstance(key, int) and isinstance(value, Sequence) and not isinstance(value, str | bytes):
        found = cast("Sequence[object]", value)
        if -len(found) <= key < len(found):
            return found[key]
        raise ReferenceFailed(f"{reference.source}: there is no [{key}], there are {len(found)} items")
    if isinstance(key, str) and not key.startswith("_") and hasattr(value, key):
        return getattr(value, key)
    raise _missing(reference, key, value, _attributes(value))


def _missing(reference: Reference, key: str | int, value: object, known: Sequence[object]) -> ReferenceFailed:
    names = ", ".join(one_line(repr(each), 100) for each in known[:_SHOWN]) or f"none, it is {a(type(value).__name__)}"
    return ReferenceFailed(f"{reference.source}: there is no {key!r}, there are {names}")


def _attributes(value: object) -> list[str]:
    """Return the names of its data."""
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    of_model = getattr(type(value), "model_fields", None)
    names = getattr(value, "_fields", None) or of_model or getattr(value, "__dict__", ())
    return [name for name in cast("Sequence[str]", names) if not name.startswith("_")]
