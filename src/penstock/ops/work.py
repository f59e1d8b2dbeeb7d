"""Operators that run a user's function on every item: `map`, `filter`, `tap`, `flat_map`."""

import inspect
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypedDict, Unpack, cast

from penstock.core import validate, words
from penstock.core.batches import OrderedBatches, UnorderedBatches
from penstock.core.blocking import watched
from penstock.core.closing import close
from penstock.core.errors import OptionError, ResultCountError
from penstock.core.fan_out import FanOut
from penstock.core.limited import Limit, limits_of
from penstock.core.order import OrderedWindow, UnorderedWindow
from penstock.core.plan import DROPPED, Later, Plan
from penstock.core.policy import ON_ERROR, OnError, Tolerance
from penstock.core.retry import Retry, Seconds
from penstock.core.scope import Scope
from penstock.core.source import length_of
from penstock.core.stage import Stage
from penstock.engines.local import ENGINES, Engine, Kind, kind_of, on_loop
from penstock.engines.threads import Threads
from penstock.ops.group import Batch
from penstock.ops.operator import Adapt, Code, Operator


class MoreOptions(TypedDict, total=False):
    """Options of every operator that runs a function, beside `concurrency` and `on_error`.

    Attributes:
        ordered: True hands results on in the order of the items, False as they finish. None, the default, keeps the
            order wherever it can be seen below (iteration, lists, `reduce`, `first`, `take`, `batch`, `map_batches`,
            `zip`, `enumerate`, `distinct` and the like, a sink that shows it), and hands on as finished where it cannot
            (`for_each`, `drain`, `count`, most durable runs). That is decided when the run is opened.
        buffer: finished results that may wait beside the running calls, an int >= 0; default 0.
        engine: where the function runs: "inline" (called on the loop) or "thread"; None, the default, means threads for
            a plain `def` function at concurrency > 1, else inline.
        name: the stage's name in errors and statistics; default the operator and the function.
        timeout: seconds that one attempt may take, > 0; default no limit.
        retry: when to try a failed call again; default never.
        limit: a `Limiter`, a `RateLimit`, or a sequence of them, which stages may share; default none. An attempt holds
            the limiters while it runs (in a thread: until the thread is back), and is charged to the rates when it
            starts. Waiting for a limit is no part of `timeout` and latency; a waiting retry keeps its place and holds
            no limiter. `flat_map`: as long as async outputs are made, but not while these wait for room.
        max_failures: failures that "skip" and "collect" put up with, an int >= 0; one more is raised. Default: any.
        max_failure_rate: the share of failures among the items settled so far, 0 to 1, that "skip" and "collect" put
            up with; a single failure is never too many. Default: any.
        memo: keep what the function gives for an item in the sink of a durable run (see `to`), by what the item is and
            what the code of the stage is, so that a call that was paid for is not paid for twice: also when the run was
            killed before the root was done, or the root has changed and this item of it has not. Items that are known
            are handed on without a call, a limit or an attempt. Not for `tap` and `for_each`, and not without a sink.
            Default False. See `docs/memo.md` for what items and results may be made of.
        deps: what else the results depend on (a model, a prompt, a version), made of JSON-like values, bytes, arrays or
            dataclasses of them: when it changes, the stage has changed (see `memo`, and `on_change` of `to`).
    """

    ordered: bool | None
    buffer: int
    engine: Engine | None
    name: str | None
    timeout: Seconds | None
    retry: Retry | None
    limit: Limit | None
    max_failures: int | None
    max_failure_rate: float | None
    memo: bool
    deps: object


class Options(MoreOptions, total=False):
    """Options of every operator that runs a function.

    Attributes:
        concurrency: calls that run at once, an int >= 1; None, the default, means 1.
    """

    concurrency: int | None


class AllOptions(Options, total=False):
    """Options of every operator that runs a function, and what it does with an item that failed."""

    on_error: OnError


@dataclass(frozen=True, slots=True)
class Work:
    """A user's function and its options, checked; opens a window per run."""

    operator: str
    fn: Callable[[Any], Any]
    shape: Callable[[Any, Any], Any] | None
    in_threads: bool
    plan: Plan[Any, Any]
    code: Code
    within: float | None = None

    @property
    def as_operator(self) -> Operator:
        """This as an operator of a stream."""
        ordered = True if self.operator == "map_batches" else self.plan.ordered  # what is in a list shows the order
        return Operator(
            self.operator, self.open, item_by_item=True, code=self.code, ordered=ordered, text=self._text(ordered)
        )

    def _text(self, ordered: bool | None) -> str:  # noqa: FBT001 -- it is what is said
        """How it was called, with the options that say most."""
        plan = self.plan
        if plan.name == "flatten":
            return "flatten()"
        given = [words.name_of(self.code.fn)]
        return words.call(
            self.operator,
            *(given if self.operator != "map_batches" else [*given, str(plan.size)]),
            name=None if plan.name.startswith(f"{self.operator}(") else plan.name,
            concurrency=plan.concurrency if plan.concurrency > 1 else None,
            ordered=ordered if ordered is not None and self.operator != "map_batches" else None,
            buffer=plan.buffer or None,
            timeout=plan.timeout,
            on_error=None if plan.on_error == "raise" else plan.on_error,
        )

    def open(self, scope: Scope, upstream: Stage[Any], adapt: Adapt | None, in_order: bool) -> Stage[Any]:  # noqa: FBT001 -- as all
        """The stage that does this under `upstream`; `in_order` says whether its order can be seen."""
        plan = self._plan(scope)
        if plan.ordered is None:
            plan = plan.replaced(ordered=in_order)
        if adapt is not None:
            plan = adapt(self.operator, plan)
        if plan.limits is not None:
            plan.limits.bind(scope.loop)
        if self.operator == "flat_map":
            return FanOut(scope, upstream, plan)
        if self.operator == "map_batches":
            batches = Batch(scope, upstream, plan.size, self.within)
            return (OrderedBatches if plan.ordered else UnorderedBatches)(scope, batches, plan)
        return OrderedWindow(scope, upstream, plan) if plan.ordered else UnorderedWindow(scope, upstream, plan)

    def _plan(self, scope: Scope) -> Plan[Any, Any]:
        """The plan with the function bound to where it runs."""
        if not self.in_threads:
            return self.plan
        threads = Threads(self.plan.concurrency, self.plan.name, scope.closed)
        scope.on_closed.append(threads.close)
        bind = threads.bind_reading if self.operator == "flat_map" else threads.bind
        call = bind(self.fn, self.plan.timeout)
        return self.plan.replaced(work=shaped(call, self.shape), timeout=None)


def work(
    operator: str,
    fn: Callable[[Any], Any],
    shape: Callable[[Any, Any], Any] | None = None,
    /,
    *,
    concurrency: int | None = None,
    ordered: bool | None = None,
    buffer: int = 0,
    engine: Engine | None = None,
    name: str | None = None,
    timeout: Seconds | None = None,
    retry: Retry | None = None,
    limit: Limit | None = None,
    max_failures: int | None = None,
    max_failure_rate: float | None = None,
    memo: bool = False,
    deps: object = None,
    on_error: OnError = "raise",
    **unknown: object,
) -> Work:
    """Check the options of an operator; `shape(item, result)` makes its output, None means the result itself.

    Raises:
        OptionError: an option breaks its rule.
    """
    for option in unknown:
        known = ", ".join(sorted(AllOptions.__optional_keys__))
        raise OptionError(f"{operator} has no option {option!r}: there are {known}")
    validate.function(f"the function of {operator}", fn)
    kind = kind_of(fn)
    places = 1 if concurrency is None else validate.whole("concurrency", concurrency, least=1)
    seconds = None if timeout is None else validate.seconds("timeout", timeout)
    if retry is not None:
        validate.instance("retry", retry, Retry, "a Retry")
    limits = limits_of(limit)
    waits = retry is not None or limits is not None
    title = f"{operator}({name_of(fn)})" if name is None else validate.text("name", name)
    in_threads = _runs_in_threads(engine, kind, places)
    inline = kind == "plain" and not in_threads
    if inline and seconds is not None:
        raise OptionError(
            f"timeout must be None for a plain function that runs inline, got {timeout!r}: "
            'it cannot be interrupted; make it async, or give engine="thread" or concurrency > 1 to run it in threads'
        )
    if validate.flag("memo", memo) and operator in {"tap", "for_each"}:
        raise OptionError(f"memo must be False for {operator}, got True: it calls its function for the effect")
    validate.one_of("on_error", on_error, ON_ERROR)
    tolerance = _tolerance(on_error, max_failures, max_failure_rate)
    puts_up = tolerance if on_error in {"skip", "collect"} else None
    code = Code(title, fn, in_band=on_error == "return", deps=deps, memo=memo, tolerance=puts_up)
    fn = fn if operator != "map_batches" else one_each(fn)
    seen = watched(fn, title, words.name_of(code.fn)) if kind == "other" and not in_threads else fn
    call = fn if inspect.iscoroutinefunction(fn) else on_loop(seen)
    return Work(
        operator=operator,
        fn=fn,
        shape=shape,
        in_threads=in_threads,
        code=code,
        plan=Plan(
            name=title,
            work=shaped(call, shape),
            inline=shaped_inline(fn, shape) if inline and not waits and operator != "flat_map" else None,
            concurrency=places,
            ordered=None if ordered is None else validate.flag("ordered", ordered),
            buffer=validate.whole("buffer", buffer, least=0),
            timeout=seconds,
            retry=retry,
            limits=limits,
            on_error=on_error,
            tolerance=tolerance,
        ),
    )


def _runs_in_threads(engine: Engine | None, kind: Kind, places: int) -> bool:
    if validate.one_of("engine", engine, ENGINES) is None:
        return kind == "plain" and places > 1
    if engine == "thread" and kind == "async":
        raise OptionError("engine must be None or 'inline' for an async function, got 'thread': it runs on the loop")
    return engine == "thread"


def batch_work(fn: Callable[[Any], Any], size: int, within: Seconds | None, **options: Unpack[AllOptions]) -> Work:
    """Check the options of `map_batches`.

    Raises:
        OptionError: an option breaks its rule.
    """
    made = work("map_batches", fn, None, **options)
    return replace(
        made,
        plan=made.plan.replaced(size=validate.whole("size", size, least=1), inline=None),
        within=None if within is None else validate.seconds("within", within),
    )


def one_each(fn: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    """`fn`, given a list of its own, and what it gives checked to be one result per item."""

    def call(items: list[Any]) -> Any:
        results = fn(items.copy())
        if isinstance(results, Awaitable):
            return _awaited(items, cast("Awaitable[Any]", results))
        return _checked(items, results)

    async def _awaited(items: list[Any], results: Awaitable[Any]) -> list[Any]:
        return _checked(items, await results)

    return call


def _checked(items: list[Any], results: Any) -> list[Any]:
    if not isinstance(results, Iterable) or isinstance(results, str | bytes | Mapping | AbstractSet):
        raise OptionError(f"the function of map_batches must return an ordered iterable of results, got {results!r}")
    wanted = len(items)
    outputs = list(islice(cast("Iterable[Any]", results), wanted + 1))
    if len(outputs) != wanted:
        length = length_of(cast("object", results))
        given = length if length is not None else "more" if len(outputs) > wanted else len(outputs)
        raise ResultCountError(f"the function of map_batches must return one result per item, got {given} for {wanted}")
    return outputs


def _tolerance(on_error: OnError, most: int | None, rate: float | None) -> Tolerance:
    if (most is not None or rate is not None) and on_error not in {"skip", "collect"}:
        option = "max_failures" if most is not None else "max_failure_rate"
        raise OptionError(f'{option} goes with on_error="skip" or "collect", got on_error={on_error!r}')
    return Tolerance(
        None if most is None else validate.whole("max_failures", most, least=0),
        None if rate is None else validate.share("max_failure_rate", rate),
    )


def kept(item: Any, keep: Any) -> Any:
    """The output of `filter`."""
    return item if keep else DROPPED


def unchanged(item: Any, _result: Any) -> Any:
    """The output of `tap`."""
    return item


def shaped(
    call: Callable[[Any], Awaitable[Any]], shape: Callable[[Any, Any], Any] | None
) -> Callable[[Any], Awaitable[Any]]:
    """`call`, and what `shape(item, result)` makes of its result."""
    if shape is None:
        return call

    async def call_and_shape(item: Any) -> Any:
        return shape(item, await call(item))

    return call_and_shape


def shaped_inline(fn: Callable[[Any], Any], shape: Callable[[Any, Any], Any] | None) -> Callable[[Any], Any]:
    """`shaped` for inline work: an awaitable that comes back is a `Later`."""

    def call(item: Any) -> Any:
        result: Any = fn(item)
        if isinstance(result, Awaitable):
            return Later(cast("Awaitable[Any]", result) if shape is None else _Shaped(result, shape, item))
        return result if shape is None else shape(item, result)

    return call


@dataclass(frozen=True, slots=True)
class _Shaped(Awaitable[Any]):
    """An awaitable result that is still to be shaped."""

    result: Any
    shape: Callable[[Any, Any], Any]
    item: Any

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.shape(self.item, (yield from self.result.__await__()))

    def close(self) -> None:
        """Close a coroutine that nobody will await."""
        close(self.result)


def name_of(fn: object) -> str:
    """What a function is called."""
    inner = getattr(fn, "func", fn)
    return str(getattr(inner, "__name__", None) or type(inner).__name__)
