"""The engine: starts runs of pipelines, goes on with them, and says what became of them."""

import json
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from time import time
from typing import Any, Final, Unpack, cast, override

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.retry import Seconds
from penstock.core.text import one_line
from penstock.core.traces import block
from penstock.durable.fingerprint import OnChange
from penstock.durable.sink import Durability
from penstock.flow import codec
from penstock.flow.accounts import RunAccounts, checked_id, known_run, listed_names
from penstock.flow.added import logger_of
from penstock.flow.matching import first_empty, step_at
from penstock.flow.pipeline import Pipeline
from penstock.flow.recorder import Statement
from penstock.flow.results import (
    ENDED,
    OutputRefused,
    Pending,
    PipelineError,
    PipelineResult,
    RunInfo,
    StepResult,
)
from penstock.flow.run_forks import Fork
from penstock.flow.session import (
    ENDED_RUN,
    EngineSettings,
    PipelineRunOptions,
    Session,
    aborted,
    cancelling_paused,
    not_begun,
)
from penstock.flow.shapes import Review
from penstock.flow.steps import refuse_unknown, refuses_unknown
from penstock.flow.workspace import Workspace
from penstock.flow.workspace_errors import workspace_errors
from penstock.flow.workspace_reader import WorkspaceReader
from penstock.flow.workspace_tables import RunRow, StepRecord
from penstock.tasks.tokens import CancelToken


class _Keep:
    """What waits goes on as it is."""

    @override
    def __repr__(self) -> str:
        return "KEEP"


KEEP: Final = _Keep()
"""Stands for the value that waits."""


class PipelineEngine:
    """Runs pipelines, and records in a workspace what is finished: killed at any instant, a run goes on where it was.

    `run` starts a run or goes on with it; no finished step is called again. Several processes can work in one
    workspace; a run is run by one of them at a time, and a lock says so that the kernel releases. `approve`, `reject`
    and `cancel` work while an engine runs.

    Args:
        workspace: a directory, made when something is first written.
        concurrency: leaf steps of a run that are in progress at once, an int >= 1; nesting never multiplies it.
        durability: "process" survives the death of the process, SIGKILL too; "power" a power failure as well.
        on_step_complete: a plain function, called on the loop with the `StepResult` of each step that completed or
            failed, children first, after that is committed. One that raises is logged, and changes nothing.
        on_status_change: the same for `running` and the status that follows, with the `RunInfo`.
        grace: seconds, >= 0, in which steps end when they are stopped; then they are left behind, with a warning.

    Raises:
        OptionError: an option breaks its rule.

    Example:
        engine = PipelineEngine("work", concurrency=8)
        result = await engine.run(article, "rivers", run_id="rivers-1")
    """

    @refuses_unknown
    def __init__(
        self,
        workspace: str | os.PathLike[str],
        *,
        concurrency: int = 3,
        durability: Durability = "process",
        on_step_complete: Callable[[StepResult], object] | None = None,
        on_status_change: Callable[[RunInfo], object] | None = None,
        grace: Seconds = 5.0,
    ) -> None:
        self._workspace = Workspace(validate.path("workspace", workspace))
        self._accounts = RunAccounts(self._workspace)
        choices: tuple[Durability, ...] = ("process", "power")
        for name, hook in (("on_step_complete", on_step_complete), ("on_status_change", on_status_change)):
            if hook is not None:
                validate.plain_function(name, hook)
        self._settings = EngineSettings(
            self._workspace,
            self._accounts,
            validate.whole("concurrency", concurrency, least=1),
            validate.one_of("durability", durability, choices),
            on_step_complete,
            on_status_change,
            validate.seconds("grace", grace, zero=True),
        )

    @override
    def __repr__(self) -> str:
        return f"PipelineEngine({str(self._workspace.directory)!r}, concurrency={self._settings.concurrency})"

    # Running

    async def run[I, O](
        self, pipeline: Pipeline[I, O], value: I, /, *, run_id: str | None = None, **options: Unpack[PipelineRunOptions]
    ) -> PipelineResult[O]:
        """Run a pipeline on `value`, or go on with its run of that id; gives a result, whatever ends the run.

        Args:
            pipeline: what is to be run.
            value: what its first step gets; it must be a value that can be stored.
            run_id: 1 to 200 of `A-Z a-z 0-9 . _ : @ + -`, first a letter or digit; None makes one that sorts by time.
            **options: see `PipelineRunOptions`.

        Raises:
            OptionError: an argument breaks its rule; the run of that id has another value, or is of another pipeline.
            PipelineError: `ALREADY_RUNNING`.
            asyncio.CancelledError: the task of this call was cancelled; the run is recorded so.
        """
        _check_pipeline(pipeline)
        run = _new_id() if run_id is None else checked_id(run_id)
        given = _checked_options(options)
        try:
            content = codec.packed(value, "value")
        except OutputRefused as error:
            raise OptionError(f"value of run {run!r} must be one that can be stored: {error}") from None
        return cast("PipelineResult[O]", await self._go(pipeline, run, content, given))

    async def run_or_raise[I, O](
        self, pipeline: Pipeline[I, O], value: I, /, *, run_id: str | None = None, **options: Unpack[PipelineRunOptions]
    ) -> O:
        """Do what `run` does, and give the output.

        Raises:
            PipelineError: the run failed or was cancelled; of a paused run `PAUSED`.
            OptionError: as for `run`.
        """
        result = await self.run(pipeline, value, run_id=run_id, **options)
        if result.status == "completed":
            return result.output
        if result.error is not None:
            raise result.error
        waiting = self.pending(result.run_id)
        first = waiting[0].step if waiting else None
        raise PipelineError("PAUSED", first, f"run {result.run_id!r} is paused: step {first!r} waits for an answer")

    async def resume[I, O](
        self, run_id: str, /, *, pipeline: Pipeline[I, O], **options: Unpack[PipelineRunOptions]
    ) -> PipelineResult[O]:
        """Go on with a run: what is not finished is run, what waits goes on waiting; a completed run calls nothing.

        Raises:
            OptionError: there is no such run, it is of another pipeline, or an option breaks its rule.
            PipelineError: `ALREADY_RUNNING`.
            asyncio.CancelledError: the task of this call was cancelled; the run is recorded so.
        """
        _check_pipeline(pipeline)
        run = checked_id(run_id)
        given = _checked_options(options)
        return cast("PipelineResult[O]", await self._go(pipeline, run, None, given))

    async def _go(
        self, pipeline: Pipeline[Any, Any], run: str, content: bytes | None, given: PipelineRunOptions
    ) -> PipelineResult[Any]:
        try:
            with self._workspace.reading() as reader:
                row = None if reader is None else reader.run(run)
                _check_same(reader, row, run, pipeline, content)
        except PipelineError as error:
            return not_begun(run, pipeline, error)
        if (empty := first_empty(pipeline)) is not None:
            where = f"pipeline {pipeline.name!r}" if not empty else f"pipeline at {empty!r}"
            return not_begun(run, pipeline, PipelineError("NO_STEPS", empty or None, f"{where} has no steps"))
        about = {"penstock.pipeline.name": pipeline.name, "penstock.run.id": run}
        log = logger_of(pipeline.name, "")
        log.info("run %r begins, or goes on", run)
        with block(f"pipeline {pipeline.name}", about) as traced:
            result = await Session(self._settings, pipeline, run, content, given).go()
            traced.note({"penstock.run.status": result.status})
            if result.status == "failed" and result.error is not None:
                traced.failed(result.error.__cause__, f"{result.error.code}: {result.error}")
        why = "" if result.error is None else f": {result.error.code}: {one_line(str(result.error))}"
        log.log(
            logging.WARNING if result.status == "failed" else logging.INFO, "run %r is %s%s", run, result.status, why
        )
        return result

    # Asking

    def runs(self) -> list[RunInfo]:
        """Return all runs of the workspace, the one begun last first.

        Raises:
            PipelineError: `WORKSPACE_ERROR`.
        """
        with self._reading() as reader:
            return [] if reader is None else [self._accounts.info(row) for row in reader.runs()]

    def result(self, run_id: str, /) -> PipelineResult[Any]:
        """Return the result of a run, as far as it is recorded.

        Raises:
            OptionError: there is no such run; the error lists those there are.
            PipelineError: `WORKSPACE_ERROR`.
        """
        with self._reading() as found:
            reader, row = known_run(found, run_id)
            return self._accounts.result(row, reader.records(row.number))

    def pending(self, run_id: str, /) -> list[Pending]:
        """Return the steps that wait for an answer.

        Raises:
            OptionError: there is no such run.
            PipelineError: `WORKSPACE_ERROR`.
        """
        with self._reading() as found:
            reader, row = known_run(found, run_id)
            return [self._accounts.pending(row, record) for record in _waiting(reader.records(row.number))]

    # Answering

    @refuses_unknown
    def approve(
        self,
        run_id: str,
        step: str | None = None,
        /,
        *,
        value: Any = KEEP,
        by: str | None = None,
        note: str = "",
        pipeline: Pipeline[Any, Any] | None = None,
    ) -> None:
        """Let what waits go on, or `value` for it; an interrupted step is called again, or has `value` as its output.

        Args:
            run_id: the run.
            step: the path of the step; may be left out if one waits.
            value: what is to go on.
            by: who approves.
            note: why.
            pipeline: if it is given, `check` of the review is called at once, and what that raises is raised; else the
                next run does it, which takes back an answer that is refused.

        Raises:
            OptionError: there is no such run, the step does not wait, or was answered; lists those that do.
            OutputRefused: the value cannot be stored.
            PipelineError: `WORKSPACE_ERROR`.
        """
        _check_answer(by, "note", note)
        content = None if value is KEEP else codec.packed(value, "value")
        with self._reading() as found:
            reader, row = known_run(found, run_id)
            record = _the_waiting(reader, row, step)
            if pipeline is not None and record.reason == "review":
                _check_pipeline(pipeline)
                asks = step_at(pipeline, record.path)
                if not isinstance(asks, Review):
                    raise OptionError(f"pipeline {pipeline.name!r} has no review {record.path!r}")
                if asks.check is not None:
                    value = reader.output(row.number, record.path) if content is None else codec.unpacked(content)
                    validate.plain_result("check", asks.check(value))
        kept = "approve" if record.reason == "review" else "again"
        self._answer(row, record, kept if content is None else "value", (content, by, note))

    @refuses_unknown
    def reject(self, run_id: str, step: str | None = None, /, *, reason: str, by: str | None = None) -> None:
        """Have the run fail with `REVIEW_REJECTED` when it goes on, now and later; `fork` asks again.

        Raises:
            OptionError: there is no such run, the step does not wait, or was answered; lists those that do.
            PipelineError: `WORKSPACE_ERROR`.
        """
        validate.text("reason", reason)
        _check_answer(by, "reason", reason)
        with self._reading() as found:
            reader, row = known_run(found, run_id)
            record = _the_waiting(reader, row, step)
        self._answer(row, record, "reject", (None, by, reason))

    def _answer(
        self, row: RunRow, record: StepRecord, answer: str, given: tuple[bytes | None, str | None, str]
    ) -> None:
        sql = (
            "UPDATE flow_steps SET answer = ?, answered = ?, by = ?, note = ?, refused = NULL "
            "WHERE run = ? AND path = ? AND status = 'waiting' AND answer IS NULL"
        )
        changed = self._write((sql, (answer, *given, row.number, record.path)))
        if not changed:
            raise OptionError(f"step {record.path!r} of run {row.run!r} has an answer already")

    def cancel(self, run_id: str, /) -> None:
        """Ask whoever runs a run to stop, which is done within a second; one that nobody runs is cancelled at once.

        Raises:
            OptionError: there is no such run, or it has ended.
            PipelineError: `WORKSPACE_ERROR`.
        """
        with self._reading() as found:
            _, row = known_run(found, run_id)
        if row.status in ENDED:
            raise OptionError(f"run {run_id!r} is {row.status}: there is nothing to cancel")
        while True:
            try:
                with self._workspace.locked(row.run):
                    self._cancel_at_once(row.run)
            except PipelineError as error:
                if error.code != "ALREADY_RUNNING":
                    raise
                if not self._is_asked(row):
                    continue
            return

    def _is_asked(self, row: RunRow) -> bool:
        """Ask whoever runs it to stop; False if another one has taken it meanwhile, or it waits for the next."""
        holding = self._workspace.holding(row.run)
        if holding is None:
            return False
        asked = ("UPDATE flow_runs SET cancel = ? WHERE number = ? AND ended IS NULL", (holding, row.number))
        self._write(asked, cancelling_paused(row.run))
        now = self._workspace.holding(row.run)
        if now is not None:
            return now == holding
        with self._reading() as found:
            return known_run(found, row.run)[1].status in ENDED

    def _cancel_at_once(self, run: str) -> None:
        with self._reading() as found:
            _, row = known_run(found, run)
        if row.status in ENDED:
            raise OptionError(f"run {run!r} is {row.status}: there is nothing to cancel")
        self._write(
            (
                "UPDATE flow_steps SET status = 'cancelled', finished = ? WHERE run = ? AND status = 'running'",
                (time(), row.number),
            ),
            (ENDED_RUN, ("cancelled", json.dumps([aborted(run)]), time(), row.number)),
        )

    @refuses_unknown
    def fork(self, run_id: str, /, *, at: str, outputs: Mapping[str, Any] | None = None) -> str:
        """Make a pending run of what a run has finished that does not depend on the step `at`; gives its id.

        Args:
            run_id: the run, which is not touched.
            at: the path of the step that is to be done again, with all that depends on it.
            outputs: outputs for kept steps, by path, in place of theirs.

        Raises:
            OptionError: there is no such run, step or output; lists those there are.
            OutputRefused: an output cannot be stored.
            PipelineError: `WORKSPACE_ERROR`.
        """
        validate.instance("outputs", {} if outputs is None else outputs, Mapping, "a mapping of outputs by path")
        with self._reading() as found:
            reader, row = known_run(found, run_id)
            fork = Fork(reader, row, at, dict(outputs or {}))
        with workspace_errors(self._workspace.database):
            fork.make(self._workspace, new := _new_id(), power=self._settings.durability == "power")
        return new

    # Reading and writing

    def _reading(self) -> Any:
        return self._workspace.reading()

    def _write(self, *statements: Statement) -> int:
        """Write at once; how many rows the last statement has changed."""
        with workspace_errors(self._workspace.database):
            return self._workspace.write(*statements, power=self._settings.durability == "power")


def _check_pipeline(pipeline: object) -> None:
    if not isinstance(pipeline, Pipeline):
        raise OptionError(f"pipeline must be a Pipeline, got {pipeline!r}")


def _checked_options(options: PipelineRunOptions) -> PipelineRunOptions:
    refuse_unknown("run", options, {"run_id", *PipelineRunOptions.__optional_keys__})
    choices: tuple[OnChange, ...] = ("continue", "refuse", "restart")
    validate.one_of("on_change", options.get("on_change", "continue"), choices)
    cancel = options.get("cancel")
    if cancel is not None:
        validate.instance("cancel", cancel, CancelToken, "a CancelToken")
    return options


def _check_answer(by: object, what: str, text: object) -> None:
    if by is not None:
        validate.text("by", by)
    for name, given in (("by", by or ""), (what, text)):
        if not isinstance(given, str) or not validate.is_utf8(given):
            raise OptionError(f"{name} must be a str that UTF-8 can hold, got {given!r}")


def _check_same(
    reader: WorkspaceReader | None, row: RunRow | None, run: str, pipeline: Pipeline[Any, Any], content: bytes | None
) -> None:
    """Refuse to go on with a run that has another value, is of another pipeline, or is not there."""
    if row is None:
        if content is None:
            known_run(reader, run)
        return
    if row.pipeline != pipeline.name:
        raise OptionError(f"run {run!r} is one of pipeline {row.pipeline!r}, got pipeline {pipeline.name!r}")
    if content is not None and content != row.value and not _is_equal(content, row.value):
        raise OptionError(f"run {run!r} was begun with another value: give the same one, or another run_id")


def _is_equal(one: bytes, other: bytes) -> bool:
    """Whether two values are equal, whatever the order of their dicts."""
    return codec.digest(codec.unpacked(one)) == codec.digest(codec.unpacked(other))


def _waiting(records: Mapping[str, StepRecord]) -> list[StepRecord]:
    return [
        each
        for each in records.values()
        if each.status == "waiting" and each.reason is not None and each.answer is None
    ]


def _the_waiting(reader: WorkspaceReader, row: RunRow, step: str | None) -> StepRecord:
    """Return the step that is answered."""
    waiting = _waiting(reader.records(row.number))
    found = waiting if step is None else [each for each in waiting if each.path == step]
    if len(found) != 1:
        what = (
            "several steps wait"
            if len(found) > 1
            else "no step waits"
            if step is None
            else f"step {step!r} does not wait"
        )
        raise OptionError(
            f"run {row.run!r}: {what} for an answer: there are {listed_names(each.path for each in waiting)}"
        )
    return found[0]


def _new_id() -> str:
    """Make an id that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"
