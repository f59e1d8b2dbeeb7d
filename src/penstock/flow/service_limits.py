"""What a service says of its limits in the headers of its answers, and the limits that follow it.

Nothing that a header says may break a call, or stop a run for ever: what is no number, or is out of its bounds, is told
in the log, once, and is not followed.
"""

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypedDict, cast

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.log import LOG
from penstock.core.rate_limit import RateLimit
from penstock.core.text import shown

LONGEST: Final = 3_600.0
"""Seconds that a service is stayed away from, at most, before it is asked again."""

MINUTE: Final = 60.0
"""Seconds that the limits of services are for; what remains of one is there again after no more."""

_LEAST: Final = {"requests": 1.0}
_LEAST_TOKENS: Final = 1_000.0
"""What a limit a minute is at least: of less, one request would wait for hours."""

_NUMBER: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{0,9})?", re.ASCII)
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{0,9})?)(ms|us|ns|s|m|h|d)", re.ASCII)
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_LONGEST_TEXT: Final = 64


class ServiceLimits(TypedDict, total=False):
    """Limits that follow what a service says of its own, none above the number that it was made with.

    Attributes:
        requests: the requests.
        tokens: the tokens of requests and answers together.
        input_tokens: the tokens of requests; Anthropic's services say it.
        output_tokens: the tokens of answers; Anthropic's services say it.
    """

    requests: RateLimit
    tokens: RateLimit
    input_tokens: RateLimit
    output_tokens: RateLimit


class FollowedLimits:
    """Has limits follow the headers of one service; `headers` has the names of limit, remaining and reset of each."""

    def __init__(self, limits: object, headers: Mapping[str, tuple[str, str, str]]) -> None:
        if not isinstance(limits, Mapping):
            raise OptionError(f"limits must be a mapping from {', '.join(headers)} to a RateLimit, got {shown(limits)}")
        self._limits: dict[str, RateLimit] = {}
        for name, limit in cast("Mapping[Any, Any]", limits).items():
            if name not in headers:
                raise OptionError(f"limits has {shown(name)}: the service says something of {', '.join(headers)}")
            validate.instance(f"limits[{name!r}]", limit, RateLimit, "a RateLimit")
            if limit._keyed:  # noqa: SLF001 -- as a stage does
                raise OptionError(f"limits[{name!r}] must have no key, got {limit!r}: it is that of one model")
            self._limits[name] = limit
        self._most = {name: limit.n * MINUTE / limit.per for name, limit in self._limits.items()}
        self._headers = headers
        self._told: set[str] = set()

    @property
    def has_any(self) -> bool:
        """Whether there are any."""
        return bool(self._limits)

    def bind(self) -> None:
        """Raise `WrongLoopError` if a limit belongs to another loop, before anything is paid for."""
        for limit in self._limits.values():
            limit._bind(asyncio.get_running_loop())  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] -- as above

    def pause(self, seconds: float) -> None:
        """Pause all limits: the service has too much to do."""
        for limit in self._limits.values():
            limit.pause(seconds)

    def follow(self, headers: Mapping[str, str]) -> None:
        """Move the limits to what the headers say."""
        for name, limit in self._limits.items():
            of_limit, of_remaining, of_reset = self._headers[name]
            most = self._number(headers, of_limit)
            least = _LEAST.get(name, _LEAST_TOKENS)
            if most is not None and most < least:
                self._tell(of_limit)
                most = None
            reset = self._reset(headers, of_reset)
            limit.follow(
                limit=None if most is None else min(most, self._most[name]),
                remaining=self._number(headers, of_remaining),
                reset=None if reset is None else min(reset, MINUTE),
                per=MINUTE,
            )

    def _number(self, headers: Mapping[str, str], name: str) -> float | None:
        said = headers.get(name)
        if said is None:
            return None
        if _NUMBER.fullmatch(said.strip()) is None:
            self._tell(name)
            return None
        return float(said)

    def _reset(self, headers: Mapping[str, str], name: str) -> float | None:
        said = headers.get(name)
        if said is None:
            return None
        seconds = seconds_of(said.strip())
        if seconds is None:
            self._tell(name)
        return seconds

    def _tell(self, name: str) -> None:
        if name not in self._told:
            self._told.add(name)
            LOG.warning("the service says in the header %s what no limit can follow: it is not followed", name)


def seconds_of(said: str) -> float | None:
    """Return the seconds that a text is: a number, a duration as `6m0s`, or the time from now to one in RFC 3339."""
    if len(said) > _LONGEST_TEXT:
        return None
    if _NUMBER.fullmatch(said):
        return float(said)
    parts = _DURATION.findall(said)
    if parts and "".join(number + unit for number, unit in parts) == said:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    try:
        then = datetime.fromisoformat(said)
    except ValueError:
        return None
    return max(0.0, ((then if then.tzinfo else then.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())
