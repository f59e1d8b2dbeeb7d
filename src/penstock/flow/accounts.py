"""What is recorded, as users see it."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, cast

from penstock.core.errors import OptionError
from penstock.flow.context import State
from penstock.flow.results import (
    Pending,
    PipelineError,
    PipelineResult,
    RunInfo,
    Status,
    StepResult,
    StepStatus,
    Unread,
)
from penstock.flow.usage import Usage
from penstock.flow.workspace import Workspace
from penstock.flow.workspace_errors import workspace_errors
from penstock.flow.workspace_files import RUN_ID
from penstock.flow.workspace_reader import WorkspaceReader
from penstock.flow.workspace_tables import RunRow, StepRecord


class RunAccounts:
    """Makes of rows what users see; outputs are read when they are asked for."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def _is_killed(self, row: RunRow) -> bool:
        return row.status == "running" and self._workspace.holder(row.run) is None

    def info(self, row: RunRow) -> RunInfo:
        """Return a run, in a line."""
        status = "killed" if self._is_killed(row) else row.status
        errors = errors_of(row)
        error = main_error(errors, row.status)
        return RunInfo(
            row.run,
            row.pipeline,
            cast("Status", status),
            None if error is None else str(error),
            row.forked_from,
            row.began,
            row.ended,
        )

    def result(self, row: RunRow, records: Mapping[str, StepRecord]) -> PipelineResult[Any]:
        """Sum up what became of a run."""
        killed = self._is_killed(row)
        steps = tuple(self.step_result(row, record, killed=killed) for record in records.values())
        errors = errors_of(row)
        finished = [path for path, record in records.items() if record.status == "completed"]
        usage = sum((record.usage for record in records.values()), Usage())
        last = _last(records) if row.status == "completed" else None
        return PipelineResult(
            row.run,
            row.pipeline,
            cast("Status", "killed" if killed else row.status),
            usage,
            None if last is None else Unread(partial(self._load, row, last)),
            State(lambda: finished, partial(self._load_finished, row, frozenset(finished))),
            steps,
            main_error(errors, row.status),
            errors,
            tuple(json.loads(row.changed)),
        )

    def step_result(self, row: RunRow, record: StepRecord, *, killed: bool = False) -> StepResult:
        """Sum up what became of a step, of a run whose process was `killed` or not."""
        has_output = record.status in {"completed", "waiting"}
        has_value = has_output and (record.status == "completed" or record.reason is not None)
        return StepResult(
            record.path,
            record.name,
            cast("StepStatus", "killed" if killed and record.status == "running" else record.status),
            record.usage,
            record.attempts,
            Unread(partial(self._load, row, record.path)) if has_value else None,
            record.error,
            _moment(record.started),
            _moment(record.finished),
            record.by,
            record.note,
        )

    def pending(self, row: RunRow, record: StepRecord) -> Pending:
        """Return a step that waits."""
        return Pending(
            record.path,
            Unread(partial(self._load, row, record.path)),
            cast("Literal['review', 'interrupted']", record.reason),
            record.refused,
        )

    def _load(self, row: RunRow, path: str) -> Any:
        with self._workspace.reading() as reader, workspace_errors(self._workspace.database, path):
            if reader is None:
                raise KeyError(path)
            return reader.output(row.number, path)

    def _load_finished(self, row: RunRow, finished: frozenset[str], path: str) -> Any:
        if path not in finished:
            raise KeyError(path)
        return self._load(row, path)


def errors_of(row: RunRow) -> tuple[PipelineError, ...]:
    """Return the failures that are recorded."""
    return tuple(PipelineError(code, step, text) for code, step, text in json.loads(row.errors))


def main_error(errors: tuple[PipelineError, ...], status: str) -> PipelineError | None:
    """Why a run ended: of a cancelled one, that it was; else the first failure."""
    if not errors:
        return None
    return errors[-1] if status == "cancelled" else errors[0]


def _last(records: Mapping[str, StepRecord]) -> str | None:
    """Return the path of the last step of a run that is completed."""
    return max((each for each in records.values() if not each.parent), key=lambda each: each.position).path


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def known_run(reader: WorkspaceReader | None, run_id: object) -> tuple[WorkspaceReader, RunRow]:
    """Return the run of that id; an `OptionError` that lists those there are if there is none."""
    run = checked_id(run_id)
    row = None if reader is None else reader.run(run)
    if reader is None or row is None:
        known = [] if reader is None else [each.run for each in reader.runs()]
        raise OptionError(f"there is no run {run!r}: there are {listed_names(known)}")
    return reader, row


def listed_names(names: Iterable[str], most: int = 50) -> str:
    """Names as a message has them."""
    some = list(names)
    text = ", ".join(map(repr, some[:most])) or "none"
    return f"{text} and {len(some) - most} more" if len(some) > most else text


def checked_id(run_id: object) -> str:
    """Return `run_id`, if a run can have it."""
    if not isinstance(run_id, str) or not RUN_ID.fullmatch(run_id):
        raise OptionError(
            f"run_id must be 1 to 200 of A-Z a-z 0-9 . _ : @ + -, first a letter or digit, got {run_id!r}"
        )
    return run_id
