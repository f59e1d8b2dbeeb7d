"""The errors and warnings that penstock raises of its own accord.

Work that fails raises the user's own exception object; these are for everything else.
"""

import inspect
from contextlib import suppress
from traceback import walk_stack
from typing import override

from penstock.core.text import one_line


class PenstockError(Exception):
    """Base of every error that penstock raises of its own accord."""


class OptionError(PenstockError, ValueError, TypeError):
    """An option breaks its rule; the message names option, rule and value.

    Whether `concurrency="4"` is a wrong type or a wrong value is a matter of taste, so it is both.
    """


class FatalError(PenstockError):
    """No item can do better than this one: it ends the run at once, whatever `on_error` says, and is never retried.

    Raise it, or a subclass, from work that finds out that going on is of no use. In a durable run no item is set aside
    for it: the next run does what was in flight.
    """


def is_fault_of_item(error: BaseException) -> bool:
    """Whether a failure is that of one item, which `on_error` may set aside."""
    return isinstance(error, Exception) and not isinstance(error, FatalError)


class MisuseError(OptionError, FatalError, RuntimeError):
    """Something was given that cannot work for any item; so it ends the run, whatever `on_error` says.

    Examples: a coroutine object that was awaited before (Python's own error for that is a RuntimeError), an engine that
    was closed or not entered, a program without a main guard that starts worker processes.
    """


class WorkRaised(PenstockError, RuntimeError):
    """Work raised an exception that means something else to its caller; the original is the cause.

    `StopIteration`, `StopAsyncIteration`, `GeneratorExit` and `asyncio.CancelledError` would end an iteration, a
    generator or a task if they travelled on as themselves (P5).
    """


class AttemptTimeout(PenstockError, TimeoutError):
    """One attempt of a call took longer than the stage's `timeout`."""


class WorkerLost(PenstockError):
    """The worker that ran a call died: killed, out of memory, a crash of C code, `os._exit`, a node that is gone.

    Attributes:
        how: how a worker process ended, as "was killed by SIGKILL"; empty where that is not known.
    """

    how: str = ""


class RemoteError(PenstockError):
    """Stands for an exception that was raised in another process and cannot be pickled, or not be loaded here.

    Attributes:
        text: the traceback, as Python prints it there.
    """

    def __init__(self, said: str, text: str) -> None:
        super().__init__(said, text)
        self.text: str = text

    @override
    def __str__(self) -> str:
        return str(self.args[0])


class PicklingFailed(PenstockError, TypeError):
    """An argument or a result of a call in another process cannot be pickled, or not be loaded there.

    The message names it, its type and the reason.
    """


class SourceConsumedError(PenstockError, RuntimeError):
    """A stream over a one-shot iterator was opened a second time."""


class ConcurrentReadError(PenstockError, RuntimeError):
    """Two `anext` calls were in progress on one run at once (P5), or work of a run wanted to leave that run.

    For an executor: two `run()` calls were in progress.
    """


class EmptyStreamError(PenstockError, LookupError):
    """`first()` found no item and was given no default."""


class ResultCountError(PenstockError, ValueError):
    """The function of `map_batches` gave more or fewer results than it was given items."""


class ResultFailed(PenstockError):
    """A task returned a result that `is_failed` calls a failure; `result` is that result."""

    def __init__(self, result: object) -> None:
        super().__init__(f"is_failed called the result {result!r} a failure")
        self.result: object = result


class NoResultError(PenstockError, LookupError):
    """The result of a task was asked for, and the task was cancelled or never started."""


class NestedLimitError(PenstockError, RuntimeError):
    """A task asked for a `Limiter` that it holds: it would wait for itself.

    The message and the traceback show both places.
    """


class WrongLoopError(PenstockError, RuntimeError):
    """A limit, a `RetryBudget`, an engine or an executor was used on another event loop than that of its first use."""


class ExecutorUseError(PenstockError, RuntimeError):
    """An executor was asked for what it cannot do now: it is closed, was entered before, or would wait for itself."""


class DuplicateKeyError(PenstockError, ValueError):
    """Two items of the source of a durable run have one key; the message names the key and both places."""


class SourceError(PenstockError):
    """A source, or something in it, cannot be read; the message names the place and says why."""


class UnclosedStreamWarning(RuntimeWarning):
    """An opened stream was abandoned before its end; its work stopped only when it was collected."""


class UnstoppedWorkWarning(RuntimeWarning):
    """Work went on after its cancellation for longer than `open(grace=)` and was left behind."""


class BlockedLoopWarning(RuntimeWarning):
    """A lambda or another callable, which runs on the event loop, kept it from everything else for 0.1 s or more."""


_CONVERTED_ARGS = {
    (f"{kind} raised {name}",)
    for kind in ("coroutine", "generator", "async generator")
    for name in ("StopIteration", "StopAsyncIteration")
}
"""What Python writes when it turns one of these into a RuntimeError (PEP 479, PEP 525)."""


def as_failure(error: BaseException, whose: str = "the work function") -> BaseException:
    """Return the exception to raise for `error`, caught from work: itself, or a `WorkRaised` with it as cause.

    It cuts frames of penstock from the traceback: they would tie the exception to the stages that it came through. See
    `docs/decisions.md`, "Exceptions lose the frames that are ours".
    """
    if isinstance(error, RuntimeError) and error.__cause__ is not None and _is_converted(error):
        error = error.__cause__
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__", "").startswith("penstock."):
        traceback = traceback.tb_next
    error = error.with_traceback(traceback)
    from asyncio import CancelledError  # noqa: PLC0415 -- takes 30 ms to load, which a command without a loop is spared

    if isinstance(error, StopIteration | StopAsyncIteration | GeneratorExit | CancelledError):
        raised = WorkRaised(f"{whose} raised {said(error)}")
        raised.__cause__ = error
        return raised
    return error


def _is_converted(error: RuntimeError) -> bool:
    return len(error.args) == 1 and isinstance(error.args[0], str) and error.args in _CONVERTED_ARGS


def note(error: BaseException, text: str) -> None:
    """Add a note to the user's exception, if it allows it and has no such note: one object may fail many runs."""
    ours = f"penstock: {one_line(text)}"
    with suppress(Exception):
        if ours not in getattr(error, "__notes__", ()):
            error.add_note(ours)


def said(error: BaseException) -> str:
    """Show an exception on one line of bounded length, even if its own `repr` fails."""
    try:
        return one_line(repr(error))
    except Exception as failure:  # noqa: BLE001 -- it must not hide the error that it speaks of
        return f"<{type(error).__name__}, whose repr raised {type(failure).__name__}>"


type Place = tuple[str, int]
"""A file and a line of it."""


def caller() -> Place:
    """Find the line outside of this package that has called it: warnings that come later point there.

    It walks the stack, which is cheap enough for once a run.
    """
    for frame, line in walk_stack(inspect.currentframe()):
        if frame.f_globals.get("__name__", "").partition(".")[0] != "penstock":
            return frame.f_code.co_filename, line
    return "", 0
