"""Steps that are structure: what runs at once, for each item, in rounds, by a choice, or waits for somebody.

None of them is called: an engine reads what they consist of. `Pipeline` has methods for those that stand in a sequence.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any, ClassVar, Literal, cast, overload, override

from penstock.core import validate
from penstock.core.errors import FatalError, OptionError, as_failure, note
from penstock.core.outcome import Failed, Ok, Result
from penstock.core.retry import Exhausted
from penstock.core.text import a
from penstock.flow.added import CannotBegin, StepCall, StepCalls, StepFailed, left_thread
from penstock.flow.results import ErrorCode, PipelineError, failure_text
from penstock.flow.steps import Step, as_step, below, checked_name, no_function, refuses_unknown
from penstock.ops.adding import I_contra, O_co

type MapOnError = Literal["raise", "collect", "return"]
"""What a `map` does with an item that failed."""


class Composite(Step[I_contra, O_co]):
    """A step that consists of others; in a stream it is one call for an item."""

    __slots__ = ()

    @override
    def bind(self, calls: StepCalls) -> StepCall:
        return told(self.bind_inner(calls))


def pipeline_error(failed: StepFailed) -> PipelineError:
    """Return what an engine says of such a failure."""
    text = failed.said if failed.error is None else failure_text(failed.error)
    begins = failed.is_begun and not isinstance(failed.error, CannotBegin)
    code: ErrorCode = "STEP_FAILED" if begins else "TASK_CREATION_FAILED"
    error = PipelineError(code, failed.path, f"step {failed.path!r}: {text}")
    error.__cause__ = failed.error
    return error


def told(call: StepCall) -> StepCall:
    """Wrap the call of a composite step: it fails with what a step in it raised, which says where."""

    async def told_call(value: Any, path: str) -> Any:
        try:
            return await call(value, path)
        except StepFailed as failed:
            error, attempts = failed.error, failed.attempts
            if error is None:
                error = pipeline_error(failed)
            elif isinstance(error, Exception):
                note(error, f"step {failed.path!r}")
        try:
            raise Exhausted(error, attempts)
        finally:
            del error  # the traceback holds this frame, and this frame would hold the error

    return told_call


class Parallel(Composite[Any, Any]):
    """Steps that each get a copy of the value, at most `concurrency` under way.

    Attributes:
        steps: those that run.
        concurrency: how many at once; None: the engine's.
        gives: the type of its output, `list` or `tuple`.
    """

    __slots__ = ("concurrency", "gives", "steps")
    kind: ClassVar[str] = "parallel"
    steps: tuple[Step[Any, Any], ...]
    concurrency: int | None
    gives: type[list[Any]] | type[tuple[Any, ...]]

    def __init__(self, name: str, steps: object, concurrency: object) -> None:
        super().__init__(name)
        if not isinstance(steps, list | tuple):
            raise OptionError(f"steps of parallel {name!r} must be a list or a tuple of steps, got {steps!r}")
        found = tuple(as_step(each, f"each of the steps of parallel {name!r}") for each in cast("list[Any]", steps))
        if not found:
            raise OptionError(f"parallel {name!r} must have at least one step, got none")
        unique(found, f"parallel {name!r}")
        self._set(steps=found, concurrency=places(concurrency), gives=list if isinstance(steps, list) else tuple)

    @override
    def children(self) -> Mapping[str, Step[Any, Any]]:
        return {each.name: each for each in self.steps}

    @override
    def own_code(self) -> tuple[Callable[..., Any], object, bool]:
        return no_function, [each.name for each in self.steps], False

    @override
    def bind_inner(self, calls: StepCalls) -> StepCall:
        inner = [(each.name, each.bind_inner(calls)) for each in self.steps]

        async def call(value: Any, path: str) -> Any:
            return self.gives([await each(value, below(path, name)) for name, each in inner])

        return call


class Map(Composite[Any, Any]):
    """A body for each item, at most `concurrency` begun at once.

    Attributes:
        body: the step that each item goes through.
        concurrency: items begun at once; None: the engine's.
        on_error: what becomes of an item that failed.
    """

    __slots__ = ("body", "concurrency", "on_error")
    kind: ClassVar[str] = "map"
    body: Step[Any, Any]
    concurrency: int | None
    on_error: MapOnError

    def __init__(self, name: str, body: Step[Any, Any], concurrency: object, on_error: MapOnError) -> None:
        super().__init__(name)
        choices: tuple[MapOnError, ...] = ("raise", "collect", "return")
        validate.one_of("on_error", on_error, choices)
        self._set(body=body, concurrency=places(concurrency), on_error=on_error)

    @override
    def children(self) -> Mapping[str, Step[Any, Any]]:
        return {self.name: self.body}

    @override
    def bind_inner(self, calls: StepCalls) -> StepCall:
        body = self.body.bind_inner(calls)

        async def call(value: Any, path: str) -> Any:
            try:
                items = listed(value)
            except TypeError as error:
                raise StepFailed(path, None, is_begun=False, said=str(error)) from error
            if self.on_error == "raise":
                return [await body(item, f"{path}[{number}]") for number, item in enumerate(items)]
            results = [await self._tried(body, item, number, f"{path}[{number}]") for number, item in enumerate(items)]
            return results if self.on_error == "return" else [each.value for each in results if isinstance(each, Ok)]

        return call

    async def _tried(self, body: StepCall, item: Any, number: int, path: str) -> Result[Any]:
        try:
            return Ok(await body(item, path), number)
        except StepFailed as failed:
            if isinstance(failed.error, FatalError):
                raise
            await left_thread(failed)
            attempts = failed.attempts if failed.path == path else 1
            return Failed(pipeline_error(failed), number, item, path, attempts)


class Branch(Composite[Any, Any]):
    """The one of some steps that `choose` names by its key.

    Attributes:
        choose: gives the key for a value.
        cases: the steps by their keys.
        otherwise: the step for all other keys, or None.
    """

    __slots__ = ("cases", "choose", "otherwise")
    kind: ClassVar[str] = "branch"
    choose: Callable[[Any], Any]
    cases: Mapping[Hashable, Step[Any, Any]]
    otherwise: Step[Any, Any] | None

    def __init__(self, name: str, choose: Callable[[Any], Any], cases: object, otherwise: object) -> None:
        super().__init__(name)
        validate.plain_function(f"choose of branch {name!r}", choose)
        if not isinstance(cases, Mapping) or (not cases and otherwise is None):
            raise OptionError(f"cases of branch {name!r} must be a mapping with at least one step, got {cases!r}")
        found = {key: as_step(each, f"case {key!r} of branch {name!r}") for key, each in cast("Any", cases).items()}
        last = None if otherwise is None else as_step(otherwise, f"otherwise of branch {name!r}")
        distinct = dict.fromkeys((*found.values(), *(() if last is None else (last,))))
        unique(tuple(distinct), f"branch {name!r}")
        self._set(choose=choose, cases=MappingProxyType(found), otherwise=last)

    @override
    def children(self) -> Mapping[str, Step[Any, Any]]:
        last = () if self.otherwise is None else (self.otherwise,)
        return {each.name: each for each in (*self.cases.values(), *last)}

    @override
    def own_code(self) -> tuple[Callable[..., Any], object, bool]:
        return self.choose, [str(key) for key in self.cases], False

    @override
    def bind_inner(self, calls: StepCalls) -> StepCall:
        inner = {name: each.bind_inner(calls) for name, each in self.children().items()}

        async def call(value: Any, path: str) -> Any:
            try:
                key = validate.plain_result("choose", self.choose(value))
                found = self.cases.get(key, self.otherwise)
            except Exception as error:
                raise StepFailed(path, as_failure(error, "choose")) from error
            if found is None:
                raise StepFailed(path, None, said=self.no_case(key))
            return await inner[found.name](value, below(path, found.name))

        return call

    def no_case(self, key: object) -> str:
        """Say that there is no case for a key."""
        return f"no case for the key {key!r}: there are {', '.join(map(repr, self.cases))}"


class Rounds(Composite[Any, Any]):
    """A body, round after round on what it gave, until `until(value)` is true.

    Attributes:
        body: the step of a round.
        until: whether a value is good enough.
        max_rounds: rounds after which it fails.
    """

    __slots__ = ("body", "max_rounds", "until")
    kind: ClassVar[str] = "loop"
    body: Step[Any, Any]
    until: Callable[[Any], object]
    max_rounds: int

    def __init__(self, name: str, body: object, until: Callable[[Any], object], max_rounds: object) -> None:
        super().__init__(name)
        validate.plain_function(f"until of loop {name!r}", until)
        self._set(
            body=as_step(body, f"the body of loop {name!r}"),
            until=until,
            max_rounds=validate.whole("max_rounds", max_rounds, least=1),
        )

    @override
    def children(self) -> Mapping[str, Step[Any, Any]]:
        return {self.name: self.body}

    @override
    def own_code(self) -> tuple[Callable[..., Any], object, bool]:
        return self.until, None, False

    @override
    def bind_inner(self, calls: StepCalls) -> StepCall:
        body = self.body.bind_inner(calls)

        async def call(value: Any, path: str) -> Any:
            for number in range(self.max_rounds):
                value = await body(value, f"{path}[{number}]")
                try:
                    is_done = bool(validate.plain_result("until", self.until(value)))
                except Exception as error:
                    raise StepFailed(path, as_failure(error, "until")) from error
                if is_done:
                    return value
            raise StepFailed(path, None, said=self.not_done)

        return call

    @property
    def not_done(self) -> str:
        """Say that it did not end."""
        return f"did not end within max_rounds={self.max_rounds} rounds"


class Review(Step[Any, Any]):
    """Waits for an answer.

    Attributes:
        check: sees what is to go on, edited or not, and refuses it by raising; None lets all of it go on.
    """

    __slots__ = ("check",)
    kind: ClassVar[str] = "review"
    check: Callable[[Any], object] | None

    def __init__(self, name: str, check: Callable[[Any], object] | None) -> None:
        super().__init__(name)
        if check is not None:
            validate.plain_function(f"check of review {name!r}", check)
        self._set(check=check)

    @override
    def own_code(self) -> tuple[Callable[..., Any], object, bool]:
        return self.check or no_function, None, False

    @override
    def refuse_stream(self, path: str) -> None:
        raise OptionError(f"review {path!r} cannot be part of a stream: an item cannot wait for somebody")


def listed(value: Any) -> list[Any]:
    """Return the items that a map is given, as a list.

    Raises:
        TypeError: it is no iterable whose order lasts.
    """
    kind = type(value).__name__
    if isinstance(value, str | bytes | bytearray | Mapping | AbstractSet):
        raise TypeError(f"a map needs items whose order lasts, got {a(kind)}")
    try:
        return list(cast("Iterable[Any]", value))
    except TypeError:
        raise TypeError(f"a map needs an iterable, got {a(kind)}") from None


def unique(steps: tuple[Step[Any, Any], ...], where: str) -> None:
    """Raise `OptionError` if two of the steps have one name."""
    seen: set[str] = set()
    for each in steps:
        if each.name in seen:
            raise OptionError(f"names of steps must be unique among siblings, got {each.name!r} twice in {where}")
        seen.add(each.name)


def places(concurrency: object) -> int | None:
    """Return the option `concurrency`, checked."""
    return None if concurrency is None else validate.whole("concurrency", concurrency, least=1)


@overload
def parallel[I, A](name: str, steps: tuple[Step[I, A]], /, *, concurrency: int | None = None) -> Step[I, tuple[A]]: ...
@overload
def parallel[I, A, B](
    name: str, steps: tuple[Step[I, A], Step[I, B]], /, *, concurrency: int | None = None
) -> Step[I, tuple[A, B]]: ...
@overload
def parallel[I, A, B, C](
    name: str, steps: tuple[Step[I, A], Step[I, B], Step[I, C]], /, *, concurrency: int | None = None
) -> Step[I, tuple[A, B, C]]: ...
@overload
def parallel[I, A, B, C, D](
    name: str, steps: tuple[Step[I, A], Step[I, B], Step[I, C], Step[I, D]], /, *, concurrency: int | None = None
) -> Step[I, tuple[A, B, C, D]]: ...
@overload
def parallel[I, A, B, C, D, E](
    name: str,
    steps: tuple[Step[I, A], Step[I, B], Step[I, C], Step[I, D], Step[I, E]],
    /,
    *,
    concurrency: int | None = None,
) -> Step[I, tuple[A, B, C, D, E]]: ...
@overload
def parallel[I](
    name: str, steps: tuple[Step[I, Any], ...], /, *, concurrency: int | None = None
) -> Step[I, tuple[Any, ...]]: ...
@overload
def parallel[I, O](name: str, steps: list[Step[I, O]], /, *, concurrency: int | None = None) -> Step[I, list[O]]: ...
@refuses_unknown
def parallel(name: str, steps: Any, /, *, concurrency: int | None = None) -> Step[Any, Any]:
    """Make a step that gives each of `steps` a copy of its value, and then their outputs in the order of the steps.

    Args:
        name: 1 to 100 printable characters without `/`, `[`, `]`.
        steps: at least one; of a list the output is a list, of a tuple a tuple.
        concurrency: how many are under way at most, an int >= 1; None, the default, is that of the engine. A step that
            waits for an answer frees its place.

    Raises:
        OptionError: an argument breaks its rule, there is no step, or a name stands twice.
    """
    return Parallel(checked_name(name), steps, concurrency)


@refuses_unknown
def review[T](name: str, /, *, check: Callable[[T], object] | None = None) -> Step[T, T]:
    """Make a step that waits for an answer, and gives what was approved.

    Args:
        name: 1 to 100 printable characters without `/`, `[`, `]`.
        check: a plain function that sees what is to go on, edited or not, and refuses it by raising. It may be called
            again after a kill.

    Raises:
        OptionError: an argument breaks its rule.
    """
    return Review(checked_name(name), check)


def gives_of(step: Step[Any, Any]) -> str:
    """Return what the output of a step is made of, if it is made of those of its children."""
    if isinstance(step, Parallel):
        return step.gives.__name__
    return "list" if isinstance(step, Map) else ""
