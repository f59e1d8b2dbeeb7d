"""Runs a job of a command under a display; the first signal ends it in order, the second at once."""

import asyncio
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from penstock.cli import retries
from penstock.cli.interruption import Interruption
from penstock.core.errors import PenstockError
from penstock.core.stats import Stats
from penstock.progress import ProgressDisplay

if TYPE_CHECKING:
    from penstock.workflows import EmbedReport, FetchReport, ThumbnailReport

_LOOK: Final = 0.05
"""Seconds between two looks at whether the first result is stored."""


class Watched(Protocol):
    """A job that can be watched and ended."""

    async def run(self) -> object:
        """Do it."""
        ...

    def stop(self) -> None:
        """Finish what is in flight and take nothing more; called on the loop."""
        ...


@dataclass(frozen=True, slots=True)
class Shown:
    """What a display shows of a job.

    Attributes:
        stats: its stages, each named with what it counts.
        note: what to say beside the time.
        first: what its first result is called.
        first_row_seconds: when that was stored; None before.
    """

    stats: Callable[[], Stats]
    note: Callable[[], str]
    first: str
    first_row_seconds: Callable[[], float | None]


def shown(
    report: "Callable[[], EmbedReport | FetchReport | ThumbnailReport]",
    counts: Mapping[str, str],
    note: Callable[[], str],
    first: str,
) -> Shown:
    """Return what a display shows of a job by its report; `counts` says what each stage counts."""

    def stats() -> Stats:
        now = report()
        return Stats(tuple(replace(stage, name=counts[stage.name]) for stage in now.stages), now.seconds)

    return Shown(stats, note, first, lambda: report().first_row_seconds)


async def watched(job: Watched, shown: Shown) -> tuple[PenstockError | None, signal.Signals | None]:
    """Run the job under a display; return the error that ended it and the signal that stopped it, if there was one."""
    stopping = Interruption(
        job.stop,
        "what is in flight is finished and stored; {} again aborts",
        "aborted; what was stored stays, and the same command goes on from there",
    )
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stopping, each)
    display = ProgressDisplay(loop, shown.stats, shown.note, stays=False)
    with display as stopping.display, retries.told():
        if not display.is_table:
            _tell_of_first(shown, display)
        try:
            await job.run()
        except PenstockError as error:
            return error, stopping.received
    return None, stopping.received


def _tell_of_first(shown: Shown, display: ProgressDisplay) -> None:
    """Say when the first result is stored: look again until it is, as long as the loop runs."""
    first = shown.first_row_seconds()
    if first is None:
        asyncio.get_running_loop().call_later(_LOOK, _tell_of_first, shown, display)
    else:
        display.say(f"first {shown.first} stored after {first:.2f} s")
