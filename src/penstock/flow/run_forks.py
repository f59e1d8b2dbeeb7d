"""Forks: new runs that keep of another what does not depend on one of its steps."""

import secrets
from collections.abc import Iterator, Mapping
from time import time
from typing import TYPE_CHECKING, Any, Final

from penstock.core.errors import OptionError
from penstock.flow import codec
from penstock.flow.accounts import listed_names
from penstock.flow.recorder import put_file
from penstock.flow.session import NEW_RUN
from penstock.flow.step_journal import INSERT_STEP
from penstock.flow.workspace import Workspace
from penstock.flow.workspace_files import StoredOutput
from penstock.flow.workspace_reader import WorkspaceReader
from penstock.flow.workspace_tables import RunRow, StepRecord

if TYPE_CHECKING:
    from penstock.durable.sqlite.connection import Connection

_COLUMNS: Final = (
    "path, parent, position, name, kind, gives, status, attempts, interrupted, code, started, finished, error, "
    "requests, input_tokens, output_tokens, seconds, same, output, file, digest, by, note"
)
_KEPT: Final = (
    f"INSERT INTO flow_steps(run, {_COLUMNS}) SELECT ?, {_COLUMNS} FROM flow_steps "  # noqa: S608 -- names of ours
    "WHERE run = ? AND path = ?"
)
_REPLACED: Final = "UPDATE flow_steps SET output = ?, file = ?, digest = ?, same = NULL WHERE run = ? AND path = ?"


class Fork:
    """What a run is made of that is forked from another.

    Raises:
        OptionError: there is no such step or output; lists those there are.
        OutputRefused: an output cannot be stored.
    """

    def __init__(self, reader: WorkspaceReader, row: RunRow, at: str, outputs: Mapping[str, Any]) -> None:
        self._row = row
        records = reader.records(row.number)
        if at not in records:
            raise OptionError(f"run {row.run!r} has no step {at!r}: there are {listed_names(records)}")
        self._kept = _kept(records, at)
        finished = [path for path in self._kept if records[path].status == "completed"]
        for path in outputs:
            if path not in finished:
                raise OptionError(
                    f"run {row.run!r} has no output {path!r} to replace: there are {listed_names(finished)}"
                )
        self._again = list(_lineage(records, at))
        self._shape = reader.shape(row.number)
        self._contents = {path: codec.packed(value, f"outputs[{path!r}]") for path, value in outputs.items()}

    def make(self, workspace: Workspace, new: str, *, power: bool) -> None:
        """Make the run `new`, pending; large outputs are files before the commit that names them."""
        from penstock.durable.sqlite.connection import transaction  # noqa: PLC0415 -- needs an extra

        stored = {path: workspace.stored(new, path, content) for path, content in self._contents.items()}
        connection = workspace.writer(power=power)
        try:
            with workspace.making(new):
                for path, each in stored.items():
                    if each.place is not None:
                        put_file(each.place, self._contents[path])
                with transaction(connection):
                    self._record(connection, new, stored)
        finally:
            connection.close()

    def _record(self, connection: "Connection", new: str, stored: Mapping[str, StoredOutput]) -> None:
        row = self._row
        values = (new, secrets.token_hex(8), row.pipeline, row.source, self._shape, row.value, row.run, time())
        connection.execute(NEW_RUN, values)
        number = connection.last_insert_rowid()
        connection.executemany(_KEPT, [(number, row.number, path) for path in self._kept])
        connection.executemany(
            INSERT_STEP,
            [
                (number, each.path, each.parent, each.position, each.name, each.kind, each.gives, "pending")
                for each in self._again
            ],
        )
        connection.executemany(
            _REPLACED, [(each.output, each.file, each.digest, number, path) for path, each in stored.items()]
        )


def _kept(records: Mapping[str, StepRecord], at: str) -> list[str]:
    """Return the paths of what is kept when a run is forked at a step: what is finished, and does not depend on it."""
    lineage: dict[str, int] = {}
    above = at
    while above in records:
        lineage[records[above].parent] = records[above].position
        above = records[above].parent

    def depends(record: StepRecord) -> bool:
        if record.path == at or record.path in lineage:
            return True
        each: StepRecord | None = record
        while each is not None:
            if each.path == at:
                return True
            place = lineage.get(each.parent)
            parent = records.get(each.parent)
            is_sequence = parent is None or parent.kind in {"pipeline", "loop"}
            if place is not None and is_sequence and each.position > place:
                return True
            each = parent
        return False

    return [path for path, each in records.items() if each.status in {"completed", "skipped"} and not depends(each)]


def _lineage(records: Mapping[str, StepRecord], path: str) -> Iterator[StepRecord]:
    """Give a step and those round it: they begin anew, and what was chosen on the way to it holds."""
    while path in records:
        yield records[path]
        path = records[path].parent
