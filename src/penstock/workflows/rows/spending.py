"""What requests to a model have cost: counted, estimated before they are made, and priced."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Final, Self, cast

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.flow.asking import ModelRequest

_MILLION: Final = 1_000_000

_BYTES: Final = 4.0
"""Bytes of text of a token, until answers tell."""

_ANSWER: Final = 256.0
"""Tokens of an answer, until answers tell."""

_REFUSED: Final = 400
"""The least status of a response that is an error, which services do not charge for."""


@dataclass(frozen=True, slots=True)
class Spending:
    """Sums over requests; `a + b` is the sum of both.

    Attributes:
        requests: how many there were.
        failed: of these, those without an answer, or with one that did not fit and was asked again or given up.
        input_tokens, output_tokens: tokens of requests and of answers; None: no request has said it.
        cached_tokens: of the input, those that came from a cache of the service; None: no request has said it.
        failed_tokens: of input and output, those of failed requests; None: none of them has said it.
        unknown: requests of which the service has not said what they used.
        estimated_input, estimated_output: tokens that budgets count for these; those that were refused count none.
    """

    requests: int = 0
    failed: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    failed_tokens: int | None = None
    unknown: int = 0
    estimated_input: int = 0
    estimated_output: int = 0

    def __add__(self, other: "Spending") -> "Spending":
        return Spending(*map(cast("Any", _sum), _values(self), _values(other)))

    @property
    def tokens(self) -> int:
        """Tokens of input and output, with what is estimated where it is unknown: what budgets count."""
        known = (self.input_tokens or 0) + (self.output_tokens or 0)
        return known + self.estimated_input + self.estimated_output

    def as_note(self) -> dict[str, int | None]:
        """Return what a journal keeps."""
        return dict(zip(_NAMES, _values(self), strict=True))

    @classmethod
    def of_note(cls, note: object) -> Self:
        """Return what a journal has kept; nothing, if it is no such thing."""
        if not isinstance(note, Mapping):
            return cls()
        kept = cast("Mapping[str, Any]", note).items()
        return cls(**{name: value for name, value in kept if name in _NAMES and type(value) is int})


_NAMES: Final = tuple(each.name for each in fields(Spending))
_values: Final = cast("Callable[[Spending], tuple[int | None, ...]]", attrgetter(*_NAMES))


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other


@dataclass(frozen=True, slots=True)
class Price:
    """What a million tokens cost, in any currency.

    Attributes:
        input, output: of requests and of answers.
        cached: of input that came from a cache of the service.
    """

    input: float
    output: float
    cached: float

    @classmethod
    def of(cls, price: object) -> "Price":
        """Read the option `price`: `IN/OUT` or `IN/OUT/CACHED`, or two or three numbers."""
        parts = price.split("/") if isinstance(price, str) else price
        rule = "price must be IN/OUT or IN/OUT/CACHED per million tokens, as 0.15/0.60"
        if not isinstance(parts, list | tuple) or len(cast("list[Any]", parts)) not in {2, 3}:
            raise OptionError(f"{rule}, got {price!r}")
        try:
            numbers = [validate.number("price", _number(part), least=0) for part in cast("list[Any]", parts)]
        except OptionError:
            raise
        except ValueError:
            raise OptionError(f"{rule}, got {price!r}") from None
        return cls(numbers[0], numbers[1], numbers[-1] if len(numbers) > 2 else numbers[0])  # noqa: PLR2004 -- the third is there

    def of_tokens(self, given: float, made: float, cached: float = 0) -> float:
        """Return what so many tokens of input and output cost, some of the input `cached`."""
        return ((given - cached) * self.input + cached * self.cached + made * self.output) / _MILLION

    def of_spending(self, spent: Spending) -> float:
        """Return what requests have cost, with what is estimated where it is unknown."""
        given = (spent.input_tokens or 0) + spent.estimated_input
        made = (spent.output_tokens or 0) + spent.estimated_output
        return self.of_tokens(given, made, spent.cached_tokens or 0)


def _number(part: object) -> object:
    return float(part) if isinstance(part, str) else part


class Estimate:
    """Tokens of a request before it is made: by the bytes of its text and by what answers have told until now."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = self._input = 0
        self._answers = self._output = 0

    def input(self, prompt: str) -> float:
        """Return the tokens of a text."""
        size = len(prompt.encode(errors="replace"))
        return size / _BYTES if not self._input else size * self._input / self._bytes

    @property
    def output(self) -> float:
        """The tokens of an answer."""
        return min(self._most, self._output / self._answers if self._answers else _ANSWER)

    def learn(self, request: ModelRequest) -> None:
        """Take what a request has told."""
        reply = request.reply
        if reply is None:
            return
        if reply.input_tokens:
            self._bytes += len(request.prompt.encode(errors="replace"))
            self._input += reply.input_tokens
        if reply.output_tokens is not None and not request.failed:
            self._answers += 1
            self._output += reply.output_tokens

    def spending(self, request: ModelRequest) -> Spending:
        """Return what a request has used, estimated where the service has not said it."""
        reply = request.reply
        given, made = (None, None) if reply is None else (reply.input_tokens, reply.output_tokens)
        known = None if given is None and made is None else (given or 0) + (made or 0)
        was_refused = request.status is not None and request.status >= _REFUSED
        return Spending(
            1,
            int(request.failed),
            given,
            made,
            None if reply is None else reply.cached_tokens,
            known if request.failed else None,
            int(given is None or made is None),
            round(self.input(request.prompt)) if given is None and not was_refused else 0,
            round(self.output) if made is None and not was_refused else 0,
        )
