"""Text for people, in lines of bounded length. It calls no code of what users gave: that may raise, or be slow."""

import functools
from collections import deque
from collections.abc import Sequence
from types import AsyncGeneratorType, BuiltinFunctionType, CoroutineType, FunctionType, GeneratorType, MethodType
from typing import Any, Final, cast, override

LINE: Final = 2_000
"""Characters of a line, at most."""

NAME: Final = 200
"""Characters of a key, a name or a description within a line, at most."""

_SIZED: Final = (list, tuple, set, frozenset, dict, deque)
_NAMED: Final = (FunctionType, BuiltinFunctionType, type, GeneratorType, AsyncGeneratorType, CoroutineType)


def escaped(text: str) -> str:
    """Escape control characters and bytes of no encoding in `text`: a terminal would obey them."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def one_line(text: str, most: int = LINE) -> str:
    """Escape `text` and cut it after `most` characters, with a note of how many are missing."""
    if len(text) <= most:
        return escaped(text)
    return f"{escaped(text[:most])}... ({len(text) - most:,} more)"


def named(value: object, most: int = NAME) -> str:
    """Show a key or a name in an error: its `repr`, cut after `most` characters."""
    return one_line(repr(value[: most + 1] if isinstance(value, str) else value), most)


def shown(value: object) -> str:
    """Show a value in an error: its `repr`; name its type where that raises."""
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 -- code of users
        return f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"


def line(text: str, most: int = NAME) -> str:
    """Shorten `text` to one line of at most `most` characters: the two ends of a longer text stay."""
    if len(text) > most:
        end = most // 3
        text = f"{text[: most - end - 3]}...{text[-end:]}"
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)


def a(noun: str) -> str:
    """Put the indefinite article before a noun, such as the name of a type: "an int", "a UUID"."""
    first = noun.lower()
    is_vowel = first.startswith(("a", "e", "i", "o", "u")) and not first.startswith(_LIKE_YOU)
    return f"{'an' if is_vowel else 'a'} {noun}"


_LIKE_YOU: Final = ("eu", "one", "uni", "us", "ut", "uu")
"""What words begin with that have a vowel first, and are not said so."""


def name_of(given: object) -> str:
    """Name a function, a class or a generator; for anything else, name its type."""
    for _ in range(9):
        if type(given) is functools.partial:
            given = cast("functools.partial[Any]", given).func
        elif type(given) is MethodType:
            given = cast("Any", given).__func__
    name: object = given.__name__ if isinstance(given, _NAMED) else type(given).__name__
    return str(name)


def content_of(given: object) -> str:
    """Describe a source in a few words: "list of 9", "range(0, 9)", or a name."""
    if type(given) is range:
        return repr(given)
    if type(given) is str:
        return f"str of {len(given)}"
    if type(given) in _SIZED:
        return f"{type(given).__name__} of {len(cast('list[Any]', given))}"
    return name_of(given)


def call(name: str, /, *arguments: str, **options: object) -> str:
    """Write a call: `name(arguments, option=value)`. Options that are None are left out."""
    given = [f"{option}={line(repr(value), 40)}" for option, value in options.items() if value is not None]
    return line(f"{name}({', '.join((*arguments, *given))})", 100)


class Verbatim(str):
    """An option's value that `call` writes as it is, without quotes."""

    __slots__ = ()

    @override
    def __repr__(self) -> str:
        return str(self)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align `rows` under `head`: the first column to the left, the others to the right. Empty columns are left out."""
    columns = [column for column in zip(head, *rows, strict=True) if any(cell not in {"", "0"} for cell in column[1:])]
    widths = [max(map(len, column)) for column in columns]
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if place == 0 else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in zip(*columns, strict=True)
    )
