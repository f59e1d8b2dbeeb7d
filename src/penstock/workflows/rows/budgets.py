"""What a run of prompts may cost, use and last: it ends in order at the line."""

import math
from datetime import timedelta
from typing import Final, Literal, cast

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.retry import Seconds
from penstock.workflows.rows.spending import Price, Spending

_UNITS: Final = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}

type EndedBy = Literal["max_cost", "max_tokens", "deadline"]


class Budgets:
    """The lines at which a run ends.

    Args:
        max_cost: over all openings of the run; needs a price.
        max_tokens: the same, of requests and answers.
        deadline: seconds of this opening, a timedelta, or a text as "90s", "30min" or "2h".

    Attributes:
        seconds: the deadline; None: there is none.

    Raises:
        OptionError: one breaks its rule.
    """

    def __init__(
        self, max_cost: float | None, max_tokens: int | None, deadline: Seconds | str | None, price: Price | None
    ) -> None:
        if max_cost is not None:
            validate.positive("max_cost", max_cost)
            if price is None:
                raise OptionError(f"max_cost needs a price (IN/OUT per million tokens), got {max_cost!r} without")
        if max_tokens is not None:
            validate.whole("max_tokens", max_tokens, least=1)
        self._max_cost, self._max_tokens, self._price = max_cost, max_tokens, price
        self.seconds: float | None = _duration(deadline)

    def reached(self, spent: Spending) -> EndedBy | None:
        """Return the line that this has reached."""
        if self._max_tokens is not None and spent.tokens >= self._max_tokens:
            return "max_tokens"
        if self._max_cost is not None and self._price is not None and self._price.of_spending(spent) >= self._max_cost:
            return "max_cost"
        return None


def _duration(given: Seconds | str | None) -> float | None:
    if not isinstance(given, str):
        return None if given is None else validate.seconds("deadline", cast("float | timedelta", given))
    number = given.strip().rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = _UNITS.get(given.strip()[len(number) :])
    try:
        seconds = float(number) * unit if unit else 0.0
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise OptionError(f"deadline must be a time, as 90s, 30min or 2h, got {given!r}")
    return seconds
