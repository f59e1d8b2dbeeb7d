"""What a durable run is to do: from what source, into what sink, by what options."""

from collections.abc import Callable
from dataclasses import dataclass

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.plan import ANY_NUMBER, Tolerance
from penstock.durable.options import RunOptions
from penstock.durable.root_source import RootSource
from penstock.durable.roots import Key
from penstock.durable.sink import Sink, check_sink, removes


@dataclass(frozen=True, slots=True)
class Job:
    """A durable run, described.

    Attributes:
        source: where the roots come from, and the stages that they go through.
        sink: where their rows go.
        options: what the user has said.
        retries_dead: whether a root that fails is tried again by the next run, as one that may do better then.
        is_missing: whether a root that was settled before and was not seen is one that the source should have had.
    """

    source: RootSource
    sink: Sink
    options: RunOptions
    retries_dead: bool = False
    is_missing: Callable[[Key], bool] = lambda _: True

    def __post_init__(self) -> None:
        check_sink(self.sink)
        if not validate.is_utf8(self.source.name):
            raise OptionError(
                f"the name of the source must be a str that can be written as UTF-8, got {self.source.name!r}"
            )
        if removes(self.sink):
            return
        if self.options.on_missing != "keep":
            raise OptionError(
                f"on_missing={self.options.on_missing!r} needs a sink that can remove rows, got {self.sink!r}"
            )
        if self.options.on_dead == "remove":
            raise OptionError(f"on_dead='remove' needs a sink that can remove rows, got {self.sink!r}")

    @property
    def tolerance(self) -> Tolerance | None:
        """How many rows the sink may refuse; None if the first one ends the run."""
        match self.options.on_error:
            case None:
                return self.source.tolerance
            case "collect":
                return ANY_NUMBER
            case "raise":
                return None
