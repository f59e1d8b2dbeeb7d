"""Reads what commands call a rate: `500/min`."""

from typing import Final

from penstock.core.errors import OptionError
from penstock.core.rate_limit import RateLimit

_UNITS: Final = {"s": 1.0, "sec": 1.0, "second": 1.0, "min": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0}


def rate_of(text: str, option: str = "rate", of: str = "calls") -> RateLimit:
    """Return the limit that a text like `500/min` says; raise `OptionError` if it says none."""
    return RateLimit(*number_and_time(text, option, of))


def number_and_time(text: object, option: str, of: str) -> tuple[int, float]:
    """Return the number of a text like `500/min`, and the seconds of its unit; raise `OptionError` if it has none."""
    number, slash, unit = text.partition("/") if isinstance(text, str) else ("", "", "")
    seconds = _UNITS.get(unit.strip().lower())
    digits = number.strip().replace("_", "")
    if not slash or seconds is None or not digits.isascii() or not digits.isdecimal() or not 0 < len(digits) < _MANY:
        raise OptionError(f"{option} must be {of} in a time, as 10/s, 500/min or 1000/h, got {text!r}")
    if (found := int(digits)) < 1:
        raise OptionError(f"{option} must be {of} in a time, at least 1, got {text!r}")
    return found, seconds


_MANY: Final = 16
"""Digits of a number that is too large for a rate."""
