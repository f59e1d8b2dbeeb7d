"""The job of a durable run: its source, its sink, its options."""

from dataclasses import dataclass

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.plan import ANY_NUMBER, Tolerance
from penstock.durable.options import RunOptions
from penstock.durable.root_source import RootSource
from penstock.durable.sink import Sink, check_sink, removes


@dataclass(frozen=True, slots=True)
class Job:
    """A source, a sink, and the options of a run.

    Attributes:
        source: where the roots come from, and the stages that they go through.
        sink: where their rows go.
        options: of the user.
    """

    source: RootSource
    sink: Sink
    options: RunOptions

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
    def finds_killers(self) -> bool:
        """Whether roots that kill the process are looked for: not where their functions run in other processes.

        Then their engine finds them.
        """
        elsewhere = self.source.runs_elsewhere and self.sink.delivery == "exactly once"  # else it calls a function, too
        return self.options.find_killers and not elsewhere

    @property
    def tolerance(self) -> Tolerance | None:
        """How many rows that the sink refuses are set aside; None if the first one ends the run."""
        match self.options.on_error:
            case None:
                return self.source.tolerance
            case "collect":
                return ANY_NUMBER
            case "raise":
                return None
