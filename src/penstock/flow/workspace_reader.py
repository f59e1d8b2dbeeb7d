"""Reads what is recorded of runs and their steps.

A composite step has no output of its own: a parallel, a map gives those of its children, all others that of one step
(`same`). Each is put together when it is read, so that nothing is stored twice.
"""

from collections.abc import Callable, Iterator
from functools import wraps
from threading import RLock
from typing import TYPE_CHECKING, Any, Concatenate, Final, cast

from penstock.flow import codec
from penstock.flow.workspace_files import WorkspaceFiles
from penstock.flow.workspace_tables import RunRow, StepRecord

if TYPE_CHECKING:
    from penstock.durable.sqlite.connection import Connection

_RUN: Final = (
    "SELECT number, run, secret, pipeline, source, value, status, errors, changed, forked_from, began, ended, cancel "
    "FROM flow_runs"
)
_STEP: Final = (
    "SELECT path, parent, position, name, kind, gives, status, attempts, interrupted, code, started, finished, error, "
    "requests, input_tokens, output_tokens, seconds, same, reason, refused, "
    "answer, by, note FROM flow_steps"
)
_STORED: Final = "SELECT kind, gives, status, same, output, file, digest FROM flow_steps WHERE run = ? AND path = ?"
_CHILDREN: Final = (
    "SELECT path, status, same, output, file, digest, kind, gives FROM flow_steps "
    "WHERE run = ? AND parent = ? ORDER BY position"
)


def _one_at_a_time[**P, T](
    read: Callable[Concatenate["WorkspaceReader", P], T],
) -> Callable[Concatenate["WorkspaceReader", P], T]:
    """Have threads read in turn: steps read what came before them, and a connection is for one at a time."""

    @wraps(read)
    def reading(self: "WorkspaceReader", /, *args: P.args, **options: P.kwargs) -> T:
        with self._reading:  # pyright: ignore[reportPrivateUsage] -- of this file
            return read(self, *args, **options)

    return reading


class WorkspaceReader:
    """Reads what is recorded; from any thread, one at a time."""

    def __init__(self, workspace: WorkspaceFiles, connection: "Connection") -> None:
        self.workspace = workspace
        self._reading = RLock()
        self.connection: Connection = connection

    @_one_at_a_time
    def runs(self) -> list[RunRow]:
        """Return all runs, the one begun last first."""
        return [RunRow(*row) for row in self.connection.execute(f"{_RUN} ORDER BY began DESC, number DESC")]

    @_one_at_a_time
    def run(self, run: str) -> RunRow | None:
        """Return what is recorded of a run."""
        for row in self.connection.execute(f"{_RUN} WHERE run = ?", (run,)):
            return RunRow(*row)
        return None

    @_one_at_a_time
    def shape(self, number: int) -> str:
        """Return the paths and kinds that the definition of a run had, as JSON."""
        for (shape,) in self.connection.execute("SELECT shape FROM flow_runs WHERE number = ?", (number,)):
            return cast("str", shape)
        raise KeyError(number)

    @_one_at_a_time
    def records(self, number: int) -> dict[str, StepRecord]:
        """Return what is recorded of the steps of a run, by path, in the order of the definition."""
        below: dict[str, list[StepRecord]] = {}
        rows = self.connection.execute(f"{_STEP} WHERE run = ? ORDER BY parent, position", (number,))
        for row in rows:
            record = StepRecord(*row)
            below.setdefault(record.parent, []).append(record)
        found: dict[str, StepRecord] = {}
        agenda = list(reversed(below.get("", ())))
        while agenda:
            record = agenda.pop()
            found[record.path] = record
            agenda.extend(reversed(below.get(record.path, ())))
        return found

    @_one_at_a_time
    def record(self, number: int, path: str) -> StepRecord | None:
        """Return what is recorded of a step."""
        for row in self.connection.execute(f"{_STEP} WHERE run = ? AND path = ?", (number, path)):
            return StepRecord(*row)
        return None

    @_one_at_a_time
    def answered(self, number: int, path: str) -> Any:
        """Return the value that a step was approved with."""
        for (value,) in self.connection.execute(
            "SELECT answered FROM flow_steps WHERE run = ? AND path = ?", (number, path)
        ):
            return codec.unpacked(value)
        raise KeyError(path)

    @_one_at_a_time
    def value(self, number: int, hint: Any = None) -> Any:
        """Return the value of a run."""
        return codec.unpacked(self.packed_value(number), hint)

    @_one_at_a_time
    def packed_value(self, number: int) -> bytes:
        """Return the value of a run, as bytes."""
        for (value,) in self.connection.execute("SELECT value FROM flow_runs WHERE number = ?", (number,)):
            return cast("bytes", value)
        raise KeyError(number)

    @_one_at_a_time
    def output(self, number: int, path: str, hint: Any = None) -> Any:
        """Return the output of a step, or what waits there; `KeyError` if there is none."""
        for kind, gives, status, same, output, file, digest in self.connection.execute(_STORED, (number, path)):
            return self._output(number, path, (kind, gives, status, same, output, file, digest), hint)
        raise KeyError(path)

    def _output(self, number: int, path: str, row: tuple[Any, ...], hint: Any) -> Any:
        while True:
            _, gives, _, same, output, file, digest = row
            if output is not None or file is not None:
                content = cast("bytes", output) if file is None else self.workspace.content(path, file, digest)
                return codec.unpacked(content, hint)
            if gives and same is None:
                children = self.connection.execute(_CHILDREN, (number, path)).fetchall()
                found = (
                    self._output(number, child, (kind, of, status, of_child, output, file, digest), hint)
                    for child, status, of_child, output, file, digest, kind, of in children
                    if status == "completed"
                )
                return tuple(found) if gives == "tuple" else list(found)
            if same is None:
                raise KeyError(path)
            if not same:
                return self.value(number, hint)
            path = same
            row = next(iter(self.connection.execute(_STORED, (number, path))), ())
            if not row:
                raise KeyError(path)

    @_one_at_a_time
    def memo(self, code: bytes, item: bytes) -> bytes | None:
        """Return the output that is kept for a value, as bytes."""
        for (output,) in self.connection.execute(
            "SELECT output FROM flow_memo WHERE code = ? AND item = ?", (code, item)
        ):
            return cast("bytes", output)
        return None

    def files(self) -> Iterator[str]:
        """Give all files that are named."""
        for (file,) in self.connection.execute("SELECT file FROM flow_steps WHERE file IS NOT NULL"):
            yield file
