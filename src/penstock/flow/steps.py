"""What a step is: a value, a name and what is to be done. It is checked when it is built, and never changes.

Steps that are called are leaves: see `penstock.flow.leaf`, which says how a kind of them is added. The other kinds
(`penstock.flow.shapes`, `Pipeline`) are structure.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial, wraps
from types import FunctionType
from typing import Any, ClassVar, Final, Self, cast, override

from penstock.core.errors import OptionError
from penstock.core.plan import Plan
from penstock.core.text import call
from penstock.flow.added import Added, StepCall, StepCalls
from penstock.ops.adding import ADD, AddableStep, AddOptions, I_contra, O_co
from penstock.ops.operator import Code, Operator
from penstock.ops.work import AllOptions, Settings, checked_settings, tolerance_of

LONGEST_NAME: Final = 100
"""Characters of the name of a step."""


class Step(AddableStep[I_contra, O_co]):
    """One step of a pipeline, made by `step`, `parallel`, `review` and the like; a `Pipeline` is one, too.

    Attributes:
        name: 1 to 100 printable characters without `/`, `[`, `]`; unique among its siblings.
    """

    __slots__ = ("__weakref__", "name")
    kind: ClassVar[str] = "step"
    name: str

    def __init__(self, name: str) -> None:
        self._set(name=checked_name(name))

    def _set(self, **attributes: object) -> None:
        """Set what it consists of, while it is built."""
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    @override
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{self!r} is immutable: {name} cannot be set")

    @override
    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{self!r} is immutable: {name} cannot be deleted")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __setstate__(self, state: tuple[None, Mapping[str, object]]) -> None:
        self._set(**state[1])

    @override
    def __repr__(self) -> str:
        return f"<{self.kind} {self.name!r}>"

    def children(self) -> "Mapping[str, Step[Any, Any]]":
        """Return the steps in it, by their names; of a map or a loop its body, under its own name."""
        return {}

    def own_code(self) -> tuple[Callable[..., Any], object, bool]:
        """Return what its output depends on, beside the steps in it: a function, values, and whether it is kept."""
        return no_function, None, False

    # In a stream

    def refuse_stream(self, path: str) -> None:
        """Raise `OptionError` if it, or a step in it, cannot be part of a stream."""
        for each in self.children().values():
            each.refuse_stream(below(path, each.name))

    def bind(self, calls: StepCalls) -> StepCall:
        """Return what calls it in a stage of a run."""
        raise NotImplementedError

    def bind_inner(self, calls: StepCalls) -> StepCall:
        """Return what calls it as part of a composite step: failures are `StepFailed`."""
        return self.bind(calls)

    @override
    def operator(self, options: Mapping[str, Any]) -> Operator:
        return self.stage(options, "", self.name)

    def stage(self, options: Mapping[str, Any], pipeline: str, path: str) -> Operator:
        """Return the operator that it is in a stream, as a step of that pipeline, under that path."""
        self.refuse_stream(path)
        given = settings(self.name, options)
        plan: Plan[Any, Any] = Plan(
            name=given.name or self.name,
            work=nothing_yet,
            concurrency=given.places or 1,
            adaptive=given.adaptive,
            ordered=given.ordered,
            buffer=given.buffer,
            on_error=given.on_error,
            tolerance=tolerance_of(given.on_error, given.max_failures, given.max_failure_rate),
        )
        added = Added(self, plan, given.places, pipeline, path)
        return Operator(
            ADD.name,
            added.open,
            item_by_item=True,
            code=self.stage_code(plan),
            ordered=plan.ordered,
            text=text_of(self, options),
        )

    def stage_code(self, plan: Plan[Any, Any]) -> Code:
        """Return what the results of its stage depend on."""
        parts = list(parts_of(self))
        return Code(
            plan.name,
            partial(no_function, *(fn for _, (fn, _, _) in parts)),
            in_band=plan.on_error == "return",
            deps=[[each.kind, each.name, deps] for each, (_, deps, _) in parts],
            memo=False,
            tolerance=plan.tolerance if plan.on_error in {"skip", "collect"} else None,
        )


def no_function(*_parts: object) -> None:
    """Stand for a function where a step has none; hold those of the steps in it."""


async def nothing_yet(_: object) -> None:
    """Stand for the work of a stage until it is opened."""


def below(path: str, name: str) -> str:
    """Return the path of a step in the one at `path`; "" is the top."""
    return f"{path}/{name}" if path else name


def parts_of(step: Step[Any, Any]) -> Iterator[tuple[Step[Any, Any], tuple[Callable[..., Any], object, bool]]]:
    """Give a step and all steps in it, each with its code."""
    yield step, step.own_code()
    for each in step.children().values():
        yield from parts_of(each)


def settings(name: str, options: Mapping[str, Any]) -> Settings:
    """Check the options of `Stream.add` for a step of that name."""
    refuse_unknown("add", options, {*AddOptions.__optional_keys__, "on_error"})
    return checked_settings(ADD, nothing_yet, cast("AllOptions", {"name": name, **options}))


def text_of(step: Step[Any, Any], options: Mapping[str, Any]) -> str:
    """Write the call that added a step to a stream."""
    return call(ADD.name, repr(step), **options)


def as_step(given: object, what: str) -> Step[Any, Any]:
    """Return `given`, if it is a step."""
    if not isinstance(given, Step):
        raise OptionError(f"{what} must be a step, as step() and Pipeline() make them, got {given!r}")
    return cast("Step[Any, Any]", given)


def checked_name(name: object, whose: str = "name") -> str:
    """Return `name`, if a step can be called so."""
    text = name if isinstance(name, str) else ""
    if not 0 < len(text) <= LONGEST_NAME or not text.isprintable() or set(text) & set("/[]") or text in {".", ".."}:
        raise OptionError(
            f"{whose} must be a str of 1 to {LONGEST_NAME} printable characters without / [ ], and not '.' or '..', "
            f"got {name!r}"
        )
    return text


def refuse_unknown(whose: str, options: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise `OptionError` for an option that is not among those `known`."""
    for option in options:
        if option not in known:
            raise OptionError(f"{whose} has no option {option!r}: there are {', '.join(sorted(known)) or 'none'}")


def refuses_unknown[F: Callable[..., Any]](made: F) -> F:
    """Have a function, or the constructor of a class, refuse options that it has not, and tell those that it lacks.

    To type checkers it stays what it is. The `OptionError` names the step, or what else the first argument names.
    """
    if isinstance(made, type):
        made.__init__ = refuses_unknown(made.__init__)  # type: ignore[misc]
        return cast("F", made)
    function = cast("FunctionType", made)
    code, defaults = function.__code__, function.__kwdefaults__ or {}
    named = code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]
    known = tuple(name for name in named if name != "self")
    needed = tuple(name for name in named[len(named) - code.co_kwonlyargcount :] if name not in defaults)
    owner, _, kind = function.__qualname__.rpartition(".")

    @wraps(function)
    def checked(*arguments: Any, **options: Any) -> Any:
        name = next((f" {each!r}" for each in arguments if isinstance(each, str)), "")
        whose = f"{owner if kind == '__init__' else kind}{name}"
        refuse_unknown(whose, options, known)
        for option in needed:
            if option not in options:
                raise OptionError(f"{whose} needs the option {option!r}")
        return function(*arguments, **options)

    return cast("F", checked)
