"""One call of `run` or `resume`: holds the lock, has the run executed, and records how that ended."""

import asyncio
import json
import secrets
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from time import time
from typing import Any, Final, TypedDict

from penstock.core.log import LOG
from penstock.durable.fingerprint import OnChange
from penstock.durable.sink import Durability
from penstock.flow.accounts import RunAccounts, listed_names, main_error
from penstock.flow.codes import Codes
from penstock.flow.context import State
from penstock.flow.execution import Execution, tell
from penstock.flow.matching import matched, new_paths, shape_of
from penstock.flow.pipeline import Pipeline
from penstock.flow.recorder import Noticed, Recorder, Statement, settled
from penstock.flow.results import PipelineError, PipelineResult, RunInfo, StepResult
from penstock.flow.usage import Usage
from penstock.flow.workspace import Workspace
from penstock.flow.workspace_errors import workspace_errors
from penstock.flow.workspace_reader import WorkspaceReader
from penstock.flow.workspace_tables import RunRow, StepRecord
from penstock.tasks.tokens import CancelToken, in_loop

_BEGUN: Final = (
    "UPDATE flow_runs SET status = 'running', errors = '[]', changed = ?, ended = NULL, shape = ?, "
    "source = ? WHERE number = ?"
)
ENDED_RUN: Final = "UPDATE flow_runs SET status = ?, errors = ?, ended = ?, cancel = 0 WHERE number = ?"
_PAUSED: Final = (
    "UPDATE flow_runs SET status = 'paused', cancel = 0 WHERE number = ? AND cancel IS NOT ? AND NOT EXISTS "
    "(SELECT 1 FROM flow_steps WHERE run = flow_runs.number AND status = 'waiting' AND reason IS NOT NULL "
    "AND answer IS NOT NULL)"
)
_NO_CANCEL: Final = "UPDATE flow_runs SET cancel = 0 WHERE number = ?"
_PAUSED_TO_CANCELLED: Final = (
    "UPDATE flow_runs SET status = 'cancelled', errors = ?, ended = ? WHERE run = ? AND status = 'paused'"
)
NEW_RUN: Final = (
    "INSERT INTO flow_runs(run, secret, pipeline, source, shape, value, status, errors, changed, forked_from, began, "
    "cancel) VALUES (?, ?, ?, ?, ?, ?, 'pending', '[]', '[]', ?, ?, 0)"
)


class PipelineRunOptions(TypedDict, total=False):
    """Options of `run` and `resume`.

    Attributes:
        cancel: stops the run when it is signalled; signalled before, nothing is started.
        on_change: what becomes of finished steps whose code is another now. "continue", the default: they keep their
            output, and are named. "refuse": the run is refused. "restart": all steps are done again.
    """

    cancel: CancelToken | None
    on_change: OnChange


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The options of an engine, checked."""

    workspace: Workspace
    accounts: RunAccounts
    concurrency: int
    durability: Durability
    on_step_complete: Callable[[StepResult], object] | None
    on_status_change: Callable[[RunInfo], object] | None
    grace: float


class Session:
    """One call of `run` or `resume`: holds the lock, has the run executed, and records how that ended."""

    def __init__(
        self,
        settings: EngineSettings,
        pipeline: Pipeline[Any, Any],
        run: str,
        content: bytes | None,
        given: PipelineRunOptions,
    ) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._run = run
        self._content = content
        self._token = given.get("cancel")
        self._on_change: OnChange = given.get("on_change", "continue")
        self._workspace = settings.workspace
        self._codes = Codes()
        self._cancelled: asyncio.CancelledError | KeyboardInterrupt | None = None
        self._is_asked = False
        self._holding: int | None = None
        self._execution: Execution | None = None
        self._row: RunRow
        self._recorder: Recorder
        self._reader: WorkspaceReader
        self._errors: tuple[PipelineError, ...] = ()

    async def go(self) -> PipelineResult[Any]:
        """Go on with the run, or begin it.

        Raises:
            PipelineError: `ALREADY_RUNNING`.
            asyncio.CancelledError: the task was cancelled; that is recorded.
            KeyboardInterrupt: Ctrl-C met a step; that is recorded as a cancel, too.
        """
        try:
            with self._workspace.locked(self._run):
                result = await self._locked()
        except PipelineError as error:
            if error.code == "ALREADY_RUNNING":
                raise
            return not_begun(self._run, self._pipeline, error)
        if self._cancelled is not None:
            raise self._cancelled
        return result

    async def _patiently(self, work: Coroutine[Any, Any, None]) -> None:
        """Await it; a cancellation, which it outlasts, is raised at the very end."""
        try:
            await work
        except asyncio.CancelledError as error:
            self._cancelled = error

    async def _locked(self) -> PipelineResult[Any]:
        with workspace_errors(self._workspace.database):
            connection = self._workspace.writer(power=self._settings.durability == "power")
            reader = self._workspace.reader()
        assert reader is not None
        self._reader = reader
        try:
            row = reader.run(self._run)
            number = row.number if row is not None else _next_number(reader)
            self._holding = self._workspace.holding(self._run)
            self._recorder = Recorder(
                connection,
                number,
                holding=self._holding,
                loop=asyncio.get_running_loop(),
                noticed=self._notice,
                failed=self._writing_failed,
            )
            self._recorder.start()
            try:
                with workspace_errors(self._workspace.database):
                    return await self._recorded(row)
            finally:
                reader.connection.close()  # the last one to close writes: it leaves the database alone, without its log
                await self._patiently(self._recorder.close())
                if self._cancelled is not None:
                    self._cancel_paused()
        finally:
            reader.connection.close()

    async def _recorded(self, row: RunRow | None) -> PipelineResult[Any]:
        if row is None:
            await self._record_new()
            row = self._reader.run(self._run)
            assert row is not None
        self._row = row
        self._recorder.number = row.number
        if row.status == "completed":
            records = self._reader.records(row.number)
            changed = matched(self._pipeline, records, self._codes).changed
            self._warn_of(changed)
            row.changed = json.dumps(changed)
            return self._settings.accounts.result(row, records)
        while True:
            refused = await self._once()
            if refused is not None:
                return not_begun(self._run, self._pipeline, refused)
            row = self._reader.run(self._run)
            assert row is not None
            self._is_asked = row.cancel == self._holding
            if row.status == "running":
                continue
            self._row = row
            self._tell_status()
            if row.status != "paused" or not await self._is_to_go_on():
                break
        row = self._row
        result = self._settings.accounts.result(row, self._reader.records(row.number))
        if self._errors:
            result = replace(result, error=main_error(self._errors, row.status), errors=self._errors)
        if row.status == "completed":
            with suppress(PipelineError):
                result.output  # noqa: B018 -- is read while the run is ours
        return result

    def _cancel_paused(self) -> None:
        """Cancel the run if it was left paused: the cancellation came when that was committed."""
        with workspace_errors(self._workspace.database):
            self._workspace.write(cancelling_paused(self._run), power=self._settings.durability == "power")

    async def _is_to_go_on(self) -> bool:
        """Whether somebody has cancelled or answered while it was told that the run is paused."""
        row = self._reader.run(self._run)
        assert row is not None
        self._row = row
        self._is_asked = row.cancel == self._holding
        if row.status != "paused":  # the cancel is done: it is not for whoever holds the lock next
            await self._patiently(settled(self._recorder.write((_NO_CANCEL, (row.number,)))))
            self._tell_status()
            return False
        return self._is_to_stop or any(
            each.status == "waiting" and each.answer is not None for each in self._reader.records(row.number).values()
        )

    async def _record_new(self) -> None:
        shape = json.dumps(shape_of(self._pipeline))
        values = (
            self._run,
            secrets.token_hex(8),
            self._pipeline.name,
            self._pipeline.source,
            shape,
            self._content,
            None,
            time(),
        )
        await self._patiently(settled(self._recorder.write((NEW_RUN, values))))

    async def _once(self) -> PipelineError | None:
        """Have it executed until nothing more can be done; why it was refused, if it was."""
        row, reader = self._row, self._reader
        records = reader.records(row.number)
        statements, refused = self._fitted(records)
        if refused is not None:
            return refused
        execution = self._execution = Execution(
            self._pipeline,
            row,
            records,
            reader=reader,
            recorder=self._recorder,
            codes=self._codes,
            concurrency=self._settings.concurrency,
            grace=self._settings.grace,
            told=partial(self._tell_step, row),
        )
        if not self._is_to_stop:
            await self._patiently(settled(self._recorder.write(*statements)))
            self._clean()
            self._tell_status()
        await self._execute(execution)
        await self._end(execution)
        return None

    def _fitted(self, records: dict[str, StepRecord]) -> tuple[list[Statement], PipelineError | None]:
        """Make the statements by which the run goes on with this definition; or say why it cannot."""
        row = self._row
        match = matched(self._pipeline, records, self._codes)
        statements: list[Statement] = []
        if self._on_change == "restart" and (match.gone or match.changed):
            statements.append(("DELETE FROM flow_steps WHERE run = ?", (row.number,)))
            records.clear()
            match.changed.clear()
        elif match.gone or (match.changed and self._on_change == "refuse"):
            new = new_paths(self._reader.shape(row.number), self._pipeline)
            what = f"gone: {listed_names(match.gone)}; new: {listed_names(new)}"
            if not match.gone:
                what = f"changed: {listed_names(match.changed)}"
            return [], PipelineError("DEFINITION_CHANGED", None, f"finished steps of run {self._run!r} are {what}")
        for path in match.stale:
            if path in records:
                del records[path]
                statements.append(("DELETE FROM flow_steps WHERE run = ? AND path = ?", (row.number, path)))
        statements.append(
            (
                "UPDATE flow_steps SET status = 'killed' WHERE run = ? AND status = 'running'",
                (row.number,),
            )
        )
        for record in records.values():
            if record.status == "running":
                record.status = "killed"
        self._warn_of(match.changed)
        shape = json.dumps(shape_of(self._pipeline))
        source = self._pipeline.source or row.source
        statements.append((_BEGUN, (json.dumps(match.changed), shape, source, row.number)))
        return statements, None

    def _warn_of(self, changed: list[str]) -> None:
        if changed:
            LOG.warning("run %r: finished steps have other code now: %s", self._run, ", ".join(changed))

    async def _execute(self, execution: Execution) -> None:
        if self._is_to_stop:
            execution.cancel()
            return
        forget: Callable[[], None] = _nothing
        if self._token is not None:
            loop = asyncio.get_running_loop()
            forget = self._token.on_cancel(lambda: in_loop(loop, execution.cancel))
        try:
            await execution.go()
        except (asyncio.CancelledError, KeyboardInterrupt) as error:
            self._cancelled = error
            execution.is_cancelled = True
        finally:
            forget()

    async def _end(self, execution: Execution) -> None:
        """Record how it ended; where it is paused, only if nobody has answered meanwhile."""
        tree = execution.tree
        if self._recorder.failure is not None:
            execution.unusable(self._recorder.failure)
            assert execution.failure is not None
            raise execution.failure
        statements = tree.sweep()
        errors = list(tree.errors)
        if execution.failure is not None:
            errors.append(execution.failure)
        if execution.is_cancelled:
            errors.append(PipelineError("ABORTED", None, f"run {self._run!r} was cancelled"))
        number = self._row.number
        if not errors and not tree.is_over:
            statements.append((_PAUSED, (number, self._holding)))
        else:
            status = "cancelled" if execution.is_cancelled else "failed" if errors else "completed"
            texts = json.dumps([[error.code, error.step, str(error)] for error in errors])
            statements.append((ENDED_RUN, (status, texts, time(), number)))
        self._errors = tuple(errors)
        await self._patiently(settled(self._recorder.write(*statements)))

    def _clean(self) -> None:
        """Remove files that a kill has left, and that nothing names."""
        directory = self._workspace.outputs(self._run)
        if not directory.is_dir():
            return
        named = set(self._reader.files())
        for place in directory.iterdir():
            if f"runs/{self._run}/outputs/{place.name}" not in named:
                place.unlink()

    def _tell_step(self, row: RunRow, record: StepRecord) -> None:
        if self._settings.on_step_complete is not None:
            tell(self._settings.on_step_complete, self._settings.accounts.step_result(row, record), "on_step_complete")

    def _tell_status(self) -> None:
        row = self._reader.run(self._run)
        if row is not None and self._settings.on_status_change is not None:
            tell(self._settings.on_status_change, self._settings.accounts.info(row), "on_status_change")

    @property
    def _is_to_stop(self) -> bool:
        """Whether somebody wants the run to be cancelled."""
        is_signalled = self._token is not None and self._token.cancelled
        return self._cancelled is not None or self._is_asked or is_signalled

    def _notice(self, noticed: Noticed) -> None:
        self._is_asked = self._is_asked or noticed.cancel
        if self._execution is not None:
            self._execution.notice(noticed)

    def _writing_failed(self, error: BaseException) -> None:
        if self._execution is not None:
            self._execution.unusable(error)


def cancelling_paused(run: str) -> Statement:
    """Make the statement that cancels a run if it is paused: nothing of it runs then, whoever holds its lock."""
    return _PAUSED_TO_CANCELLED, (json.dumps([aborted(run)]), time(), run)


def aborted(run: str) -> tuple[str, None, str]:
    """Return what is recorded of a run that was cancelled, as its error."""
    return ("ABORTED", None, f"run {run!r} was cancelled")


def not_begun(run: str, pipeline: Pipeline[Any, Any], error: PipelineError) -> PipelineResult[Any]:
    """Make the result of a run that could not begin, or could not be recorded."""
    nothing = State(tuple, _no_output)
    return PipelineResult(run, pipeline.name, "failed", Usage(), None, nothing, (), error, (error,), ())


def _no_output(name: str) -> Any:
    raise KeyError(name)


def _next_number(reader: WorkspaceReader) -> int:
    for (number,) in reader.connection.execute("SELECT coalesce(max(number), 0) + 1 FROM flow_runs"):
        return int(number)
    return 1


def _nothing() -> None:
    """Call nothing off."""
