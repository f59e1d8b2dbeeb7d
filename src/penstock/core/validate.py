"""Checks of options. All messages have one form: option, rule, value.

Whole numbers are what `operator.index` accepts, other numbers what `float` accepts, numpy's among them; checks return
an int or a float. Truth values and texts are no numbers. Each check raises `OptionError` if the rule is broken.
"""

import inspect
import math
import operator
import os
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, cast

from penstock.core.errors import OptionError
from penstock.core.text import a, shown


def whole(option: str, value: object, *, least: int) -> int:
    """Return `value` as an int of at least `least`."""
    if (number := as_int(value)) is None or number < least:
        raise OptionError(f"{option} must be an int >= {least}, got {shown(value)}")
    return number


def integer(option: str, value: object) -> int:
    """Return `value` as an int."""
    if (number := as_int(value)) is None:
        raise OptionError(f"{option} must be an int, got {shown(value)}")
    return number


def positive(option: str, value: object) -> float:
    """Return `value` as a finite float above 0."""
    return _real(option, value, "a finite number > 0", lambda number: number > 0)


def number(option: str, value: object, *, least: float) -> float:
    """Return `value` as a finite float of at least `least`."""
    return _real(option, value, f"a finite number >= {least:g}", lambda number: number >= least)


def finite(option: str, value: object) -> float:
    """Return `value` as an int if it is whole, else as a finite float."""
    number, exact = _real(option, value, "a finite number", lambda _: True), as_int(value)
    return number if exact is None else exact


def seconds(option: str, value: object, *, zero: bool = False) -> float:
    """Return a duration, given in seconds or as a timedelta, in seconds: above 0, or at least 0 with `zero`."""
    amount = _as_float(value.total_seconds() if isinstance(value, timedelta) else value)
    rule = ">= 0" if zero else "> 0"
    if amount is None or amount < 0 or (amount == 0 and not zero):
        raise OptionError(f"{option} must be a finite number of seconds {rule} or a timedelta, got {shown(value)}")
    return amount


def _real(option: str, value: object, rule: str, keeps: Callable[[float], bool]) -> float:
    if (number := _as_float(value)) is None or not keeps(number):
        raise OptionError(f"{option} must be {rule}, got {shown(value)}")
    return number


def as_int(value: object) -> int | None:
    """Return what `operator.index` makes of `value`; None if it is no int. A truth value is none."""
    if type(value) is int:
        return value
    if isinstance(value, bool) or _is_no_number_of_numpy(value):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] -- that is the question
    except Exception:  # noqa: BLE001 -- whatever it is, that is no int
        return None


def _as_float(value: object) -> float | None:
    """Return what `float` makes of `value`; None if that is not finite, or if it is a text or a truth value."""
    if type(value) is not float:
        kind = type(value)
        if isinstance(value, bool) or not (hasattr(kind, "__float__") or hasattr(kind, "__index__")):
            return None
        if _is_no_number_of_numpy(value):
            return None
        try:
            value = float(value)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] -- that is the question
        except Exception:  # noqa: BLE001 -- whatever it is, that is no number
            return None
    return value if math.isfinite(value) else None


def _is_no_number_of_numpy(value: object) -> bool:
    """Whether it is of numpy and no real number: `float` accepts its truth values, texts and durations."""
    kind = getattr(getattr(value, "dtype", None), "kind", "f")
    return isinstance(kind, str) and kind in "bcmMSU"


def flag(option: str, value: object) -> bool:
    """Return `value` if it is a bool."""
    if not isinstance(value, bool):
        raise OptionError(f"{option} must be True or False, got {shown(value)}")
    return value


def one_of[T](option: str, value: T, choices: tuple[T, ...]) -> T:
    """Return `value` if it is one of `choices`."""
    if not any(value is choice or (isinstance(value, type(choice)) and value == choice) for choice in choices):
        raise OptionError(f"{option} must be one of {', '.join(map(repr, choices))}, got {shown(value)}")
    return value


def function(option: str, value: object) -> None:
    """Raise unless `value` can be called."""
    if not callable(value):
        raise OptionError(f"{option} must be callable, got {shown(value)}")


def plain_function(option: str, value: object) -> None:
    """Raise unless `value` can be called and is not async: nobody would await what it returns."""
    function(option, value)
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(getattr(value, "__call__", None)):  # noqa: B004 -- the bound method itself is wanted
        raise OptionError(f"{option} must be a plain function, got the async {shown(value)}")


def plain_result[T](whose: str, given: T) -> T:
    """Return what a plain function gave, unless somebody would have to await it: a lambda round an async function."""
    kind = type(given)
    if hasattr(kind, "__await__"):
        if isinstance(given, Coroutine):
            given.close()
        raise OptionError(f"{whose} must be a plain function, it gave {a(kind.__name__)} to be awaited")
    return given


def instance[T](option: str, value: T, kind: type, form: str) -> T:
    """Return `value` if it is a `kind`; `form` says in the message what is expected."""
    if not isinstance(value, kind):
        raise OptionError(f"{option} must be {form}, got {shown(value)}")
    return value


def is_utf8(value: str) -> bool:
    """Whether UTF-8 can encode it: it cannot encode half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def text(option: str, value: object) -> str:
    """Return `value` if it is a non-empty str."""
    if not isinstance(value, str) or not value:
        raise OptionError(f"{option} must be a non-empty str, got {shown(value)}")
    return value


def path(option: str, value: object) -> str:
    """Return `value`, a str or a `PathLike` of a str, as a non-empty str without NUL."""
    found: object = os.fspath(cast("os.PathLike[str]", value)) if isinstance(value, os.PathLike) else value
    if not isinstance(found, str) or not found:
        raise OptionError(f"{option} must be a path, got {shown(cast('object', value))}")
    if "\0" in found:
        raise OptionError(f"{option} must be a path without NUL, got {shown(cast('object', value))}")
    return found


def predicate_or_types(option: str, value: object) -> Callable[[Exception], bool]:
    """Turn an exception type, a tuple of types, or a plain predicate into a test of Exceptions."""
    kinds = cast("tuple[Any, ...]", value if isinstance(value, tuple) else (value,))
    if kinds and all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        if any(not issubclass(kind, Exception) and kind not in _WITH_EXCEPTIONS for kind in kinds):
            got = shown(cast("object", value))
            raise OptionError(f"{option} must name subclasses of Exception, as nothing else is retried, got {got}")
        return lambda error: isinstance(error, kinds)
    predicate = cast("Any", value)
    if callable(predicate) and not isinstance(predicate, type):
        plain_function(option, predicate)
        return lambda error: bool(plain_result(option, predicate(error)))
    raise OptionError(
        f"{option} must be an exception type, a tuple of them or a predicate, got {shown(cast('object', value))}"
    )


_WITH_EXCEPTIONS = {BaseException, BaseExceptionGroup}
"""Types that are no Exceptions but have instances that are."""


def share(option: str, value: object) -> float:
    """Return `value` as a float from 0 to 1."""
    return _real(option, value, "a number from 0 to 1", lambda number: 0 <= number <= 1)


def share_above_zero(option: str, value: object) -> float:
    """Return `value` as a float above 0 and at most 1."""
    return _real(option, value, "a number above 0 and at most 1", lambda number: 0 < number <= 1)
