"""Calls a user's function for a row: with the row, or with its columns by name; and makes rows of what it returns."""

import inspect
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from functools import wraps
from importlib import import_module
from inspect import Parameter
from pathlib import Path
from typing import Any, Final, cast

from penstock.core.errors import OptionError, said

_NAMED: Final = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_SINGLE: Final = (str, bytes, Mapping)


def found_function(name: str) -> Callable[..., Any]:
    """Import the function that `MODULE:FUNCTION` names; modules of the current directory are found, too.

    Raises:
        OptionError: there is none, or it cannot be called.
    """
    module, colon, path = name.partition(":")
    if not colon or not module or not path:
        raise OptionError(f"function must be MODULE:FUNCTION, as jobs:summarise, got {name!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = import_module(module.removesuffix(".py").replace(os.sep, "."))
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise OptionError(f"function: the module {module!r} cannot be imported: {error}") from error
        raise OptionError(f"function: there is no module {module!r} in {here} or on the path") from error
    except Exception as error:  # of the code of others
        raise OptionError(f"function: the module {module!r} cannot be imported: {said(error)}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            has = ", ".join(sorted(each for each in dir(found) if callable(getattr(found, each)) and each[0] != "_"))
            raise OptionError(f"function: {module!r} has no {path!r}, it has {has or 'nothing to call'}")
        found = getattr(found, part)
    if not callable(found):
        raise OptionError(f"function: {name!r} must be something to call, got {type(found).__name__}")
    return cast("Callable[..., Any]", found)


class Arguments:
    """What a function takes of a row: columns, if each parameter that it needs is one; else the whole row."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        try:
            parameters = list(inspect.signature(fn).parameters.values())
        except (TypeError, ValueError):  # a function in C that does not say
            parameters = [Parameter("row", Parameter.POSITIONAL_ONLY)]
        self._needed = [each for each in parameters if each.default is Parameter.empty and each.kind in _NAMED]
        self._optional = [each.name for each in parameters if each.default is not Parameter.empty]
        self._any = any(each.kind is Parameter.VAR_KEYWORD for each in parameters)
        self._by_place = any(each.kind in {Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL} for each in parameters)
        self._name = getattr(fn, "__name__", repr(fn))
        if not self._by_place and len(self._needed) == 0 and not self._any and not self._optional:
            raise OptionError(
                f"function: {self._name} must take a row, or its columns by name, got one without parameters"
            )

    def wants(self, column: str) -> bool:
        """Whether the function asks for a column by its name."""
        return any(each.name == column for each in self._needed) or column in self._optional

    def call(self, fn: Callable[..., Any], row: Any) -> Any:
        """Call it; raise `OptionError` if the row has not what it needs."""
        names = [each.name for each in self._needed]
        if not isinstance(row, dict) or self._by_place:
            return fn(row)
        columns = cast("dict[str, Any]", row)
        if all(name in columns for name in names) and (names or self._any or self._optional):
            if self._any:
                return fn(**columns)
            return fn(**{name: columns[name] for name in (*names, *self._optional) if name in columns})
        if len(names) == 1 and self._needed[0].kind is Parameter.POSITIONAL_OR_KEYWORD:
            return fn(row)
        missing = next(name for name in names if name not in columns)
        raise OptionError(
            f"function: {self._name} needs the column {missing!r}, which the row has not: it has "
            f"{', '.join(map(repr, columns)) or 'none'}"
        )


def made_row(row: Any, result: Any, *, key: str | None, keep: bool, column: str = "value") -> dict[str, Any]:
    """Return the row that comes of a result: a dict as it is, anything else in a `column`, beside what is kept."""
    kept: dict[str, Any] = {}
    if isinstance(row, dict):
        columns = cast("dict[str, Any]", row)
        kept = columns if keep else {key: columns[key]} if key is not None and key in columns else {}
    return {**kept, **(cast("dict[str, Any]", result) if isinstance(result, dict) else {column: result})}


def rows_by(fn: Callable[..., Any], *, key: str | None, keep: bool) -> Callable[[Any], Any]:
    """Return a function of a row that gives the rows which come of it, for `flat_map`.

    What `fn` returns becomes rows: a dict is one, a list or generator several, None none, anything else one with the
    column `value`. Each has the `key` of the row that it came from, and with `keep` all of its columns, unless it has
    columns of these names itself.
    """
    arguments = Arguments(fn)

    def made(row: Any, result: Any) -> Iterator[Any]:
        for each in _several(result):
            yield made_row(row, each, key=key, keep=keep)

    if any(map(inspect.isasyncgenfunction, (fn, _its_call(fn)))):

        @wraps(fn)
        async def generated(row: Any) -> AsyncIterator[Any]:
            async for each in arguments.call(fn, row):
                for one in made(row, [each]):
                    yield one

        return generated

    if _is_async(fn):

        @wraps(fn)
        async def awaited(row: Any) -> list[Any]:
            return list(made(row, await cast("Awaitable[Any]", arguments.call(fn, row))))

        return awaited

    @wraps(fn)
    def called(row: Any) -> list[Any]:
        return list(made(row, arguments.call(fn, row)))

    return called


def _several(result: Any) -> Any:
    if result is None:
        return ()
    if isinstance(result, list | tuple) or (hasattr(result, "__next__") and not isinstance(result, _SINGLE)):
        return cast("Any", result)
    return (result,)


def _is_async(fn: Callable[..., Any]) -> bool:
    return any(map(inspect.iscoroutinefunction, (fn, _its_call(fn))))


def _its_call(fn: object) -> object:
    return getattr(type(fn), "__call__", None)  # noqa: B004 -- of which kind it is
