"""What a step knows beside its value: which call of which step of which run it is."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, cast, override

from penstock.core import validate
from penstock.flow.steps import Step
from penstock.flow.usage import Usage
from penstock.tasks.tokens import CancelToken


class State(Mapping[str, Any]):
    """Outputs of steps, by name or path. Each reading is a fresh copy; an unknown name is a `KeyError` that lists all.

    `names` gives those there are, in order; `load` the output of one of them, and raises `KeyError` for all others.
    """

    __slots__ = ("_load", "_names")

    def __init__(self, names: Callable[[], Collection[str]], load: Callable[[str], Any]) -> None:
        self._names = names
        self._load = load

    @override
    def __getitem__(self, name: str) -> Any:
        try:
            return self._load(name)
        except KeyError:
            known = ", ".join(map(repr, self._names())) or "none"
            raise KeyError(f"no output {name!r}: there are {known}") from None

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    @override
    def __len__(self) -> int:
        return len(self._names())

    @override
    def __contains__(self, name: object) -> bool:
        return name in self._names()

    @override
    def __repr__(self) -> str:
        return f"<State of {', '.join(map(repr, self._names())) or 'nothing'}>"


def in_stream(snapshots: Mapping[str, Any]) -> State:
    """Return the state of steps in a stream: the snapshots of its run."""
    return State(lambda: tuple(snapshots), snapshots.__getitem__)


class Recording(Protocol):
    """The part of a context that only a run of an engine has."""

    run_id: str
    idempotency_key: str

    def workspace(self) -> Path:
        """Return the directory of the step, which exists."""
        ...

    def spent(self, usage: Usage) -> None:
        """Record what requests of the step have cost."""
        ...


class StepContext:
    """What a step function gets as its second required parameter.

    Attributes:
        step: the path of the step.
        attempt: the number of this call in this run, from 1, over all resumes.
        state: the outputs of the finished steps before this one; in a stream the snapshots of the run.
        cancel: signalled before the step is cancelled.
        log: the logger `penstock.flow.PIPELINE.STEP`; of a step that is added to a stream `penstock.flow.STEP`.
    """

    __slots__ = ("_recording", "attempt", "cancel", "log", "state", "step")

    def __init__(
        self,
        *,
        step: str,
        attempt: int,
        state: Mapping[str, Any],
        cancel: CancelToken,
        log: logging.Logger,
        recording: Recording | None,
    ) -> None:
        self.step: str = step
        self.attempt: int = attempt
        self.state: State = cast("State", state)
        self.cancel: CancelToken = cancel
        self.log: logging.Logger = log
        self._recording = recording

    @property
    def run_id(self) -> str:
        """The id of the run; in a stream a `LookupError`."""
        return self._recorded("run_id").run_id

    @property
    def idempotency_key(self) -> str:
        """Names this step of this run, the same over attempts and resumes; in a stream a `LookupError`."""
        return self._recorded("idempotency_key").idempotency_key

    @property
    def workspace(self) -> Path:
        """A directory of this step, the same over attempts; in a stream a `LookupError`."""
        return self._recorded("workspace").workspace()

    def output[O](self, step: Step[Any, O], /) -> O:
        """Return the output of a step before this one, with its type: `state[step.name]`.

        In a stream it is a `LookupError`.
        """
        self._recorded("output")
        return cast("O", self.state[step.name])

    def add_usage(self, *, input_tokens: int | None = None, output_tokens: int | None = None) -> None:
        """Count a request, with its tokens as far as they are known; in a stream a `LookupError`.

        Raises:
            OptionError: a number of tokens is no int >= 0.
        """
        given = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        tokens = {
            name: None if number is None else validate.whole(name, number, least=0) for name, number in given.items()
        }
        self.spent(Usage(1, tokens["input_tokens"], tokens["output_tokens"]))

    def spent(self, usage: Usage) -> None:
        """Count what requests have cost, for kinds of steps that make them: recorded as soon as it is said."""
        self._recorded("add_usage").spent(usage)

    def _recorded(self, name: str) -> Recording:
        if self._recording is None:
            raise LookupError(f"{name} is known in a run of an engine only: step {self.step!r} is part of a stream")
        return self._recording
