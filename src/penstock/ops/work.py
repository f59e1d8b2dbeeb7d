"""Operators that run a user's function: checks their options, and opens a window per run."""

import inspect
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final, TypedDict, Unpack, cast

from penstock.core import validate
from penstock.core.adaptive import Adaptive
from penstock.core.blocking import watched
from penstock.core.errands import Elsewhere
from penstock.core.errors import OptionError
from penstock.core.limiter import Limiter
from penstock.core.plan import DROPPED, ON_ERROR, ByteBudget, Later, OnError, Plan, Tolerance
from penstock.core.retry import Retry, Seconds
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.core.stage_limits import LimitOption, Limits, limits_of
from penstock.core.text import shown
from penstock.engines.choosing import EngineOption, Make, bound_to, chosen, leaves_process
from penstock.engines.engine import Engine
from penstock.engines.local import FunctionKind, kind_of, on_loop
from penstock.ops.kind import Forms, Kind
from penstock.ops.operator import Adapt, Code, Operator


class MoreOptions(TypedDict, total=False):
    """Options of every operator that runs a function, beside `concurrency` and `on_error`.

    Attributes:
        ordered: True hands results on in the order of the items, False as they finish. None, the default, keeps the
            order wherever it can be seen below (iteration, lists, `reduce`, `first`, `take`, `batch`, `map_batches`,
            `zip`, `enumerate`, `distinct` and the like, a sink that shows it), and hands on as finished where it cannot
            (`for_each`, `drain`, `count`, most durable runs). This is decided when the run is opened.
        buffer: finished results that may wait beside the running calls, an int >= 0; default 0.
        engine: where the function runs: "inline" (called on the loop), "thread" (threads of this stage and run),
            "process" (worker processes of this stage and run), or an engine that stages and runs share (see
            `penstock.engines`); None, the default, means threads for a plain `def` function at concurrency > 1, else
            inline.
        name: the stage's name in errors and statistics; default the operator and the function.
        timeout: seconds, or a timedelta, > 0, that one attempt may take; default no limit. Not for a plain function
            that runs inline: nothing can interrupt it.
        retry: when to try a failed call again; default never.
        limit: a `Limiter`, a `RateLimit`, a `Breaker`, or a sequence of them, which stages may share; default none. An
            attempt holds the limiters while it runs (in a thread: until the thread is back), and is charged to the
            rates when it starts. Waiting for a limit counts neither for `timeout` nor for latency; a call that waits
            for its next try keeps its place and holds no limiter. `flat_map` holds them while async outputs are made,
            but not while these wait for room.
        max_failures: how many failures "skip" and "collect" accept, an int >= 0; one more is raised. Default: any
            number.
        max_failure_rate: the share of failures among the items settled so far, 0 to 1, that "skip" and "collect"
            accept; a single failure is always accepted. Default: any share.
        key: gives the key of an item, anything hashable: items of one key are worked on one after the other, in their
            order and with all their tries; others go on meanwhile. An item that waits for its key is none of the
            `concurrency` calls; `buffer` is the room for it (see `docs/limits.md`). Not for `flat_map` and
            `map_batches`. Default: no keys.
        buffer_bytes: an int >= 1: while finished results of so many bytes wait, no call is started, however much
            `buffer` allows. So at most this and the results of the calls that run are held. Not for `flat_map` and
            `map_batches`. Default: any number.
        size_of: gives the bytes of a result for `buffer_bytes`, a number >= 0; default `len`.
        memo: keep what the function gives for an item in the sink of a durable run (see `to`), under the content of the
            item and the code of the stage. So a call that was paid for is not paid for twice: also when the run was
            killed before the root was done, or when the root has changed and this item of it has not. Items that are
            known are handed on without a call, a limit or an attempt. A plain function in place of True gives what of
            an item its result depends on: items for which that is the same share a result. Not for `tap` and
            `for_each`, and not without a sink. Default False. See `docs/memo.md` for what items and results may be made
            of.
        deps: what else the results depend on (a model, a prompt, a version), made of JSON-like values, bytes, arrays or
            dataclasses of them: when it changes, the stage has changed (see `memo`, and `on_change` of `to`).
    """

    ordered: bool | None
    buffer: int
    engine: EngineOption | None
    name: str | None
    timeout: Seconds | None
    retry: Retry | None
    limit: LimitOption | None
    max_failures: int | None
    max_failure_rate: float | None
    key: Callable[[Any], Hashable] | None
    buffer_bytes: int | None
    size_of: Callable[[Any], float]
    memo: bool | Callable[[Any], object]
    deps: object


class Options(MoreOptions, total=False):
    """Options of every operator that runs a function.

    Attributes:
        concurrency: calls that run at once, an int >= 1, or an `Adaptive`, which finds out how many the service takes
            (not for `flat_map`); None, the default, means 1, or the slots of a shared engine (64 a slot where calls
            travel in groups).
    """

    concurrency: int | Adaptive | None


class AllOptions(Options, total=False):
    """All options of an operator that runs a function."""

    on_error: OnError


@dataclass(slots=True, kw_only=True)
class Settings:
    """The options of an operator, with their defaults; `MoreOptions` explains them."""

    concurrency: int | Adaptive | None = None
    ordered: bool | None = None
    buffer: int = 0
    engine: EngineOption | None = None
    name: str | None = None
    timeout: Seconds | None = None
    retry: Retry | None = None
    limit: LimitOption | None = None
    max_failures: int | None = None
    max_failure_rate: float | None = None
    key: Callable[[Any], Hashable] | None = None
    buffer_bytes: int | None = None
    size_of: Callable[[Any], float] = len
    memo: bool | Callable[[Any], object] = False
    deps: object = None
    on_error: OnError = "raise"

    @property
    def adaptive(self) -> Adaptive | None:
        """What finds the concurrency, if it is not given as a number."""
        return self.concurrency if isinstance(self.concurrency, Adaptive) else None

    @property
    def places(self) -> int | None:
        """The most calls at once."""
        return self.concurrency.most if isinstance(self.concurrency, Adaptive) else self.concurrency


@dataclass(frozen=True, slots=True)
class Work:
    """A user's function with its checked options; opens a window per run."""

    kind: Kind
    fn: Callable[[Any], Any]
    engine: Engine | Make | None
    plan: Plan[Any, Any]
    counted: bool
    key: Callable[[Any], Hashable] | None

    def open(self, scope: Scope, upstream: Stage[Any], adapt: Adapt | None, in_order: bool) -> Stage[Any]:  # noqa: FBT001 -- as all
        """Open the window under `upstream`; `in_order` says whether the order of its output can be seen."""
        one_by_one = None if self.key is None else Limits((), (Limiter(1, key=self.key),))
        plan = self._bound(scope, self.plan.replaced(one_by_one=one_by_one))
        if plan.ordered is None:
            plan = plan.replaced(ordered=in_order)
        if adapt is not None:
            plan = adapt(self.kind, plan)
        if plan.limits is not None:
            plan.limits.bind(scope.loop)
        return self.kind.window(scope, upstream, plan)

    def _bound(self, scope: Scope, plan: Plan[Any, Any]) -> Plan[Any, Any]:
        """Return the plan, with the function bound to where it runs."""
        if self.engine is None:
            return plan
        binding, plan = bound_to(self.engine, scope, plan, counted=self.counted)
        call = self.kind.bound(binding, self.fn, plan.timeout)
        bare = self.kind.one_for_one and not plan.needs_tasks and plan.budget is None
        errands = binding.errands(self.fn) if bare else None
        elsewhere = None if errands is None else Elsewhere(errands, given(self.kind.shape))
        return plan.replaced(work=shaped(call, self.kind.shape), elsewhere=elsewhere, timeout=None)


def work(kind: Kind, fn: Callable[[Any], Any], /, **options: Unpack[AllOptions]) -> Operator:
    """Make an operator of that kind.

    Raises:
        OptionError: an option breaks its rule.
    """
    given = checked_settings(kind, fn, options)
    function_kind = kind_of(fn)
    engine = chosen(given.engine, function_kind, given.places)
    on_loop_as = function_kind if engine is None else None
    if on_loop_as == "plain" and given.timeout is not None:
        raise OptionError(
            f"timeout must be None for a plain function that runs inline, got {options.get('timeout')!r}: "
            'it cannot be interrupted; make it async, or give engine="thread" or concurrency > 1 to run it in threads'
        )
    title = given.name or f"{kind.name}({name_of(fn)})"
    plan = _planned(kind, fn, given, title, on_loop_as)
    code = Code(
        title,
        fn,
        in_band=given.on_error == "return",
        deps=given.deps,
        memo=given.memo is not False,
        memo_of=None if isinstance(given.memo, bool) else given.memo,
        tolerance=plan.tolerance if given.on_error in {"skip", "collect"} else None,
    )
    return Operator(
        kind.name,
        Work(kind, fn, engine, plan, counted=given.concurrency is not None, key=given.key).open,
        item_by_item=True,
        code=code,
        ordered=True if kind.shows_order else plan.ordered,
        text=kind.text(name_of(fn), plan),
        runs_elsewhere=leaves_process(engine),
    )


def checked_settings(kind: Kind, fn: Callable[[Any], Any], options: AllOptions) -> Settings:
    """Check each option by its rule; numbers become plain ints and floats."""
    for option in options:
        if option not in AllOptions.__optional_keys__:
            known = ", ".join(sorted(AllOptions.__optional_keys__))
            raise OptionError(f"{kind.name} has no option {option!r}: there are {known}")
    validate.function(f"the function of {kind.name}", fn)
    given = Settings(**options)
    if not isinstance(given.memo, bool):
        if not callable(given.memo):
            raise OptionError(f"memo must be True, False or a plain function, got {shown(given.memo)}")
        validate.plain_function("memo", given.memo)
    if given.memo is not False and kind.for_effect:
        raise OptionError(
            f"memo must be False for {kind.name}, got {shown(given.memo)}: it calls its function for the effect"
        )
    if given.retry is not None:
        validate.instance("retry", given.retry, Retry, "a Retry")
    validate.one_of("on_error", given.on_error, ON_ERROR)
    given.concurrency = _checked_concurrency(kind, given.concurrency)
    if given.ordered is not None:
        validate.flag("ordered", given.ordered)
    given.buffer = validate.whole("buffer", given.buffer, least=0)
    if given.name is not None:
        validate.text("name", given.name)
    _check_one_for_one(kind, given, options)
    if given.timeout is not None:
        given.timeout = validate.seconds("timeout", given.timeout)
    return given


def _checked_concurrency(kind: Kind, concurrency: int | Adaptive | None) -> int | Adaptive | None:
    if concurrency is None or (kind.adapts and isinstance(concurrency, Adaptive)):
        return concurrency
    if isinstance(concurrency, Adaptive):
        raise OptionError(f"concurrency must be an int >= 1 for {kind.name}, got {shown(concurrency)}")
    return validate.whole("concurrency", concurrency, least=1)


def _check_one_for_one(kind: Kind, given: Settings, options: AllOptions) -> None:
    """Check the options of operators whose calls take an item and give a result."""
    for option, value in (("key", given.key), ("buffer_bytes", given.buffer_bytes)):
        if value is not None and not kind.one_for_one:
            raise OptionError(f"{option} must be None for {kind.name}, got {shown(value)}: a call is not for one item")
    if given.key is not None:
        validate.plain_function("key", given.key)
    if given.buffer_bytes is not None:
        given.buffer_bytes = validate.whole("buffer_bytes", given.buffer_bytes, least=1)
        validate.plain_function("size_of", given.size_of)
    elif "size_of" in options:
        raise OptionError("size_of must be given with buffer_bytes, got size_of alone: it gives the bytes of a result")


def _planned(
    kind: Kind, fn: Callable[[Any], Any], given: Settings, title: str, on_loop_as: FunctionKind | None
) -> Plan[Any, Any]:
    """Make the plan of the window; `on_loop_as` is the kind of the function if it runs on the loop."""
    called = kind.called(fn)
    fans_out = not kind.one_for_one and inspect.isasyncgenfunction(called)  # and runs nothing yet that could block
    seen = watched(called, title, name_of(fn)) if on_loop_as == "other" and not fans_out else called
    plan: Plan[Any, Any] = Plan(
        name=title,
        work=shaped(called if inspect.iscoroutinefunction(called) else on_loop(seen), kind.shape),
        inline_name=name_of(fn) if on_loop_as == "other" else None,
        size=kind.size,
        concurrency=given.places or 1,
        adaptive=given.adaptive,
        ordered=given.ordered,
        buffer=given.buffer,
        timeout=cast("float | None", given.timeout),
        retry=given.retry,
        limits=limits_of(given.limit),
        budget=None if given.buffer_bytes is None else ByteBudget(given.buffer_bytes, given.size_of),
        on_error=given.on_error,
        tolerance=tolerance_of(given.on_error, given.max_failures, given.max_failure_rate),
    )
    at_once = on_loop_as == "plain" or (on_loop_as == "other" and (given.places in {None, 1} or fans_out))
    if not (kind.without_tasks and at_once) or plan.needs_tasks or given.key is not None:
        return plan
    return plan.replaced(inline=_inline(kind, called if kind.one_for_one else seen))


def _inline(kind: Kind, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what the window calls, without a task, for `fn`."""
    if kind.shape is None and inspect.isasyncgenfunction(fn):
        return fn  # what it gives is never to be awaited
    wrap = sifted_inline if kind.form(_SIFTS) else shaped_inline
    return wrap(fn, kind.shape)


def tolerance_of(on_error: OnError, most: int | None, rate: float | None) -> Tolerance:
    """Check the options `max_failures` and `max_failure_rate`."""
    if (most is not None or rate is not None) and on_error not in {"skip", "collect"}:
        option = "max_failures" if most is not None else "max_failure_rate"
        raise OptionError(f'{option} goes with on_error="skip" or "collect", got on_error={on_error!r}')
    return Tolerance(
        None if most is None else validate.whole("max_failures", most, least=0),
        None if rate is None else validate.share("max_failure_rate", rate),
    )


def shaped(
    call: Callable[[Any], Awaitable[Any]], shape: Callable[[Any, Any], Any] | None
) -> Callable[[Any], Awaitable[Any]]:
    """Wrap `call`: return what `shape(item, result)` makes of its result."""
    if shape is None:
        return call

    async def call_and_shape(item: Any) -> Any:
        return shape(item, await call(item))

    return call_and_shape


def shaped_inline(fn: Callable[[Any], Any], shape: Callable[[Any, Any], Any] | None) -> Callable[[Any], Any]:
    """Wrap inline work like `shaped`; an awaitable that it returns becomes a `Later`."""
    output = given(shape)
    plain: Any = bool  # the type of the last result that was no awaitable: to ask each takes a fifth of a quick call

    def call(item: Any) -> Any:
        nonlocal plain
        result: Any = fn(item)
        kind: Any = type(result)  # pyright: ignore[reportUnknownVariableType] -- Any
        if kind is plain:
            return result if shape is None else shape(item, result)
        made: Any = output(item, result)
        if not isinstance(made, Later):
            plain = kind
        return made  # pyright: ignore[reportUnknownVariableType] -- Any, or a Later of it

    return call


def sifted_inline(predicate: Callable[[Any], Any], shape: Callable[[Any, Any], Any] | None) -> Callable[[Any], Any]:
    """Do what `shaped_inline` does, written out for the two answers that most predicates give."""
    output = given(shape)

    def call(item: Any) -> Any:
        keep = predicate(item)
        if keep is True:
            return item
        return DROPPED if keep is False else output(item, keep)

    return call


def given(shape: Callable[[Any, Any], Any] | None) -> Callable[[Any, Any], Any]:
    """Return what turns an item and the result of its call into an output; an awaitable becomes a `Later`."""

    def output(item: Any, result: Any) -> Any:
        if getattr(type(result), "__await__", None) is not None:  # pyright: ignore[reportUnknownArgumentType] -- see above
            later = Later(cast("Awaitable[Any]", result))
            return later if shape is None else later.shaped(shape, item)
        return result if shape is None else shape(item, result)

    return output


_SIFTS: Final = Forms(single=False, paired=False, sifting=True, listed=False, fanned=False)


def name_of(fn: object) -> str:
    """Name a function for the title of its stage; it trusts the `__name__` that a callable object gives itself."""
    inner = getattr(fn, "func", fn)
    return str(getattr(inner, "__name__", None) or type(inner).__name__)
