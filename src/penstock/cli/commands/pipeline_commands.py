"""The commands of pipelines of steps: `run`, `resume`, `approve`, `reject`, `cancel`, `fork`."""

from typing import Annotated

from click.exceptions import Exit

from penstock.cli.parameters import Argument, Option

WorkspaceDirectory = Annotated[str, Argument(metavar="WORKSPACE", help="The directory of the workspace.")]
RunId = Annotated[str, Argument(metavar="RUN", help="The id of the run.")]
StepPath = Annotated[
    str | None,
    Argument(metavar="STEP", show_default=False, help="The path of the step. [default: the only one that waits]"),
]
Places = Annotated[int, Option("--concurrency", metavar="N", help="Steps that are in progress at once.")]
OnOtherCode = Annotated[
    str,
    Option(
        "--on-change",
        metavar="continue|refuse|restart",
        help="What becomes of finished steps whose code is another now.",
    ),
]
By = Annotated[
    str | None, Option("--by", metavar="NAME", show_default=False, help="Who it is. [default: the login name]")
]

AsJSON = Annotated[bool, Option("--json", help="Print JSON.")]


def run(
    pipeline: Annotated[str, Argument(metavar="PIPELINE", help="A file *.yaml or *.yml, or module:name.")],
    *,
    workspace: Annotated[
        str, Option("--workspace", "-w", metavar="DIR", help="Where runs are recorded; made if it is not there.")
    ] = ".penstock",
    given: Annotated[
        str, Option("--input", "-i", metavar="JSON", help="The value that the first step gets; - reads stdin.")
    ] = "null",
    run_id: Annotated[
        str | None,
        Option("--run-id", metavar="ID", show_default=False, help="The run to begin or to go on with."),
    ] = None,
    concurrency: Places = 3,
    on_change: OnOtherCode = "continue",
    json: AsJSON = False,
    check: Annotated[bool, Option("--check", help="Only look for mistakes; nothing is run or made.")] = False,
) -> None:
    """Run `penstock run`."""
    options = locals()
    from penstock.cli.pipeline_runs import run as run_pipeline  # noqa: PLC0415 -- help must be quick

    raise Exit(run_pipeline(options.pop("pipeline"), as_json=options.pop("json"), **options))


def resume(
    workspace: WorkspaceDirectory,
    run_id: RunId,
    *,
    pipeline: Annotated[
        str | None,
        Option("--pipeline", metavar="PIPELINE", show_default=False, help="For a run that was begun in Python."),
    ] = None,
    concurrency: Places = 3,
    on_change: OnOtherCode = "continue",
    json: AsJSON = False,
) -> None:
    """Run `penstock resume`."""
    from penstock.cli.pipeline_runs import resume as go_on  # noqa: PLC0415 -- help must be quick

    raise Exit(go_on(workspace, run_id, pipeline, concurrency=concurrency, on_change=on_change, as_json=json))


def approve(
    workspace: WorkspaceDirectory,
    run_id: RunId,
    step: StepPath = None,
    *,
    value: Annotated[
        str | None,
        Option("--value", metavar="JSON", show_default=False, help="What is to go on, in place of what waits."),
    ] = None,
    by: By = None,
    note: Annotated[str, Option("--note", metavar="TEXT", help="Why.")] = "",
) -> None:
    """Run `penstock approve`."""
    from penstock.cli.pipeline_runs import approve as answer  # noqa: PLC0415 -- help must be quick

    raise Exit(answer(workspace, run_id, step, value=value, by=by, note=note))


def reject(
    workspace: WorkspaceDirectory,
    run_id: RunId,
    step: StepPath = None,
    *,
    reason: Annotated[str, Option("--reason", metavar="TEXT", help="Why.")],
    by: By = None,
) -> None:
    """Run `penstock reject`."""
    from penstock.cli.pipeline_runs import reject as answer  # noqa: PLC0415 -- help must be quick

    raise Exit(answer(workspace, run_id, step, reason, by))


def cancel(workspace: WorkspaceDirectory, run_id: RunId) -> None:
    """Run `penstock cancel`."""
    from penstock.cli.pipeline_runs import cancel as ask  # noqa: PLC0415 -- help must be quick

    raise Exit(ask(workspace, run_id))


def fork(
    workspace: WorkspaceDirectory,
    run_id: RunId,
    *,
    at: Annotated[str, Option("--at", metavar="STEP", help="The step that is to be done again.")],
    output: Annotated[
        list[str] | None,
        Option("--output", metavar="STEP=JSON", help="Another output of a step that is kept; may be repeated."),
    ] = None,
) -> None:
    """Run `penstock fork`."""
    from penstock.cli.pipeline_runs import fork as make_fork  # noqa: PLC0415 -- help must be quick

    raise Exit(make_fork(workspace, run_id, at, output or ()))
