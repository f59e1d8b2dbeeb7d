"""What a stage does with an item that failed."""

from typing import Final, Literal

type OnError = Literal["raise", "skip", "collect"]

ON_ERROR: Final[tuple[OnError, ...]] = ("raise", "skip", "collect")
