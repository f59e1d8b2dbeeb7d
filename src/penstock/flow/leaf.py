"""Steps that are called by an engine, and what their kinds have in common.

To add a kind of leaf:

1. Subclass `Leaf`, with a `kind` of its own, in a file of its own, which has not the name of what is
   exported (`commands.py` for `command`: the module would stand where the function is to be). Its constructor calls
   `super().__init__(name, options)`, with `options` made by `leaf_options`, which checks those that all leaves have and
   refuses unknown ones. Further attributes are set by `self._set(name=value)`: steps are immutable.
2. Write `call(value, ctx)`: one attempt. What it returns is the output, what it raises is the failure. It is cancelled
   when its time is over, its run is cancelled or a sibling fails, and must then stop what it has begun before it lets
   the `CancelledError` pass. Timeout, tries, limits, memo and recording are the engine's.
3. Report each request to a model by `ctx.spent(Usage(requests=1, ...))` as soon as it is known, failed ones, too.
4. Write `check(value)` if something can be missing before the first attempt (a program, a secret): it raises
   `CannotBegin`, and nothing of the step is begun. That is `TASK_CREATION_FAILED`.
5. Write `code()` if more than the function and `deps` says what the output depends on: the options of the kind itself.
6. Set `own_grace` if stopping takes longer than a moment: the seconds that the engine waits for it beside its own.

An `EnvSecret` must not be a dataclass: what the codec does not know it refuses, so that no secret is ever stored.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, override

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.plan import Plan
from penstock.core.retry import Exhausted, Retry, Seconds, retrying, within
from penstock.core.stage_limits import Hold, LimitOption, Limits, limited, limits_of
from penstock.engines.choosing import EngineOption, chosen
from penstock.flow.added import LeafCall, StepCall, StepCalls, located, note_seconds
from penstock.flow.context import StepContext, in_stream
from penstock.flow.steps import Step, refuse_unknown
from penstock.flow.templates import Filled
from penstock.ops.adding import I_contra, O_co
from penstock.ops.operator import Code
from penstock.tasks.tokens import CancelToken

type OnInterrupted = Literal["again", "ask"]
"""What a resume does with an attempt that neither returned nor raised: it calls again, or waits to be told."""


class StepOptions(TypedDict, total=False):
    """Options of steps that call something.

    Attributes:
        retry: when to try a failed call again; None, the default, is one attempt. A resume has its attempts anew.
        timeout: seconds that one attempt may take, > 0; it is cancelled then. None, the default: no limit.
        limit: a `Limiter`, a `RateLimit`, a `Breaker`, or a sequence of them, as for `Stream.map`.
        engine: where a plain `def` function runs; None, the default, is "thread". Not for commands and prompts.
        memo: keep outputs for all runs of the workspace, by value and code, as `docs/memo.md` says. Default False.
        deps: what else outputs depend on: when it changes, the code of the step has changed.
        on_interrupted: "again", the default, calls a step anew whose attempt neither returned nor raised; "ask" waits
            until `approve` or `reject` says what became of it.
    """

    retry: Retry | None
    timeout: Seconds | None
    limit: LimitOption | None
    engine: EngineOption | None
    memo: bool
    deps: object
    on_interrupted: OnInterrupted


class MapOptions(StepOptions, total=False):
    """Options of `Pipeline.map`.

    Attributes:
        concurrency: items begun at once, an int >= 1; None, the default, is that of the engine.
    """

    concurrency: int | None


@dataclass(frozen=True, slots=True)
class LeafOptions:
    """The options that all leaves have, checked, with their defaults; see `StepOptions`."""

    retry: Retry | None = None
    timeout: float | None = None
    limit: LimitOption | None = None
    engine: EngineOption | None = None
    memo: bool = False
    deps: object = None
    on_interrupted: OnInterrupted = "again"


def leaf_options(
    whose: str, options: Mapping[str, Any], *, more: Collection[str] = (), without: Collection[str] = ()
) -> LeafOptions:
    """Return the options that all leaves have, of those that were given to a step; `whose` names its kind and it.

    `more` names those that this kind has beside them, for itself to check; `without` those that it has not.

    Raises:
        OptionError: an option is unknown, or breaks its rule.
    """
    refuse_unknown(whose, options, {*StepOptions.__optional_keys__, *more} - {*without})
    given = LeafOptions(**{name: value for name, value in options.items() if name in LeafOptions.__slots__})
    if given.retry is not None:
        validate.instance("retry", given.retry, Retry, "a Retry")
    limits_of(given.limit)
    chosen(given.engine, "other", None)
    return LeafOptions(
        given.retry,
        None if given.timeout is None else validate.seconds("timeout", given.timeout),
        given.limit,
        given.engine,
        validate.flag("memo", given.memo),
        given.deps,
        validate.one_of("on_interrupted", given.on_interrupted, ("again", "ask")),
    )


class Leaf(Step[I_contra, O_co]):
    """A step that is called; see the module for how to add a kind of it."""

    __slots__ = ("options",)
    options: LeafOptions
    own_grace: float = 0.0
    """Seconds that stopping a call may take, beside the `grace` of the engine."""

    def __init__(self, name: str, options: LeafOptions) -> None:
        super().__init__(name)
        self._set(options=options)

    async def prepare(self) -> None:
        """Do what takes long before the first check, off the loop; what it finds missing is for `check` to tell."""

    def check(self, value: Any) -> None:
        """Raise `CannotBegin` if something that the first attempt needs is not there."""

    async def call(self, value: Any, ctx: StepContext) -> Any:
        """Make one attempt on `value`; what it returns is the output."""
        raise NotImplementedError

    def code(self) -> tuple[Callable[..., Any], object]:
        """Return the function, and JSON-like values that the output depends on beside `deps`."""
        raise NotImplementedError

    def made_when_called(self) -> Iterable[object]:
        """Return what may have references to be filled in."""
        return ()

    def annotations(self) -> Mapping[str, Any]:
        """Return the types of what it takes ("value") and gives ("return"), as far as they are declared."""
        return {}

    @override
    def own_code(self) -> tuple[Callable[..., Any], object, bool]:
        fn, more = self.code()
        deps = self.options.deps
        return fn, deps if more is None else (deps, more), self.options.memo

    # In a stream

    @override
    def refuse_stream(self, path: str) -> None:
        if self.options.on_interrupted == "ask":
            raise OptionError(
                f"on_interrupted of step {path!r} must be 'again' in a stream, got 'ask': an item cannot wait for "
                "somebody"
            )
        for made in self.made_when_called():
            for reference in made.references() if isinstance(made, Filled) else ():
                if reference.root == "outputs":
                    raise OptionError(
                        f"step {path!r} cannot be part of a stream: outputs of steps are not kept there, and it has "
                        f"{reference.source}"
                    )

    @override
    def stage_code(self, plan: Plan[Any, Any]) -> Code:
        fn, deps, memo = self.own_code()
        tolerance = plan.tolerance if plan.on_error in {"skip", "collect"} else None
        return Code(plan.name, fn, plan.on_error == "return", deps, memo, tolerance)

    @override
    def bind(self, calls: StepCalls) -> StepCall:
        return self.within_options(calls, self.attempt_in(calls), limits_of(self.options.limit))

    @override
    def bind_inner(self, calls: StepCalls) -> StepCall:
        return located(self.bind(calls))

    def attempt_in(self, calls: StepCalls) -> Callable[[LeafCall], Awaitable[Any]]:
        """Return what makes one attempt in a stream, within its timeout."""
        timeout = self.options.timeout

        async def attempt(call: LeafCall) -> Any:
            if call.attempts == 1:
                await self._begin(call.value)
            ctx = context_in_stream(calls, call)
            result = self.call(call.value, ctx)
            return await (result if timeout is None else within(timeout, result))

        return attempt

    async def _begin(self, value: Any) -> None:
        """Look whether something is missing: then no further try is worth it."""
        await self.prepare()
        try:
            self.check(value)
        except Exception as error:
            raise Exhausted(error, 1) from error

    def within_options(
        self, calls: StepCalls, attempt: Callable[[LeafCall], Awaitable[Any]], limits: Limits | None
    ) -> StepCall:
        """Put limits and tries round the attempts of a call."""
        clock, retry = calls.scope.clock, self.options.retry

        async def once(call: LeafCall) -> Any:
            call.attempts += 1
            note_seconds(call, clock)
            return await attempt(call)

        work: Callable[[LeafCall], Awaitable[Any]] = once
        if limits is not None:
            limits.bind(calls.scope.loop)
            calls.keyed |= limits.keyed
            work = limited(
                once,
                lambda call: Hold(limits, calls.window.name, calls.meter, call.value, calls.window.waiting_room),
            )
        if retry is not None:
            work = retrying(
                work, retry, calls.note_retry, calls.may_retry, stage=self.name, seen=lambda call: call.value
            )

        async def call(value: Any, path: str) -> Any:
            token = CancelToken()
            tokens = calls.window.tokens
            tokens.add(token)
            try:
                return await work(LeafCall(value, path, token, clock()))
            finally:
                tokens.discard(token)

        return call


def context_in_stream(calls: StepCalls, call: LeafCall) -> StepContext:
    """Return what a step knows of a call in a stream."""
    return StepContext(
        step=call.path,
        attempt=call.attempts,
        state=in_stream(calls.scope.snapshots),
        cancel=call.token,
        log=calls.log(call.path),
        recording=None,
    )
