"""Progress while a job runs: a live table on a terminal, plain lines elsewhere. Both go to stderr."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.table import Table

    from penstock.workflows import EmbedReport

_EVERY = 5.0
_LOOK = 0.05
_OF = {"embed": "chunks"}
"""What a stage counts, if not files."""


class Display(Protocol):
    """Shows how a job goes, until it is closed."""

    def say(self, line: str) -> None:
        """Print a line of its own."""
        ...

    def close(self) -> None:
        """Stop showing; may be called twice."""
        ...


@contextmanager
def display(report: Callable[[], "EmbedReport"]) -> Generator[Display]:
    """The display that fits where stderr goes."""
    shown: Display = LiveTable(report) if sys.stderr.isatty() else PlainLines(report)
    try:
        yield shown
    finally:
        shown.close()


class LiveTable:
    """A table of the stages, redrawn four times a second; it is gone when the job is done."""

    def __init__(self, report: Callable[[], "EmbedReport"]) -> None:
        from rich.console import Console  # noqa: PLC0415 -- only a terminal needs it
        from rich.live import Live  # noqa: PLC0415 -- only a terminal needs it

        self._console = Console(stderr=True)
        self._live = Live(
            get_renderable=lambda: table(report()), console=self._console, refresh_per_second=4, transient=True
        )
        self._live.start()

    def say(self, line: str) -> None:
        """Print the line above the table."""
        self._console.print(line, highlight=False, markup=False)

    def close(self) -> None:
        """Remove the table."""
        self._live.stop()


def table(report: "EmbedReport") -> "Table":
    """The stages: what went in, is in flight, came out, failed, and how fast."""
    from rich.table import Table  # noqa: PLC0415 -- only a terminal needs it

    title = f"{report.seconds:.0f} s, {report.unchanged:,} files unchanged"
    shown = Table("stage", *(), title=title, title_justify="left", box=None)
    for heading in ("of", "in", "in flight", "out", "failed", "per s"):
        shown.add_column(heading, justify="right")
    for stage in report.stages:
        numbers = (stage.taken, stage.in_flight, stage.delivered, stage.failed)
        rate = stage.delivered / report.seconds if report.seconds else 0.0
        shown.add_row(stage.name, _OF.get(stage.name, "files"), *(f"{number:,}" for number in numbers), f"{rate:,.0f}")
    return shown


class PlainLines:
    """A line when the first document is stored, then one every five seconds."""

    def __init__(self, report: Callable[[], "EmbedReport"]) -> None:
        self._report = report
        self._closed = Event()
        self._thread = Thread(target=self._tell, name="penstock progress", daemon=True)
        self._thread.start()

    def say(self, line: str) -> None:
        """Print the line."""
        print(line, file=sys.stderr, flush=True)  # noqa: T201 -- this is what it is for

    def close(self) -> None:
        """Print no more."""
        self._closed.set()
        self._thread.join()

    def _tell(self) -> None:
        while not self._closed.wait(_LOOK):
            first = self._report().first_row_seconds
            if first is not None:
                self.say(f"first document stored after {first:.2f} s")
                break
        while not self._closed.wait(_EVERY):
            self.say(line(self._report()))


def line(report: "EmbedReport") -> str:
    """The stages in one line."""
    stages = ", ".join(f"{stage.name} {stage.delivered:,} (+{stage.in_flight})" for stage in report.stages)
    rate = f"{report.files_per_second:,.0f} files/s"
    return f"{report.seconds:.0f} s: {stages}; {report.failed:,} failed, {report.unchanged:,} unchanged; {rate}"
