"""Progress of a run, on stderr: a live table on a terminal, plain lines elsewhere."""

import asyncio
import sys
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from penstock.core.scope import Scope
from penstock.core.stats import Stats

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_REDRAW_S = 0.25
_LINE_S = 5.0

_UNSEEN = (OSError, ValueError)
"""What a stderr raises that nobody reads any more, or that is closed."""


class _Display(Protocol):
    """Shows statistics, every so many seconds."""

    every: float

    def show(self, stats: Stats) -> None:
        """Show how things stand."""
        ...

    def close(self) -> None:
        """Show no more."""
        ...


def require_rich() -> None:
    """Raise ModuleNotFoundError, with what to install, where rich is missing."""
    if find_spec("rich") is None:
        raise ModuleNotFoundError("open(progress=True) needs rich: pip install 'penstock[progress]'", name="rich")


def show_progress(scope: Scope) -> None:
    """Show how the run of `scope` goes until it is closed or nobody can be shown: no run fails for that."""
    if sys.stderr is not None:  # as it is in a program without a console
        with suppress(*_UNSEEN):
            _Ticker(scope, _display())


def _display() -> _Display:
    if not sys.stderr.isatty():
        return PlainLines()
    from rich.console import Console  # noqa: PLC0415 -- an extra

    return LiveTable(Console(stderr=True))


class _Ticker:
    """Has a display show the statistics of a run regularly, and at its end; after the first failure no more."""

    def __init__(self, scope: Scope, display: _Display) -> None:
        self._scope = scope
        self._display = display
        self._timer: asyncio.TimerHandle | None = None
        scope.on_closed.append(self._close)
        self._tick()

    def _tick(self) -> None:
        self._timer = None
        if self._show():
            self._timer = self._scope.loop.call_later(self._display.every, self._tick)

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            if self._show():
                self._close_display()

    def _show(self) -> bool:
        """Show how things stand; whether that was possible."""
        try:
            self._display.show(self._scope.stats())
        except _UNSEEN:
            self._close_display()
            return False
        return True

    def _close_display(self) -> None:
        with suppress(*_UNSEEN):
            self._display.close()


class LiveTable:
    """A table of the stages, redrawn four times a second; it stays when the run is over."""

    every = _REDRAW_S

    def __init__(self, console: "Console") -> None:
        from rich.live import Live  # noqa: PLC0415 -- an extra

        self._live = Live(console=console, auto_refresh=False)
        self._live.start()

    def show(self, stats: Stats) -> None:
        """Redraw the table."""
        self._live.update(_table(stats), refresh=True)

    def close(self) -> None:
        """Leave the table as it is."""
        self._live.stop()


class PlainLines:
    """A line every five seconds, and one at the end."""

    every = _LINE_S

    def show(self, stats: Stats) -> None:
        """Print a line, unless nothing has happened yet."""
        if any(stage.taken for stage in stats):
            stages = ", ".join(f"{stage.name} {stage.delivered:,} (+{stage.in_flight:,})" for stage in stats)
            failed = sum(stage.failed for stage in stats)
            print(f"{_time(stats)}: {stages}; {failed:,} failed", file=sys.stderr, flush=True)  # noqa: T201 -- its purpose

    def close(self) -> None:
        """Do nothing."""


def _table(stats: Stats) -> "Table":
    from rich.table import Table  # noqa: PLC0415 -- an extra

    table = Table("stage", title=_time(stats), title_justify="left", box=None)
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


def _time(stats: Stats) -> str:
    """How long the run has taken and, if it is known how many items there are, how long it will take."""
    taken, total = (stats[0].taken, stats[0].total) if len(stats) else (0, None)
    if not taken or total is None or taken >= total:
        return f"{stats.seconds:.0f} s"
    return f"{stats.seconds:.0f} s, {taken / total:.0%}, {stats.seconds / taken * (total - taken):.0f} s left"
