"""Interleaved runs, their medians, and the table of them."""

import asyncio
import gc
import os
import platform
import statistics
import sys
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from time import perf_counter, process_time

import uvloop

CLOCKS: dict[str, Callable[[], float]] = {"elapsed": perf_counter, "cpu": process_time}
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

type Timed = tuple[float, int]
"""Seconds of one run, and how many results came out."""


@dataclass(frozen=True)
class Case:
    """One cell of a table: runs of `items` items; `once` makes one, by the clock of that name."""

    table: Hashable
    row: str
    column: str
    items: int
    once: Callable[[str], Timed]


@dataclass(frozen=True)
class Cell:
    """The runs of one case."""

    microseconds: tuple[float, ...]
    lost: int

    @property
    def median(self) -> float:
        return statistics.median(self.microseconds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a share of the median."""
        if len(self.microseconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.microseconds, n=4, method="inclusive")
        return (high - low) / 2 / self.median


def interleave(cases: Sequence[Case], rounds: int, clock: str = "elapsed") -> dict[Case, Cell]:
    """Run every case once per round; each round starts at another case, so that drift of the machine hits all alike."""
    runs = {case: [] for case in cases}
    for number in range(rounds):
        going_on(f"round {number + 1} of {rounds}, {len(cases)} cases")
        first = number * len(cases) // rounds
        for case in (*cases[first:], *cases[:first]):
            gc.collect()
            runs[case].append(case.once(clock))
    return {
        case: Cell(tuple(seconds / case.items * 1e6 for seconds, _ in timed), case.items - min(n for _, n in timed))
        for case, timed in runs.items()
    }


def going_on(what: str) -> None:
    """Tell what is measured now, beside the tables: a run of minutes is not silent."""
    print(f"# {what}", file=sys.stderr, flush=True)


def once(loop: str, start: Callable[[], Awaitable[int]], clock: str = "elapsed") -> Timed:
    """Time one run on a loop of its own, without making the loop."""
    now = CLOCKS[clock]

    async def timed():
        started = now()
        seen = await start()
        return now() - started, seen

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(timed())


def table(cells: dict[Case, Cell], reference: str) -> str:
    """Median microseconds per item and, behind it, how many times the reference row's."""
    columns = list(dict.fromkeys(case.column for case in cells))
    found = {(case.row, case.column): cell for case, cell in cells.items()}
    body = [
        (row, *(text(found.get((row, c)), found.get((reference, c))) for c in columns))
        for row in dict.fromkeys(case.row for case in cells)
    ]
    return aligned([("", *columns), *body])


def text(cell: Cell | None, reference: Cell | None) -> str:
    if cell is None:
        return ""
    shown = f"{cell.median:.1f}"
    if reference is not None and reference is not cell:
        shown += f" ({cell.median / reference.median:.2f}x)"
    return shown + (f" LOST {cell.lost}" if cell.lost else "")


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells as a Markdown table that also reads well as plain text."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    head, *body = [
        f"| {line[0]:<{widths[0]}} | "
        + " | ".join(f"{c:>{w}}" for c, w in zip(line[1:], widths[1:], strict=True))
        + " |"
        for line in lines
    ]
    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:])]) + "|"
    return "\n".join([head, rule, *body])


def machine(packages: Iterable[str]) -> str:
    """One line: what the numbers were made with."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{platform.python_implementation()} {platform.python_version()}, {versions}, {cpu()}, {platform.system()}"


def busyness() -> str:
    """One line: whether others use the machine."""
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    verdict = "quiet" if load < processors / 4 else "busy: elapsed times mean little, see --clock cpu"
    return f"load {load:.1f} on {processors} processors before the start ({verdict})"


def cpu() -> str:
    try:
        with open("/proc/cpuinfo") as info:  # noqa: PTH123 one read of one line
            models = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
    except OSError:
        models = []
    return f"{len(models)} x {models[0]}" if models else platform.machine()
