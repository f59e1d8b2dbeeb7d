"""What is recorded of the steps of a run: their statuses and outputs, as they are read and written while it goes on."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import GenericAlias
from typing import Any, Final

from penstock.flow import codec
from penstock.flow.codec import ClassGone
from penstock.flow.leaf import Leaf
from penstock.flow.pipeline import Pipeline
from penstock.flow.recorder import Recorder, Statement
from penstock.flow.steps import Step
from penstock.flow.workspace_reader import WorkspaceReader
from penstock.flow.workspace_tables import StepRecord

INSERT_STEP: Final = (
    "INSERT INTO flow_steps(run, path, parent, position, name, kind, gives, status, attempts, interrupted, requests, "
    "seconds, note) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, '') ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True, slots=True)
class OutputOf:
    """The output of the step at a path; "" is the value of the run."""

    path: str


@dataclass(frozen=True, slots=True)
class Packed:
    """A value as bytes."""

    content: bytes


type Whence = OutputOf | Packed
"""Where a step has its value from; each who asks is given a copy."""


class StepJournal:
    """Reads and writes what is recorded of the steps of a run.

    Attributes:
        number: of the run, in the tables.
        run: its id.
        records: what is recorded of each step, by path; the newest, whether or not it is committed.
        reader: reads what is committed.
    """

    def __init__(
        self,
        pipeline: Pipeline[Any, Any],
        *,
        number: int,
        run: str,
        records: dict[str, StepRecord],
        reader: WorkspaceReader,
        recorder: Recorder,
        told: Callable[[StepRecord], None],
    ) -> None:
        self._pipeline = pipeline
        self.number: int = number
        self.run: str = run
        self.records: dict[str, StepRecord] = records
        self.reader: WorkspaceReader = reader
        self._recorder = recorder
        self.told: Callable[[StepRecord], None] = told

    # Values

    def load(self, origin: Whence, step: Step[Any, Any] | None = None) -> Any:
        """Load a copy of the value; where a class of it is gone, that of the annotations of `step` is taken."""
        try:
            return self._loaded(origin, None)
        except ClassGone:
            hints = [*_hints(step), *_hints(self._pipeline)]
            return self._loaded(origin, GenericAlias(tuple, tuple(hints)))

    def _loaded(self, origin: Whence, hint: Any) -> Any:
        if isinstance(origin, Packed):
            return codec.unpacked(origin.content, hint)
        if not origin.path:
            return self.reader.value(self.number, hint)
        return self.reader.output(self.number, origin.path, hint)

    def answered(self, path: str) -> Any:
        """Load the value that somebody gave for the step at a path."""
        return self.reader.answered(self.number, path)

    # Writing

    def inserted(self, *records: StepRecord) -> Statement:
        """Make the statements that insert records, with nothing but their places and statuses."""
        rows = tuple(
            (self.number, each.path, each.parent, each.position, each.name, each.kind, each.gives, each.status)
            for each in records
        )
        return INSERT_STEP, rows

    def changed(self, record: StepRecord, /, **columns: Any) -> Statement:
        """Make the statement that writes these columns, and change those that the record has."""
        for name, value in columns.items():
            if name in StepRecord.__slots__:
                setattr(record, name, value)
        names = ", ".join(f"{name} = ?" for name in columns)
        return (
            f"UPDATE flow_steps SET {names} WHERE run = ? AND path = ?",  # noqa: S608 -- names of ours
            (*columns.values(), self.number, record.path),
        )

    def write(self, *statements: Statement, tells: StepRecord | None = None, **options: Any) -> asyncio.Future[None]:
        """Have it committed; then who wants to know is told of the record."""
        committed = self._recorder.write(*statements, **options)
        if tells is not None:
            committed.add_done_callback(lambda _: self._tell(committed, tells))
        return committed

    def _tell(self, committed: asyncio.Future[None], record: StepRecord) -> None:
        if committed.exception() is None:
            self.told(record)

    def stored(self, path: str, content: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the columns of an output of its own, and the file that has to be there before."""
        stored = self.reader.workspace.stored(self.run, path, content)
        columns = {"same": None, "output": stored.output, "file": stored.file, "digest": stored.digest}
        return columns, {} if stored.place is None else {"file": (stored.place, content)}

    def columns_of(self, path: str, origin: Whence) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the columns that say where a value is, for a step that has it or waits with it."""
        if isinstance(origin, Packed):
            return self.stored(path, origin.content)
        return {"same": origin.path}, {}


def _hints(step: Step[Any, Any] | None) -> Iterator[Any]:
    """Give the types that the functions of a step are annotated with."""
    if isinstance(step, Leaf):
        yield from step.annotations().values()
    for each in () if step is None else step.children().values():
        yield from _hints(each)
