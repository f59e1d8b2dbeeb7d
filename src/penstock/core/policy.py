"""What a stage does with an item that failed."""

from dataclasses import dataclass
from typing import Final, Literal

type OnError = Literal["raise", "skip", "collect", "return"]
type OutOfBand = Literal["raise", "skip", "collect"]
"""What leaves the type of the results as it is."""

ON_ERROR: Final[tuple[OnError, ...]] = ("raise", "skip", "collect", "return")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How many failures "skip" and "collect" put up with before they raise.

    `most` is a count. `rate` is a share of the items settled so far; a single failure is never too many for it.
    """

    most: int | None = None
    rate: float | None = None

    def exceeded(self, failed: int, settled: int) -> str | None:
        """The option that `failed` of `settled` items break, or None."""
        if self.most is not None and failed > self.most:
            return f"max_failures={self.most}"
        if self.rate is not None and failed > max(1, self.rate * settled):
            return f"max_failure_rate={self.rate:g}"
        return None


ANY_NUMBER: Final = Tolerance()
