"""The step that calls a function of the user."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Unpack, cast, get_type_hints, overload, override

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.text import name_of
from penstock.engines.choosing import chosen
from penstock.engines.local import FunctionKind, kind_of
from penstock.flow.codes import code_of_step
from penstock.flow.context import StepContext
from penstock.flow.leaf import Leaf, LeafOptions, StepOptions, leaf_options
from penstock.flow.steps import Step, checked_name


@overload
def step[I, O](name: str, fn: Callable[[I], Awaitable[O]], /, **options: Unpack[StepOptions]) -> Step[I, O]: ...
@overload
def step[I, O](
    name: str, fn: Callable[[I, StepContext], Awaitable[O]], /, **options: Unpack[StepOptions]
) -> Step[I, O]: ...
@overload
def step[I, O](name: str, fn: Callable[[I], O | Awaitable[O]], /, **options: Unpack[StepOptions]) -> Step[I, O]: ...
@overload
def step[I, O](
    name: str, fn: Callable[[I, StepContext], O | Awaitable[O]], /, **options: Unpack[StepOptions]
) -> Step[I, O]: ...
def step(name: str, fn: Callable[..., Any], /, **options: Unpack[StepOptions]) -> Step[Any, Any]:
    """Make a step that calls `fn` with its value; with the `StepContext`, too, if it has a second required parameter.

    Plain `def` functions run in a thread; async ones, lambdas, builtins and other callables on the loop. An awaitable
    that comes back is awaited. A thread cannot be stopped: at its timeout the step fails, and the run waits for the
    thread up to the engine's `grace`.

    Args:
        name: 1 to 100 printable characters without `/`, `[`, `]`, and not `.` or `..`.
        fn: takes the value, and the context if it asks for one; gives the output.
        **options: see `StepOptions`.

    Raises:
        OptionError: the name or an option breaks its rule, or the function cannot be called so.
    """
    return FunctionStep(checked_name(name), fn, leaf_options(f"step {name!r}", options))


class FunctionStep(Leaf[Any, Any]):
    """Calls a function."""

    __slots__ = ("fn", "runs_as", "takes_context")
    kind: ClassVar[str] = "step"
    fn: Callable[..., Any]
    runs_as: FunctionKind
    takes_context: bool

    def __init__(self, name: str, fn: Callable[..., Any], options: LeafOptions) -> None:
        super().__init__(name, options)
        whose = f"the function of step {name!r}"
        validate.function(whose, fn)
        if isinstance(fn, Step):
            raise OptionError(f"{whose} must be a function, got the step {fn!r}: use add()")
        if _is_generator(fn):
            raise OptionError(
                f"{whose} must return its output, got {name_of(fn)}, which has a yield: see transform() for streams"
            )
        runs_as = kind_of(fn)
        chosen(options.engine, runs_as, None)
        self._set(fn=fn, runs_as=runs_as, takes_context=_takes_context(whose, fn))
        if options.memo or options.deps is not None:
            code_of_step(self)  # what cannot say all of itself is refused when it is built

    def arguments(self, value: Any, ctx: StepContext) -> tuple[Any, ...]:
        """Return what the function is called with."""
        return (value, ctx) if self.takes_context else (value,)

    @override
    async def call(self, value: Any, ctx: StepContext) -> Any:
        result: Any = self.fn(*self.arguments(value, ctx))
        return await cast("Awaitable[Any]", result) if isinstance(result, Awaitable) else result

    @override
    def code(self) -> tuple[Callable[..., Any], object]:
        return self.fn, None

    @override
    def annotations(self) -> Mapping[str, Any]:
        return annotations_of(self.fn)


def annotations_of(fn: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the declared types of the first parameter of a function ("value") and of what it gives ("return")."""
    target = fn if inspect.isroutine(fn) else fn if isinstance(fn, type) else getattr(fn, "__call__", fn)  # noqa: B004 -- the bound method itself is wanted
    try:
        hints = get_type_hints(target)
        first = next(iter(inspect.signature(fn).parameters), "")
    except Exception:  # noqa: BLE001 -- annotations are code of the user: what cannot be read is not declared
        return {}
    found = {"return": hints["return"]} if "return" in hints else {}
    return {**found, "value": hints[first]} if first in hints else found


def _is_generator(fn: Callable[..., Any]) -> bool:
    inner = fn if inspect.isroutine(fn) else getattr(fn, "__call__", fn)  # noqa: B004 -- as above
    return any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in (fn, inner))


def _takes_context(whose: str, fn: Callable[..., Any]) -> bool:
    """Whether the function has a second required parameter."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # of some builtins there is none
        return False
    kinds = inspect.Parameter
    required = [each for each in signature.parameters.values() if each.default is kinds.empty]
    places = [each for each in required if each.kind in {kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD}]
    by_name = [each.name for each in required if each.kind is kinds.KEYWORD_ONLY]
    if len(places) > 2 or by_name:  # noqa: PLR2004 -- the value and the context
        raise OptionError(
            f"{whose} must have no more required parameters than the value and the context, "
            f"got {name_of(fn)}{signature}"
        )
    try:
        signature.bind(*(None for _ in places or ("value",)))
    except TypeError:
        raise OptionError(f"{whose} must take the value, got {name_of(fn)}{signature}") from None
    return len(places) == 2  # noqa: PLR2004 -- as above
