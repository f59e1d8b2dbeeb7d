"""How a run of a pipeline goes, on stderr: a live tree on a terminal, plain lines elsewhere."""

import asyncio
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from penstock.core.text import escaped, one_line

if TYPE_CHECKING:
    from rich.live import Live
    from rich.tree import Tree

    from penstock.flow import PipelineEngine, RunInfo, StepResult

_EVERY: Final = 0.25
"""Seconds between two looks of the live tree."""

_LEAST_SHARE: Final = 20
"""The pause between two looks, in times of what one takes: the run is to have the time."""

_MOST: Final = 40
"""Steps that the tree shows."""

_SIGNS: Final = {"completed": "✓", "failed": "✗", "running": "…", "waiting": "?", "cancelled": "-", "skipped": "-"}


class StepDisplay:
    """Shows a run while it goes on."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._run: str | None = None
        self._live: Live | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._engine: PipelineEngine | None = None

    def status(self, info: "RunInfo") -> None:
        """Hear of the status of the run."""
        self._run = info.run_id
        if self._live is None and info.status == "running":
            self.say(f"run {escaped(info.run_id)}: running")

    def step(self, result: "StepResult") -> None:
        """Hear of a step that has completed or failed."""
        if self._live is None:
            why = f": {one_line(result.error, 300)}" if result.error else ""
            self.say(f"{escaped(result.path)}: {result.status}{why}")

    def say(self, line: str) -> None:
        """Print a line of its own."""
        if self._live is not None:
            self._live.console.print(line, highlight=False, markup=False)
        elif sys.stderr is not None:
            with suppress(OSError):  # who read it has left
                print(line, file=sys.stderr, flush=True)  # noqa: T201 -- this is what it is for

    @contextmanager
    def shown(self, loop: asyncio.AbstractEventLoop, engine: "PipelineEngine") -> Generator[None]:
        """Show it within this block."""
        self._engine = engine
        if sys.stderr is not None and sys.stderr.isatty():
            from rich.console import Console  # noqa: PLC0415 -- only a terminal needs it
            from rich.live import Live  # noqa: PLC0415 -- as above

            console = Console(stderr=True)
            if not console.is_dumb_terminal:  # else it cannot take back what it has shown
                self._live = Live(console=console, auto_refresh=False, transient=True)
                self._live.start()
                self._tick(loop)
        try:
            yield
        finally:
            self.close()

    def close(self) -> None:
        """Stop showing it; may be called twice."""
        if self._timer is not None:
            self._timer.cancel()
        live, self._live, self._timer = self._live, None, None
        if live is not None:
            live.stop()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._live is not None:
            began = perf_counter()
            self._live.update(self._tree(), refresh=True)
            pause = max(_EVERY, _LEAST_SHARE * (perf_counter() - began))
            self._timer = loop.call_later(pause, self._tick, loop)

    def _tree(self) -> "Tree":
        from rich.tree import Tree  # noqa: PLC0415 -- only a terminal needs it

        root = Tree(escaped(self._title))
        steps: tuple[Any, ...] = ()
        if self._run is not None and self._engine is not None:
            with suppress(Exception):  # it is not recorded yet, or cannot be read now
                steps = self._engine.result(self._run).steps
        branches = {"": root}
        for step in chosen(steps):
            above = step.path
            while above not in branches:
                above = _above(above)
            name = step.path.removeprefix(above).removeprefix("/")
            branches[step.path] = branches[above].add(f"{_SIGNS.get(step.status, ' ')} {escaped(name)}  {step.status}")
        if len(steps) > _MOST:
            finished = sum(step.status == "completed" for step in steps)
            root.add(f"{finished:,} of {len(steps):,} steps completed")
        return root


def _above(path: str) -> str:
    """Return the path of the step that one is in: `m` of `m/a`, `each` of `each[0]`, "" of `each`."""
    if path.endswith("]"):
        return path.rpartition("[")[0]
    return path.rpartition("/")[0]


def chosen(steps: tuple[Any, ...]) -> list[Any]:
    """Those that are shown: all, or of many those that are under way."""
    if len(steps) <= _MOST:
        return list(steps)
    return [step for step in steps if step.status in {"running", "waiting", "failed"}][:_MOST]
