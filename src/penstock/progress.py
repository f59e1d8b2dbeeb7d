"""Progress of a run, on stderr: a live table on a terminal, plain lines elsewhere."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Protocol, Self

from penstock.core.scope import Scope
from penstock.core.stats import Stats

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_UNSEEN: Final = (OSError, ValueError)
"""What writing to stderr raises when nobody reads it any more, or when it is closed."""


class Display(Protocol):
    """Shows statistics, one after the other."""

    every: float
    """Seconds from one look to the next."""

    def show(self, stats: Stats, note: str) -> None:
        """Show the statistics, and a note beside the time."""
        ...

    def say(self, line: str) -> None:
        """Print a line of its own."""
        ...

    def close(self) -> None:
        """Show no more."""
        ...


def require_rich() -> None:
    """Raise ModuleNotFoundError, with what to install, where rich is missing."""
    if find_spec("rich") is None:
        raise ModuleNotFoundError("open(progress=True) needs rich: pip install 'penstock[progress]'", name="rich")


def show_progress(scope: Scope) -> None:
    """Show the run of `scope` until it is closed."""
    scope.on_closed.append(ProgressDisplay(scope.loop, scope.stats).close)


class ProgressDisplay:
    """Shows a run on stderr, regularly and at its end. No run fails when that is not possible: then it shows no more.

    `look` gives the statistics, `note` what to say beside the time. Unless it `stays`, the table goes at the end, and
    there is no last line.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        look: Callable[[], Stats],
        note: Callable[[], str] = str,
        *,
        stays: bool = True,
    ) -> None:
        self._loop = loop
        self._look = look
        self._note = note
        self._stays = stays
        self._timer: asyncio.TimerHandle | None = None
        self._display: Display | None = None
        if sys.stderr is not None:  # as it is in a program without a console
            with suppress(*_UNSEEN):
                self._display = _display(stays=stays)
        self._tick()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_table(self) -> bool:
        """Whether it shows a table, not lines."""
        return isinstance(self._display, LiveTable)

    def say(self, line: str) -> None:
        """Print a line of its own: above the table, if there is one."""
        self._on_display(lambda display: display.say(line))

    def close(self) -> None:
        """Show no more; a second call does nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._stays:
            self._show()
        self._let_go()

    def _tick(self) -> None:
        self._show()
        if self._display is not None:
            self._timer = self._loop.call_later(self._display.every, self._tick)

    def _show(self) -> None:
        self._on_display(lambda display: display.show(self._look(), self._note()))

    def _on_display(self, act: Callable[[Display], None]) -> None:
        if self._display is not None:
            try:
                act(self._display)
            except _UNSEEN:
                self._let_go()

    def _let_go(self) -> None:
        display, self._display = self._display, None
        if display is not None:
            with suppress(*_UNSEEN):
                display.close()


def _display(*, stays: bool) -> Display:
    if not sys.stderr.isatty():
        return PlainLines()
    from rich.console import Console  # noqa: PLC0415 -- an extra

    return LiveTable(Console(stderr=True), stays=stays)


class LiveTable:
    """A table of the stages, redrawn four times a second."""

    every: float = 0.25

    def __init__(self, console: "Console", *, stays: bool) -> None:
        from rich.live import Live  # noqa: PLC0415 -- an extra

        self._live = Live(console=console, auto_refresh=False, transient=not stays)
        self._live.start()

    def show(self, stats: Stats, note: str) -> None:
        """Redraw the table."""
        self._live.update(_table(stats, note), refresh=True)

    def say(self, line: str) -> None:
        """Print the line above the table."""
        self._live.console.print(line, highlight=False, markup=False)

    def close(self) -> None:
        """Leave the table as it is, or remove it."""
        self._live.stop()


class PlainLines:
    """A line every five seconds, from the first item on."""

    every: float = 5.0

    def show(self, stats: Stats, note: str) -> None:
        """Print a line, unless nothing has happened yet."""
        if any(stage.taken for stage in stats):
            stages = ", ".join(f"{stage.name} {stage.delivered:,} (+{stage.in_flight:,})" for stage in stats)
            failed = sum(stage.failed for stage in stats)
            self.say(f"{_time(stats, note)}: {stages}; {failed:,} failed")

    def say(self, line: str) -> None:
        """Print the line."""
        print(line, file=sys.stderr, flush=True)  # noqa: T201 -- its purpose

    def close(self) -> None:
        """Do nothing."""


def _table(stats: Stats, note: str) -> "Table":
    from rich.table import Table  # noqa: PLC0415 -- an extra

    table = Table("stage", title=_time(stats, note), title_justify="left", box=None)
    for heading in ("done", "running", "waiting", "failed", "per second"):
        table.add_column(heading, justify="right")
    for stage in stats:
        done = stage.taken - stage.in_flight
        table.add_row(
            stage.name,
            f"{done:,} of {stage.total:,}" if stage.total is not None else f"{done:,}",
            *(f"{number:,}" if number else "" for number in (stage.running, stage.buffered, stage.failed)),
            f"{done / stats.seconds:,.0f}" if stats.seconds else "",
        )
    return table


def _time(stats: Stats, note: str) -> str:
    """Say how long the run has taken, how long it will take if the number of items is known, and the note."""
    taken, total = (stats[0].taken, stats[0].total) if len(stats) else (0, None)
    said = [f"{stats.seconds:.0f} s"]
    if taken and total is not None and taken < total:
        said += [f"{taken / total:.0%}", f"{stats.seconds / taken * (total - taken):.0f} s left"]
    return ", ".join([*said, note] if note else said)
