"""The bodies of the commands that are about runs of pipelines."""

import asyncio
import getpass
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Final, cast

import click

from penstock.cli.failing import BAD_USAGE, DONE, NOT_DONE, SOME_FAILED, complain, ended_by, guarded
from penstock.cli.interruption import Interruption
from penstock.cli.run_table import local_time, print_table
from penstock.cli.step_display import StepDisplay
from penstock.core.errors import OptionError
from penstock.core.text import a, one_line
from penstock.core.text import escaped as shown

if TYPE_CHECKING:
    from penstock.flow import Pipeline, PipelineEngine, PipelineError, PipelineResult

PAUSED, CANCELLED = 4, 5
_CODES: Final = {
    "NO_STEPS": BAD_USAGE,
    "DEFINITION_CHANGED": BAD_USAGE,
    "ALREADY_RUNNING": NOT_DONE,
    "WORKSPACE_ERROR": NOT_DONE,
}
"""Exit codes by the codes of errors; all others are 1."""


def _guarded(command: Callable[[], int]) -> int:
    """Run the command; what pipelines raise becomes a line and its exit code."""

    def known() -> int:
        from penstock.flow import FileError, OutputRefused, PipelineError  # noqa: PLC0415 -- its libraries are extras

        try:
            return command()
        except PipelineError as error:
            complain(f"{error.code}: {error}")
            return _CODES.get(error.code, SOME_FAILED)
        except FileError as error:
            complain(error)
            return BAD_USAGE
        except OutputRefused as error:
            complain(error)
            return SOME_FAILED

    return guarded(known)


def run(
    where: str,
    *,
    workspace: str,
    given: str,
    run_id: str | None,
    concurrency: int,
    on_change: str,
    as_json: bool,
    check: bool,
) -> int:
    """Run a pipeline, or go on with its run; print what became of it, and return the exit code."""

    def command() -> int:
        from penstock.flow.json_reading import read_as  # noqa: PLC0415 -- as above
        from penstock.flow.matching import first_empty  # noqa: PLC0415 -- as above

        with _stdout_kept(wanted=as_json):
            pipeline = found(where, Path.cwd())
        if check:
            if (empty := first_empty(pipeline)) is not None:
                complain(f"{where}: {f'the pipeline at {empty!r}' if empty else 'the pipeline'} has no steps")
                return BAD_USAGE
            click.echo(f"{where}: no mistakes")
            return DONE
        value = read_as(_json("--input", sys.stdin.read() if given == "-" else given), pipeline.takes or Any, "--input")
        return _go(pipeline, value, workspace, run_id, concurrency=concurrency, on_change=on_change, as_json=as_json)

    return _guarded(command)


def resume(workspace: str, run_id: str, where: str | None, *, concurrency: int, on_change: str, as_json: bool) -> int:
    """Go on with a run, print what became of it, and return the exit code."""

    def command() -> int:
        with _stdout_kept(wanted=as_json):
            pipeline = _pipeline_of(workspace, run_id, where)
        return _go(
            pipeline, _NO_VALUE, workspace, run_id, concurrency=concurrency, on_change=on_change, as_json=as_json
        )

    return _guarded(command)


_NO_VALUE: Final = object()


def _stdout_kept(*, wanted: bool) -> AbstractContextManager[object]:
    """Have what code of the user prints go to stderr: stdout is to be one document."""
    return redirect_stdout(sys.stderr) if wanted and sys.stderr is not None else nullcontext()


def _go(
    pipeline: "Pipeline[Any, Any]",
    value: object,
    workspace: str,
    run_id: str | None,
    *,
    concurrency: int,
    on_change: str,
    as_json: bool,
) -> int:
    from penstock.flow import PipelineEngine  # noqa: PLC0415 -- its libraries are extras
    from penstock.tasks import CancelToken  # noqa: PLC0415 -- as above

    display, token = StepDisplay(pipeline.name), CancelToken()
    engine = PipelineEngine(
        workspace, concurrency=concurrency, on_step_complete=display.step, on_status_change=display.status
    )
    options: Any = {"cancel": token, "on_change": on_change}
    stopping = Interruption(
        token.cancel,
        "what runs is cancelled; {} again ends at once",
        f"ended at once; what is finished is recorded in {workspace}",
    )
    stopping.display = display

    async def going() -> "PipelineResult[Any]":
        loop = asyncio.get_running_loop()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, stopping, each)
        with display.shown(loop, engine):
            if value is _NO_VALUE:
                assert run_id is not None
                return await engine.resume(run_id, pipeline=pipeline, **options)
            return await engine.run(pipeline, value, run_id=run_id, **options)

    with _stdout_kept(wanted=as_json):
        result = asyncio.run(going())
    _print_result(engine, result, workspace, as_json=as_json)
    if result.changed:
        complain(f"finished steps have other code now: {', '.join(result.changed)}")
    if stopping.received is not None and result.status in {"cancelled", "failed"}:
        complain(f"stopped; it goes on with: penstock resume {quote(workspace)} {quote(result.run_id)}")
        return ended_by(stopping.received)
    return _code(result)


def _code(result: "PipelineResult[Any]") -> int:
    if result.status == "failed":
        return SOME_FAILED if result.error is None else _CODES.get(result.error.code, SOME_FAILED)
    return {"completed": DONE, "paused": PAUSED, "cancelled": CANCELLED}.get(result.status, NOT_DONE)


def approve(workspace: str, run_id: str, step: str | None, *, value: str | None, by: str | None, note: str) -> int:
    """Let what waits go on, and return the exit code."""

    def command() -> int:
        engine = _engine(workspace)
        waiting = engine.pending(run_id)
        one = next((each for each in waiting if step in {None, each.step}), None)
        pipeline = None
        if one is not None:
            pipeline = _pipeline_of(workspace, run_id, None, needed=False)
        answer: dict[str, Any] = {}
        if value is not None:
            document = _json("--value", value)
            answer["value"] = document if one is None else _read_answer(document, one, pipeline)
        try:
            engine.approve(run_id, step, by=by or _login(), note=note, pipeline=pipeline, **answer)
        except Exception as error:
            from penstock.core.errors import PenstockError  # noqa: PLC0415 -- only for errors

            if isinstance(error, PenstockError | OSError):
                raise
            complain(f"the check refuses it: {type(error).__name__}: {error}")
            return BAD_USAGE
        _answered(workspace, run_id, "approved")
        return DONE

    return _guarded(command)


def _read_answer(document: Any, waiting: Any, pipeline: "Pipeline[Any, Any] | None") -> Any:
    from penstock.flow.json_reading import read_as, read_like  # noqa: PLC0415 -- its libraries are extras
    from penstock.flow.leaf import Leaf  # noqa: PLC0415 -- as above
    from penstock.flow.matching import step_at  # noqa: PLC0415 -- as above

    if waiting.reason == "review":
        return read_like(document, waiting.value, "--value")
    step = None if pipeline is None else step_at(pipeline, waiting.step)
    return read_as(document, step.annotations().get("return", Any) if isinstance(step, Leaf) else Any, "--value")


def reject(workspace: str, run_id: str, step: str | None, reason: str, by: str | None) -> int:
    """Have a run fail at what waits, and return the exit code."""

    def command() -> int:
        _engine(workspace).reject(run_id, step, reason=reason, by=by or _login())
        _answered(workspace, run_id, "rejected")
        return DONE

    return _guarded(command)


def cancel(workspace: str, run_id: str) -> int:
    """Ask for a run to be cancelled, and return the exit code."""

    def command() -> int:
        _engine(workspace).cancel(run_id)
        click.echo(f"run {shown(run_id)}: asked to stop")
        return DONE

    return _guarded(command)


def fork(workspace: str, run_id: str, at: str, outputs: Sequence[str]) -> int:
    """Fork a run, print the id of the new one, and return the exit code."""

    def command() -> int:
        from penstock.flow.json_reading import read_like  # noqa: PLC0415 -- its libraries are extras

        engine = _engine(workspace)
        old = engine.result(run_id).outputs
        given: dict[str, Any] = {}
        for each in outputs:
            path, sign, document = each.partition("=")
            if not sign:
                raise OptionError(f"--output must be STEP=JSON, got {each!r}")
            read = _json("--output", document)
            given[path] = read_like(read, old[path], f"--output {path}") if path in old else read
        click.echo(engine.fork(run_id, at=at, outputs=given))
        return DONE

    return _guarded(command)


def list_pipeline_runs(workspace: str, *, as_json: bool) -> int:
    """Print a line for each run of a workspace, and return the exit code."""

    def command() -> int:
        found_runs = _engine(workspace).runs()
        if as_json:
            _print_json([vars(each) for each in found_runs])
        elif not found_runs:
            complain("no runs")
        else:
            print_table(
                ("run", "pipeline", "status", "begun", "error"),
                (
                    (each.run_id, each.pipeline, each.status, local_time(each.began), each.error or "")
                    for each in found_runs
                ),
            )
        return DONE

    return _guarded(command)


def show_pipeline_run(workspace: str, run_id: str | None, *, as_json: bool) -> int:
    """Print the steps of a run, or of all runs, and what waits; return the exit code."""

    def command() -> int:
        engine = _engine(workspace)
        names = [each.run_id for each in engine.runs()] if run_id is None else [run_id]
        if as_json:
            documents = [document(engine, engine.result(each)) for each in names]
            _print_json(documents if run_id is None else documents[0])
            return DONE
        for each in names:
            _print_result(engine, engine.result(each), workspace, as_json=False)
        return DONE

    return _guarded(command)


# What is printed


def _print_result(engine: "PipelineEngine", result: "PipelineResult[Any]", workspace: str, *, as_json: bool) -> None:
    if as_json:
        _print_json(document(engine, result))
        return
    for step in result.steps:
        click.echo(f"{shown(step.path)}: {step.status}")
    for line in _ending(engine, result, workspace):
        click.echo(line)


def _ending(engine: "PipelineEngine", result: "PipelineResult[Any]", workspace: str) -> Iterator[str]:
    line = f"run {shown(result.run_id)}: {result.status}"
    if result.error is not None:
        line += f": {_told(result.error)}"
    yield line
    if result.status != "paused":
        return
    place = f"{shown(quote(workspace))} {shown(quote(result.run_id))}"
    for each in engine.pending(result.run_id):
        refused = f"; the answer before was refused: {one_line(each.refused, 300)}" if each.refused else ""
        yield f"  {shown(each.step)} waits for an answer ({each.reason}){refused}"
        yield f"    penstock approve {place} {shown(quote(each.step))}"
        yield f"    penstock reject {place} {shown(quote(each.step))} --reason TEXT"
    yield f"  then: penstock resume {place}"


def _told(error: "PipelineError") -> str:
    at = f" at {error.step}" if error.step else ""
    return one_line(f"{error.code}{at}: {error}")


def document(engine: "PipelineEngine", result: "PipelineResult[Any]") -> dict[str, Any]:
    """Return a run as JSON has it."""
    from penstock.flow import PipelineError  # noqa: PLC0415 -- its libraries are extras

    try:
        waiting = engine.pending(result.run_id)
    except (PipelineError, OptionError):  # nothing could be recorded of it
        waiting = []
    return {
        "run_id": result.run_id,
        "pipeline": result.pipeline,
        "status": result.status,
        "output": result.output,
        "error": None if result.error is None else _error(result.error),
        "errors": [_error(each) for each in result.errors],
        "changed": result.changed,
        "usage": result.usage,
        "pending": [
            {"step": each.step, "value": each.value, "reason": each.reason, "refused": each.refused} for each in waiting
        ],
        "steps": [
            {
                "path": each.path,
                "name": each.name,
                "status": each.status,
                "usage": each.usage,
                "attempts": each.attempts,
                "output": each.output,
                "error": each.error,
                "started_at": _seconds(each.started_at),
                "finished_at": _seconds(each.finished_at),
                "by": each.by,
                "note": each.note,
            }
            for each in result.steps
        ],
    }


def _error(error: "PipelineError") -> dict[str, Any]:
    return {"code": error.code, "step": error.step, "message": str(error)}


def _seconds(when: datetime | None) -> float | None:
    return None if when is None else when.timestamp()


def _print_json(what: object) -> None:
    from penstock.flow.json_values import as_json  # noqa: PLC0415 -- only where it is wanted

    click.echo(json.dumps(as_json(what)))


def _answered(workspace: str, run_id: str, what: str) -> None:
    click.echo(f"run {shown(run_id)}: {what}; it goes on with: penstock resume {quote(workspace)} {quote(run_id)}")


# What is given


def _json(option: str, text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        hint = f"; a text stands in quotes: {quote(json.dumps(text))}" if text.isidentifier() else ""
        raise OptionError(f"{option} must be JSON, got {one_line(repr(text), 100)}: {error}{hint}") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # there is no such user
        return str(os.getuid())


def _engine(workspace: str) -> "PipelineEngine":
    from penstock.flow import PipelineEngine  # noqa: PLC0415 -- its libraries are extras

    return PipelineEngine(workspace)


def found(where: str, directory: Path) -> "Pipeline[Any, Any]":
    """Return the pipeline in a file, or the one that `module:name` names, looked for in `directory` first.

    Raises:
        OptionError, FileError: it is not there, or is none.
    """
    from penstock.flow import Pipeline, load  # noqa: PLC0415 -- its libraries are extras
    from penstock.flow.pipeline_file import imported  # noqa: PLC0415 -- as above

    if where.endswith((".yaml", ".yml")):
        return load(where)
    module, sign, name = where.partition(":")
    if not (sign and module and name and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))):
        raise OptionError(f"PIPELINE must be a file *.yaml or *.yml, or module:name, got {where!r}")
    try:
        given: Any = imported(module, directory)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise OptionError(f"there is no module {module!r} in {directory} or where Python looks") from None
        raise OptionError(f"module {module!r} cannot be imported: {error}") from None
    except Exception as error:  # noqa: BLE001 -- code of the user
        raise OptionError(f"module {module!r} cannot be imported: {type(error).__name__}: {error}") from None
    for part in name.split("."):
        if not hasattr(given, part):
            raise OptionError(f"module {module!r} has no {name!r}")
        given = getattr(given, part)
    if not isinstance(given, Pipeline):
        raise OptionError(f"{where} must be a Pipeline, got {a(type(given).__name__)}")
    return cast("Pipeline[Any, Any]", given).read_from(f"{directory}:{where}")


def _pipeline_of(workspace: str, run_id: str, where: str | None, *, needed: bool = True) -> Any:
    """Return the pipeline of a run: the one that is named, or where it was found before."""
    if where is not None:
        return found(where, Path.cwd())
    source = _source(workspace, run_id)
    if not source:
        if needed:
            raise OptionError(f"run {run_id!r} was begun in Python: say --pipeline PIPELINE")
        return None
    if source.endswith((".yaml", ".yml")):
        return found(source, Path.cwd())
    directory, module, name = source.rsplit(":", 2) if source.count(":") > 1 else (str(Path.cwd()), *source.split(":"))
    return found(f"{module}:{name}", Path(directory))


def _source(workspace: str, run_id: str) -> str:
    from penstock.flow.accounts import known_run  # noqa: PLC0415 -- its libraries are extras
    from penstock.flow.workspace import Workspace  # noqa: PLC0415 -- as above
    from penstock.flow.workspace_errors import workspace_errors  # noqa: PLC0415 -- as above

    place = Workspace(workspace)
    with workspace_errors(place.database), place.reading() as reader:
        _, row = known_run(reader, run_id)
        return row.source
