"""The step that calls a function of the user."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final, Unpack, cast, get_type_hints, overload, override

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.plan import Plan
from penstock.core.stage_limits import limits_of
from penstock.core.text import name_of
from penstock.engines.binding import Binding
from penstock.engines.choosing import OWN, bound_to, chosen
from penstock.engines.local import FunctionKind, kind_of
from penstock.flow.added import LeafCall, StepCall, StepCalls
from penstock.flow.codes import code_of_step
from penstock.flow.context import StepContext
from penstock.flow.leaf import Leaf, LeafOptions, StepOptions, context_in_stream, leaf_options
from penstock.flow.steps import Step, checked_name, nothing_yet, settings, text_of
from penstock.ops.adding import ADD
from penstock.ops.operator import Operator
from penstock.ops.work import work

MANY: Final = 2
"""Places with which a plain function runs in a thread."""


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
    """StepCalls a function."""

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
        self._set(fn=fn, runs_as=runs_as, takes_context=takes_context(whose, fn, "the value"))
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
    def stage(self, options: Mapping[str, Any], pipeline: str, path: str) -> Operator:
        """Return the operator; a function that takes no context is called as `Stream.map` calls it."""
        given, own = settings(self.name, options), self.options
        inline = own.engine == "inline" and self.runs_as == "plain"
        if self.takes_context or (inline and own.timeout is not None):
            return super().stage(options, pipeline, path)
        self.refuse_stream(path)
        operator = work(
            ADD,
            self.fn,
            name=given.name or self.name,
            concurrency=given.concurrency,
            ordered=given.ordered,
            buffer=given.buffer,
            on_error=given.on_error,
            max_failures=given.max_failures,
            max_failure_rate=given.max_failure_rate,
            engine="thread" if own.engine is None and self.runs_as == "plain" else own.engine,
            timeout=own.timeout,
            retry=own.retry,
            limit=own.limit,
            memo=own.memo,
            deps=own.deps,
        )
        return replace(operator, text=text_of(self, options))

    @override
    def bind(self, calls: StepCalls) -> StepCall:
        engine = chosen(self.options.engine, self.runs_as, MANY)
        if engine is None:
            return super().bind(calls)
        limits = limits_of(self.options.limit)
        if engine is OWN["thread"]:
            where = calls.threads()
        else:
            plan: Plan[Any, Any] = Plan(self.name, nothing_yet, concurrency=calls.concurrency, limits=limits)
            where, plan = bound_to(engine, calls.scope, plan, counted=calls.counted or not calls.is_top(self))
            limits = plan.limits
            if calls.is_top(self):
                calls.concurrency = plan.concurrency
        return self.within_options(calls, self._attempt_on(where, calls), limits)

    def _attempt_on(self, where: Binding, calls: StepCalls) -> Callable[[LeafCall], Awaitable[Any]]:
        """Return what makes one attempt on an engine."""
        timeout = self.options.timeout
        if self.takes_context:
            return lambda call: where.call(self.fn, (call.value, context_in_stream(calls, call)), timeout)
        bound = where.bind(self.fn, timeout)
        return lambda call: bound(call.value)

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


def takes_context(whose: str, fn: Callable[..., Any], first: str) -> bool:
    """Whether the function has a second required parameter, beside the `first`."""
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
            f"{whose} must have no more required parameters than {first} and the context, got {name_of(fn)}{signature}"
        )
    try:
        signature.bind(*(None for _ in places or ("value",)))
    except TypeError:
        raise OptionError(f"{whose} must take {first}, got {name_of(fn)}{signature}") from None
    return len(places) == 2  # noqa: PLR2004 -- as above
