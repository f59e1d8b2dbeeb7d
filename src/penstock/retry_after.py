"""The seconds that an HTTP server asks to wait: what every client of one needs, and no part of the scheduler."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

_DELAY: Final = re.compile(r"[0-9]+(\.[0-9]*)?", re.ASCII)
_LONGEST_DATE: Final = 64
_LONGEST_DELAY: Final = 20


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that a server asks to wait: `Retry-After-Ms`, or `Retry-After` in seconds or as a date.

    None for 0, for a time that is past, and for neither: then the client decides how long to wait.
    """
    for name, unit in (("retry-after-ms", 1_000), ("retry-after", 1)):
        said = headers.get(name, "").strip()
        seconds = float(said[:_LONGEST_DELAY]) / unit if _DELAY.fullmatch(said) else _until(said, now)
        if seconds > 0:
            return seconds
    return None


def _until(date: str, now: datetime) -> float:
    """Return the seconds from `now` to an HTTP date; 0 for what is none."""
    if len(date) > _LONGEST_DATE:
        return 0.0
    try:
        then = parsedate_to_datetime(date)
        return ((then if then.tzinfo else then.replace(tzinfo=UTC)) - now).total_seconds()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return 0.0
