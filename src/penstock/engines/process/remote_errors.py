"""Exceptions on their way to another process: with type, attributes, cause, context, notes and traceback as text.

Each is pickled *and loaded back* where it was raised: many can be pickled and not loaded, as their `__init__` passes on
other arguments than it takes. These are made without it. What cannot cross at all goes as its text.
"""

import pickle
from contextlib import suppress
from typing import Any, Final

from penstock.engines.process.crossing import Crossing, loads

_MOST_LINKS: Final = 20
_MOST_TEXT: Final = 50_000

type _Link = tuple[str, bytes, str]
"""How it crosses (`"whole"`, `"parts"`, `"text"`), its pickle, and what it says."""

type _Exceptions = list[tuple[_Link, int | None, int | None, bool]]
"""Exceptions; of each the numbers of its cause and its context, and whether the context is not to be shown."""


def packed(error: BaseException, crossing: Crossing) -> bytes:
    """Pickle an exception with its causes and contexts."""
    chain = [error]
    number = {id(error): 0}
    links: list[tuple[int | None, int | None]] = []
    for each in chain:
        found: list[int | None] = []
        for other in (each.__cause__, each.__context__):
            if other is not None and id(other) not in number and len(chain) < _MOST_LINKS:
                number[id(other)] = len(chain)
                chain.append(other)
            found.append(None if other is None else number.get(id(other)))
        links.append((found[0], found[1]))
    whole: _Exceptions = [
        (_pack(each, crossing), cause, context, each.__suppress_context__)
        for each, (cause, context) in zip(chain, links, strict=True)
    ]
    return pickle.dumps((whole, _text(error)), 5)


def unpacked(data: bytes | memoryview, remote: type[BaseException]) -> BaseException:
    """Return the exception, with its traceback as a note; `remote(said, text)` stands for one that cannot cross."""
    chain: _Exceptions
    chain, text = loads(data)
    errors = [_unpack(link, text, remote) for link, *_ in chain]
    for error, (_, cause, context, suppressed) in zip(errors, chain, strict=True):
        error.__context__ = None if context is None else errors[context]
        error.__cause__ = None if cause is None else errors[cause]
        error.__suppress_context__ = suppressed
    first = errors[0]
    if not isinstance(first, remote):
        with suppress(Exception):  # the user's exception need not take notes
            first.add_note(f"in a worker process:\n{text}")
    return first


def _pack(error: BaseException, crossing: Crossing) -> _Link:
    said = f"{type(error).__name__}: {_said(error)}"
    try:
        data = crossing.dumps(error)
        if _is_like(loads(data), error):
            return "whole", data, said
    except Exception:  # noqa: BLE001, S110 -- it does not cross so
        pass
    try:
        data = crossing.dumps((type(error), error.args, dict(vars(error))))
        if _is_like(_made(*loads(data)), error):
            return "parts", data, said
    except Exception:  # noqa: BLE001, S110 -- nor so
        pass
    return "text", b"", said


def _unpack(link: _Link, text: str, remote: type[BaseException]) -> BaseException:
    how, data, said = link
    try:
        if how == "whole":
            found = loads(data)
            if isinstance(found, BaseException):
                return found
        if how == "parts":
            return _made(*loads(data))
    except Exception:  # noqa: BLE001, S110 -- its class is not here
        pass
    return remote(said, text)


def _made(kind: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    """Make an exception without a call of its `__init__`."""
    try:
        error = kind.__new__(kind, *args)
    except TypeError:
        error = BaseException.__new__(kind, *args)
    error.args = args
    vars(error).update(attributes)
    return error


def _is_like(copy: BaseException, error: BaseException) -> bool:
    """Return whether a copy has the type, attributes and arguments of the original."""
    if type(copy) is not type(error) or vars(copy).keys() != vars(error).keys() or len(copy.args) != len(error.args):
        return False
    return all(
        type(one) is type(other) and _equal(one, other) for one, other in zip(copy.args, error.args, strict=True)
    )


def _equal(one: Any, other: Any) -> bool:
    """Compare two arguments; those of types that may compare by identity, or not at all, count as equal."""
    return one == other if isinstance(other, (str, bytes, int, bool)) else True


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 -- the user's
        return "?"


def _text(error: BaseException) -> str:
    """Format the traceback as Python does, without the frame of the worker itself."""
    from traceback import format_exception  # noqa: PLC0415 -- slow to import, and few workers need it

    traceback = error.__traceback__
    try:
        lines = format_exception(type(error), error, traceback and (traceback.tb_next or traceback))
    except Exception as failure:  # noqa: BLE001 -- the user's
        return f"{type(error).__name__}, whose traceback cannot be printed: {type(failure).__name__}"
    return "".join(lines)[-_MOST_TEXT:]
