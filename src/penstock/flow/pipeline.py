"""A pipeline: a name and steps, each of which gets what the one before it gave."""

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from typing import Any, ClassVar, Literal, Self, Unpack, cast, overload, override

from penstock.core.errors import OptionError
from penstock.core.outcome import Result
from penstock.flow import function
from penstock.flow.added import StepCall, StepCalls
from penstock.flow.context import StepContext
from penstock.flow.leaf import MapOptions, StepOptions
from penstock.flow.shapes import Branch, Composite, Map, MapOnError, Review, Rounds, unique
from penstock.flow.steps import Step, as_step, below, checked_name, refuse_unknown, refuses_unknown
from penstock.flow.trigger import Trigger, checked
from penstock.ops.adding import I_contra, O_co
from penstock.ops.operator import Operator


class Pipeline(Composite[I_contra, O_co]):
    """A name and named steps, each of which gets what the one before it gave. It is immutable, and a step: it nests.

    Each method gives a new pipeline; the list form and the method form give the same. Functions may be called again
    after a kill, if their step was not finished; `choose`, `until` and `check` are plain and run on the loop.

    Attributes:
        steps: in the order in which they run.
        takes: the type of the value; it also says how JSON of the command line is read. None: not said.
        trigger: what is to start it, as data: a `Cron`, an `Event`, or "manual". Nothing runs by itself.
        source: the absolute path or `module:name` that it was read from, else "".

    Args:
        name: 1 to 100 printable characters without `/`, `[`, `]`.
        steps: those of the list form.
        takes: the type of the value, of the method form.
        trigger: see above.

    Raises:
        OptionError: an argument breaks its rule, or two steps have one name.

    Example:
        article = Pipeline("article", takes=str).step("outline", outline).map("sections", write, concurrency=4)
    """

    __slots__ = ("_places", "source", "steps", "takes", "trigger")
    kind: ClassVar[str] = "pipeline"
    steps: tuple[Step[Any, Any], ...]
    takes: type[Any] | None
    trigger: Trigger
    source: str
    _places: dict[str, int]
    """Where each name stands; the pipelines made of this one by adding steps, each to the one before, share it."""

    @overload
    def __init__[T](self: "Pipeline[T, T]", name: str, /, *, takes: type[T], trigger: Trigger = "manual") -> None: ...
    @overload
    def __init__(
        self: "Pipeline[Any, Any]",
        name: str,
        steps: Iterable[Step[Any, Any]] = (),
        /,
        *,
        trigger: Trigger = "manual",
    ) -> None: ...
    @refuses_unknown
    def __init__(
        self,
        name: str,
        steps: Iterable[Step[Any, Any]] = (),
        /,
        *,
        takes: type[Any] | None = None,
        trigger: Trigger = "manual",
    ) -> None:
        super().__init__(checked_name(name))
        _check_forms(name, steps, takes)
        found = tuple(as_step(each, f"each of the steps of pipeline {name!r}") for each in steps)
        unique(found, f"pipeline {name!r}")
        places = {each.name: place for place, each in enumerate(found)}
        self._set(steps=found, takes=takes, trigger=checked(trigger), source="", _places=places)

    @refuses_unknown
    def add[U](self, step: Step[O_co, U], /) -> "Pipeline[I_contra, U]":
        """Add a step behind the others, one made by `step`, `parallel` and the like, or a pipeline.

        Raises:
            OptionError: it is no step, or its name is there already.
        """
        return self._with(step)

    @overload
    def step[U](
        self, name: str, fn: Callable[[O_co], Awaitable[U]], /, **options: Unpack[StepOptions]
    ) -> "Pipeline[I_contra, U]": ...
    @overload
    def step[U](
        self, name: str, fn: Callable[[O_co, StepContext], Awaitable[U]], /, **options: Unpack[StepOptions]
    ) -> "Pipeline[I_contra, U]": ...
    @overload
    def step[U](
        self, name: str, fn: Callable[[O_co], U | Awaitable[U]], /, **options: Unpack[StepOptions]
    ) -> "Pipeline[I_contra, U]": ...
    @overload
    def step[U](
        self, name: str, fn: Callable[[O_co, StepContext], U | Awaitable[U]], /, **options: Unpack[StepOptions]
    ) -> "Pipeline[I_contra, U]": ...
    def step(self, name: str, fn: Callable[..., Any], /, **options: Unpack[StepOptions]) -> "Pipeline[Any, Any]":
        """Add a step that calls `fn`, behind the others: see `penstock.flow.step`.

        Raises:
            OptionError: the name or an option breaks its rule, or the function cannot be called so.
        """
        return self._with(function.step(name, fn, **options))

    @overload
    def map[I, T, U](
        self: "Pipeline[I, Iterable[T]]",
        name: str,
        fn: Step[T, U],
        /,
        *,
        on_error: Literal["raise", "collect"] = "raise",
        **options: Unpack[MapOptions],
    ) -> "Pipeline[I, list[U]]": ...
    @overload
    def map[I, T, U](
        self: "Pipeline[I, Iterable[T]]",
        name: str,
        fn: Callable[[T], Awaitable[U]],
        /,
        *,
        on_error: Literal["raise", "collect"] = "raise",
        **options: Unpack[MapOptions],
    ) -> "Pipeline[I, list[U]]": ...
    @overload
    def map[I, T, U](
        self: "Pipeline[I, Iterable[T]]",
        name: str,
        fn: Callable[[T, StepContext], Awaitable[U]],
        /,
        *,
        on_error: Literal["raise", "collect"] = "raise",
        **options: Unpack[MapOptions],
    ) -> "Pipeline[I, list[U]]": ...
    @overload
    def map[I, T, U](
        self: "Pipeline[I, Iterable[T]]",
        name: str,
        fn: Callable[[T], U | Awaitable[U]],
        /,
        *,
        on_error: Literal["raise", "collect"] = "raise",
        **options: Unpack[MapOptions],
    ) -> "Pipeline[I, list[U]]": ...
    @overload
    def map[I, T, U](
        self: "Pipeline[I, Iterable[T]]",
        name: str,
        fn: Callable[[T, StepContext], U | Awaitable[U]],
        /,
        *,
        on_error: Literal["raise", "collect"] = "raise",
        **options: Unpack[MapOptions],
    ) -> "Pipeline[I, list[U]]": ...
    @overload
    def map[I, T, U](
        self: "Pipeline[I, Iterable[T]]",
        name: str,
        fn: Step[T, U],
        /,
        *,
        on_error: Literal["return"],
        **options: Unpack[MapOptions],
    ) -> "Pipeline[I, list[Result[U]]]": ...
    @overload
    def map[I, T, U](
        self: "Pipeline[I, Iterable[T]]",
        name: str,
        fn: Callable[[T], Awaitable[U]],
        /,
        *,
        on_error: Literal["return"],
        **options: Unpack[MapOptions],
    ) -> "Pipeline[I, list[Result[U]]]": ...
    @overload
    def map[I, T, U](
        self: "Pipeline[I, Iterable[T]]",
        name: str,
        fn: Callable[[T, StepContext], Awaitable[U]],
        /,
        *,
        on_error: Literal["return"],
        **options: Unpack[MapOptions],
    ) -> "Pipeline[I, list[Result[U]]]": ...
    @overload
    def map[I, T, U](
        self: "Pipeline[I, Iterable[T]]",
        name: str,
        fn: Callable[[T], U | Awaitable[U]],
        /,
        *,
        on_error: Literal["return"],
        **options: Unpack[MapOptions],
    ) -> "Pipeline[I, list[Result[U]]]": ...
    @overload
    def map[I, T, U](
        self: "Pipeline[I, Iterable[T]]",
        name: str,
        fn: Callable[[T, StepContext], U | Awaitable[U]],
        /,
        *,
        on_error: Literal["return"],
        **options: Unpack[MapOptions],
    ) -> "Pipeline[I, list[Result[U]]]": ...
    def map(
        self,
        name: str,
        fn: Callable[..., Any] | Step[Any, Any],
        /,
        *,
        on_error: MapOnError = "raise",
        **options: Unpack[MapOptions],
    ) -> "Pipeline[Any, Any]":
        """Add a step that calls `fn`, a function or a step, for each item, and gives a list in their order.

        It takes any iterable but `str`, `bytes`, mappings and sets, whose order does not last.

        Args:
            name: of the step; item i is `name[i]`.
            fn: as for `step`; or a step, also a pipeline: then only `concurrency` and `on_error` are taken.
            on_error: "raise", the default: the first failure fails the run. "collect": an item that failed stays a
                `failed` step, and is not in the list. "return": the list has `Ok` and `Failed`.
            **options: see `MapOptions`.

        Raises:
            OptionError: an argument breaks its rule.
        """
        given = dict(options)
        concurrency = given.pop("concurrency", None)
        if isinstance(fn, Step):
            refuse_unknown(f"map {name!r} over a step", given, ("concurrency", "on_error"))
            body = cast("Step[Any, Any]", fn)
        else:
            refuse_unknown(f"map {name!r}", given, {*MapOptions.__optional_keys__, "on_error"})
            body = function.step(name, fn, **cast("StepOptions", given))
        return self._with(Map(checked_name(name), body, concurrency, on_error))

    @refuses_unknown
    def branch[K: Hashable, U](
        self,
        name: str,
        choose: Callable[[O_co], K],
        cases: Mapping[K, Step[O_co, U]],
        /,
        *,
        otherwise: Step[O_co, U] | None = None,
    ) -> "Pipeline[I_contra, U]":
        """Add a step that runs the one of `cases` whose key `choose(value)` gives, else `otherwise`.

        The choice is recorded first, and holds. A key without a case fails the branch.

        Raises:
            OptionError: an argument breaks its rule, or two cases have one name.
        """
        return self._with(Branch(checked_name(name), choose, cases, otherwise))

    @refuses_unknown
    def loop[I, T](
        self: "Pipeline[I, T]",
        name: str,
        body: Step[T, T],
        /,
        *,
        until: Callable[[T], object],
        max_rounds: int,
    ) -> "Pipeline[I, T]":
        """Add a step that runs `body` on what it gave until `until(value)` is true; after `max_rounds` it fails.

        Args:
            name: of the step; round i is `name[i]`.
            body: the step of a round.
            until: a plain function.
            max_rounds: an int >= 1.

        Raises:
            OptionError: an argument breaks its rule.
        """
        return self._with(Rounds(checked_name(name), body, until, max_rounds))

    @refuses_unknown
    def review(self, name: str, /, *, check: Callable[[O_co], object] | None = None) -> "Pipeline[I_contra, O_co]":
        """Add a step that waits for an answer: see `penstock.flow.review`.

        Raises:
            OptionError: an argument breaks its rule.
        """
        return self._with(Review(checked_name(name), check))

    def read_from(self, source: str) -> Self:
        """Return the same pipeline, with the place that it was read from."""
        return self._changed(self.steps, self._places, source)

    @override
    def children(self) -> Mapping[str, Step[Any, Any]]:
        return {each.name: each for each in self.steps}

    @override
    def refuse_stream(self, path: str) -> None:
        if not self.steps:
            raise OptionError(f"pipeline {self.name!r} cannot be part of a stream: it has no steps")
        super().refuse_stream(path)

    @override
    def operator(self, options: Mapping[str, Any]) -> Operator:
        return self.stage(options, self.name, "")

    @override
    def bind_inner(self, calls: StepCalls) -> StepCall:
        inner = [(each.name, each.bind_inner(calls)) for each in self.steps]

        async def call(value: Any, path: str) -> Any:
            for name, each in inner:
                value = await each(value, below(path, name))
            return value

        return call

    def _with(self, step: Step[Any, Any]) -> "Pipeline[Any, Any]":
        added = as_step(step, f"a step of pipeline {self.name!r}")
        steps = (*self.steps, added)
        number, places = len(self.steps), self._places
        if places.get(added.name, number) < number:
            unique(steps, f"pipeline {self.name!r}")
        if len(places) != number:  # another pipeline was made of this one
            places = {each.name: place for place, each in enumerate(self.steps)}
        places[added.name] = number
        return self._changed(steps, places, self.source)

    def _changed(self, steps: tuple[Step[Any, Any], ...], places: dict[str, int], source: str) -> Self:
        new = object.__new__(type(self))
        new._set(name=self.name, steps=steps, takes=self.takes, trigger=self.trigger, source=source, _places=places)
        return new


def _check_forms(name: str, steps: object, takes: object) -> None:
    if not isinstance(steps, Iterable) or isinstance(steps, str):
        raise OptionError(f"steps of pipeline {name!r} must be an iterable of steps, got {steps!r}")
    checked_type(takes)


def checked_type(takes: Any) -> Any:
    """Return the option `takes`, if it is a type or None."""
    if not (takes is None or isinstance(takes, type) or hasattr(takes, "__origin__")):
        raise OptionError(f"takes must be a type, got {takes!r}")
    return takes
