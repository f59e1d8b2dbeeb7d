"""Texts of one line about what users gave; for none of them is code of theirs called, which may raise or take long."""

import functools
import inspect
from collections import deque
from types import AsyncGeneratorType, BuiltinFunctionType, CoroutineType, FunctionType, GeneratorType, MethodType
from typing import Any, Final, cast, override

MOST: Final = 200
"""Characters of a text."""

_SIZED: Final = (list, tuple, set, frozenset, dict, deque)
_NAMED: Final = (FunctionType, BuiltinFunctionType, type, GeneratorType, AsyncGeneratorType, CoroutineType)


def name_of(given: object) -> str:
    """What a function, a class or a generator is called; of anything else, of what type it is."""
    for _ in range(9):
        if type(given) is functools.partial:
            given = cast("functools.partial[Any]", given).func
        elif type(given) is MethodType:
            given = cast("Any", given).__func__
    name: object = given.__name__ if isinstance(given, _NAMED) else type(given).__name__
    return str(name)


def content_of(given: object) -> str:
    """What there is to read: "list of 9", "range(0, 9)", or a name."""
    if type(given) is range:
        return repr(given)
    if type(given) is str:
        return f"str of {len(given)}"
    if type(given) in _SIZED:
        return f"{type(given).__name__} of {len(cast('list[Any]', given))}"
    return name_of(given)


def line(text: str, most: int = MOST) -> str:
    """`text` in one line of at most `most` characters: of a longer one, the two ends."""
    if len(text) > most:
        end = most // 3
        text = f"{text[: most - end - 3]}...{text[-end:]}"
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)


def call(name: str, /, *arguments: str, **options: object) -> str:
    """`name(arguments, option=value)`; options that are None are left."""
    given = [f"{option}={line(repr(value), 40)}" for option, value in options.items() if value is not None]
    return line(f"{name}({', '.join((*arguments, *given))})", 100)


class Plain(str):
    """A text that stands for itself among options, without quotes."""

    __slots__ = ()

    @override
    def __repr__(self) -> str:
        return str(self)


type Place = tuple[str, int]
"""A file and a line of it."""


def caller() -> Place:
    """The line outside of this package that has called it; a look at the stack, for once a run."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "penstock":
        frame = frame.f_back
    return ("", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)
