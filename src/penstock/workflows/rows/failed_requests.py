"""What a request that fails means: whether it is made again, for how long all wait, and when the run has to end."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from penstock.core.adaptive import BUSY
from penstock.core.breaker import Breaker
from penstock.core.errors import AttemptTimeout, FatalError, OptionError
from penstock.core.rate_limit import RateLimit
from penstock.core.retry import Retry, RetryBudget
from penstock.flow.models import DeclinedError, ModelError, TruncatedError, asked_wait, transient

REFUSALS: Final = 10
"""Rows that the service may refuse, before the first answer, until the run ends: it would refuse all.

Also rows of which no prompt can be made, before the first of which one can.
"""

SILENT: Final = 5
"""Requests that may break, or find no service, before the first answer, until the run ends."""

_BUSY_WAIT: Final = 2.0
"""Seconds for which all stay away from a service that has refused a request by 429 and does not say how long."""


def again(attempts: int, most: int, pauses: Sequence[RateLimit]) -> Retry:
    """Return how a request is made again: in all so often, `most` requests at once, with a pause for all."""
    return Retry(
        on=_may_do_better,
        attempts=attempts,
        initial=0.5,
        max=60,
        wait=_wait,
        pauses=list(pauses),
        budget=RetryBudget(1.0, least=most),
    )


def breaker() -> Breaker:
    """Return what stops requests for a while to a service of which nothing works."""
    return Breaker(on=_is_down, pause=10, most=120, name="service")


def _may_do_better(error: Exception) -> bool:
    return transient(error) or isinstance(error, AttemptTimeout)


def _wait(error: Exception) -> float | None:
    """Return the seconds that all wait after an error: what the service asks for; some after a 429 that does not say.

    A 503 or 529 that does not say may be of one request: it waits by itself, and `Adaptive` makes fewer at once.
    """
    asked = asked_wait(error)
    refused = getattr(error, "status", None) == HTTPStatus.TOO_MANY_REQUESTS
    return _BUSY_WAIT if asked is None and refused else asked


def _is_down(error: Exception) -> bool:
    """Whether a failure says that nothing of the service works: not, that it has too much to do."""
    return transient(error) and getattr(error, "status", None) not in BUSY and getattr(error, "reply", None) is None


class Hope:
    """Sees before the first answer whether there will be any: where no row will do better, the run ends.

    Args:
        of_service: whether the model is one of a service, whose answer may be the page of a proxy.
    """

    def __init__(self, *, of_service: bool) -> None:
        self._of_service = of_service
        self._unfit = self._refused = self._silent = 0
        self._has_prompt = self._has_answer = False

    def has_prompt(self) -> None:
        """Note that a prompt can be made of a row."""
        self._has_prompt = True

    def has_answer(self) -> None:
        """Note that a model has answered."""
        self._has_answer = True

    def without_prompt(self, error: OptionError) -> None:
        """Note that a row has not what its prompt needs; raise `FatalError` if none of the first rows has it."""
        self._unfit += 1
        if self._unfit == REFUSALS and not self._has_prompt:
            raise FatalError(f"no prompt can be made of the first {REFUSALS} rows: {error}") from error

    def without_answer(self, error: ModelError) -> None:
        """Note a failure; raise `FatalError` if no row will do better: no such model, or only refusals or silence.

        What is no answer of a model, as the page of a proxy, is a refusal; one that ends too early, or says no, is one.
        """
        if isinstance(error, TruncatedError | DeclinedError):
            self._has_answer = True
        if self._has_answer or isinstance(error, FatalError):
            return
        if _is_down(error):
            self._silent += 1
            if self._silent == SILENT:
                raise FatalError(f"the service does not answer: {error}") from error
        if error.transient or (error.status is None and not self._of_service):
            return
        self._refused += 1
        if error.status == HTTPStatus.NOT_FOUND or self._refused == REFUSALS:
            raise FatalError(f"the service refuses all requests: {error}") from error
