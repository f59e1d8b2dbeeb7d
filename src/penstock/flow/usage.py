"""What requests to models have cost."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Sums over requests; `a + b` is the sum of both.

    Attributes:
        requests: how many there were.
        input_tokens: tokens that they had; None: no request has said it.
        output_tokens: tokens that they gave; None: no request has said it.
        seconds: that the requests took.
    """

    requests: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    seconds: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.requests + other.requests,
            _sum(self.input_tokens, other.input_tokens),
            _sum(self.output_tokens, other.output_tokens),
            self.seconds + other.seconds,
        )


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other
