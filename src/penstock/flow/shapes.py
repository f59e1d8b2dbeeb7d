"""Steps that are structure: what runs at once, for each item, in rounds, by a choice, or waits for somebody.

None of them is called: an engine reads what they consist of. `Pipeline` has methods for those that stand in a sequence.
"""

from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, cast, overload, override

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.text import a
from penstock.flow.steps import Step, as_step, checked_name, refuses_unknown

type MapOnError = Literal["raise", "collect", "return"]
"""What a `map` does with an item that failed."""


class Parallel(Step[Any, Any]):
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


class Map(Step[Any, Any]):
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


class Branch(Step[Any, Any]):
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


class Rounds(Step[Any, Any]):
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


def plain_result[T](whose: str, given: T) -> T:
    """Return what a function gave that must be plain, unless somebody would have to await it."""
    if isinstance(given, Awaitable):
        if isinstance(given, Coroutine):
            given.close()
        raise OptionError(f"{whose} must be a plain function, it gave {a(type(given).__name__)} to be awaited")  # pyright: ignore[reportUnknownArgumentType] -- of the user
    return given


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
