"""How many requests begin, and how many tokens they may take, in a time: estimated before, put right after."""

import math
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from penstock.core.rate_limit import RateLimit
from penstock.workflows.rates import number_and_time

_ANY_REQUESTS: Final = 1e9
_ANY_TOKENS: Final = 1e13
"""A minute, where nobody has said how many there may be, until the service says it: so many that no start waits."""

_CHARGED: Final[ContextVar[float]] = ContextVar("penstock_charged", default=0.0)
"""Tokens that were charged for the attempt, and that no request has used yet; nan: a further request of it."""


class RequestLimits:
    """The two limits of requests to a service, which follow what it says of them.

    Args:
        rate: requests that begin in a time, as "500/min"; None: any.
        tokens: tokens of requests and answers in a time; None: any.
        longest: tokens of an answer, at most.
        expected: gives the tokens that are expected for a row: those of its prompt and of the answer.

    Attributes:
        requests, tokens: the limits.
    """

    def __init__(self, rate: str | None, tokens: str | None, longest: int, expected: Callable[[Any], float]) -> None:
        self._expected = expected
        per_time = (_ANY_REQUESTS, 60.0) if rate is None else number_and_time(rate, "rate", "requests")
        self.requests: RateLimit = RateLimit(*per_time, burst=_burst(per_time, 4), name="requests")
        per_time = (_ANY_TOKENS, 60.0) if tokens is None else number_and_time(tokens, "tokens", "tokens")
        several = 4 * (longest + 1)  # requests that may start in one pass of a busy loop, whatever the limit
        self.tokens: RateLimit = RateLimit(
            *per_time, burst=_burst(per_time, several), name="tokens", cost=self._charge_attempt
        )

    def both(self) -> list[RateLimit]:
        """Return them, as `limit=` takes them."""
        return [self.requests, self.tokens]

    def _charge_attempt(self, row: Any) -> float:
        """Return the tokens that an attempt on a row is charged before it begins."""
        try:
            charged = self._expected(row)
        except Exception:  # noqa: BLE001 -- of the row or of the user's function: the attempt raises it
            return 0.0
        _CHARGED.set(charged)
        return charged

    async def begin(self, expected: Callable[[], float]) -> None:
        """Let a request begin: a further one of the same attempt waits for the limits first."""
        if math.isnan(_CHARGED.get()):
            charged = expected()
            await self.requests.acquire()
            await self.tokens.acquire(charged)
            _CHARGED.set(charged)

    def ended(self, used: int | None) -> None:
        """Put right what the request was charged; None: what it has used is unknown."""
        charged = _CHARGED.get()
        _CHARGED.set(math.nan)
        if used is not None:
            self.tokens.settle(charged, used)


def _burst(limit: tuple[float, float], least: float) -> float:
    """Return what a quarter of a second brings, or a little where that is not known."""
    n, seconds = limit
    return least if n in {_ANY_REQUESTS, _ANY_TOKENS} else max(1.0, min(n / seconds / 4, n))
