"""A prompt over every row: one answer of a model for each, into a table or a file, or a list."""

import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass, field, fields
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final, Literal, Required, TypedDict, Unpack, cast, overload, override

from penstock.core import validate
from penstock.core.adaptive import BUSY, Adaptive
from penstock.core.breaker import Breaker
from penstock.core.errors import AttemptTimeout, FatalError, OptionError
from penstock.core.plan import OnError
from penstock.core.rate_limit import RateLimit
from penstock.core.retry import Retry, RetryBudget, Seconds
from penstock.core.stats import Latency
from penstock.core.text import shown
from penstock.durable.handle import DurableRun
from penstock.durable.report import RunReport
from penstock.durable.status import runs
from penstock.flow.answer_forms import AnswerError, Schema
from penstock.flow.anthropic_messages import AnthropicMessages
from penstock.flow.asking import ASKS, Asking, ModelRequest
from penstock.flow.models import DeclinedError, Model, ModelError, TruncatedError, asked_wait, transient
from penstock.flow.openai_chat import OpenAIChat
from penstock.flow.prompts import MAX_TOKENS, asking_of, check, prepare
from penstock.flow.row_template import RowTemplate, template
from penstock.flow.secrets import secret
from penstock.flow.service_limits import ServiceLimits
from penstock.flow.services import Service
from penstock.functions import stream
from penstock.sources.keyed import keyed
from penstock.streams import Stream
from penstock.workflows.rates import number_and_time
from penstock.workflows.rows.row_function import Arguments, made_row
from penstock.workflows.rows.row_job import ON_ERROR, RowJob
from penstock.workflows.rows.row_sinks import open_out
from penstock.workflows.rows.row_sources import column_of, digest_of, open_rows
from penstock.workflows.rows.spending import Estimate, Price, Spending

ATTEMPTS: Final = 6
"""How often a request is made in all that may do better, by default."""

MOST: Final = 256
"""Requests at once, at most, by default."""

REFUSALS: Final = 10
"""Rows that the service may refuse, before the first answer, until the run ends: it would refuse all.

Also rows of which no prompt can be made, before the first of which one can.
"""

SILENT: Final = 5
"""Requests that may break, or find no service, before the first answer, until the run ends."""

_BUSY_WAIT: Final = 2.0
"""Seconds for which all stay away from a service that has refused a request by 429 and does not say how long."""

_ANY_REQUESTS: Final = 1e9
_ANY_TOKENS: Final = 1e13
"""A minute, where nobody has said how many there may be, until the service says it: so many that no start waits."""

_UNITS: Final = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}

_CHARGED: Final[ContextVar[float]] = ContextVar("penstock_charged", default=0.0)
"""Tokens that were charged for the attempt, and that no request has used yet; nan: a further request of it."""

type EndedBy = Literal["max_cost", "max_tokens", "deadline"]


class AskOptions(TypedDict, total=False):
    """Options of `ask`: see `AskJob`."""

    model: Required[Model | str]
    schema: Schema | None
    system: str | None
    base_url: str | None
    key: str | None
    query: str | None
    glob: str | None
    table: str | None
    keep: bool
    run_name: str | None
    concurrency: int | Adaptive | None
    retry: int
    asks: int
    timeout: float | None
    rate: str | None
    tokens: str | None
    on_error: Literal["collect", "raise", "skip"] | None
    limit: int | None
    memo: bool
    max_answer: int
    price: str | tuple[float, ...] | None
    max_cost: float | None
    max_tokens: int | None
    deadline: Seconds | str | None


@dataclass(frozen=True, slots=True)
class AskReport(RunReport):
    """What one opening of a run of prompts has done: a `RunReport`, and what it has cost.

    Attributes:
        spent: what the requests of this opening have used.
        spent_before: what those of the openings before have used, also of those that were killed.
        cost: what `spent` costs; None without a price.
        cost_before: what `spent_before` costs; None without a price.
        ended_by: the budget that ended it: "max_cost", "max_tokens", "deadline"; None: none.
        left: rows that are left where a budget has ended it, if that can be known.
        limit_wait_s: seconds in which a request or more waited for a limit.
        latency: of answers, waits for limits not included; None before the first.
    """

    spent: Spending = field(default_factory=Spending)
    spent_before: Spending = field(default_factory=Spending)
    cost: float | None = None
    cost_before: float | None = None
    ended_by: EndedBy | None = None
    left: int | None = None
    limit_wait_s: float = 0.0
    latency: Latency | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """What `penstock prompt --dry-run` tells.

    Attributes:
        prompts: the first prompts, as they would be sent.
        rows: rows that there are.
        unfit: of these, rows of which no prompt can be made.
        why: why not, of the first one.
        input_tokens: tokens of all prompts, estimated.
        most_output: tokens of all answers, at most.
        least_cost, most_cost: what that costs; None without a price.
    """

    prompts: list[str]
    rows: int
    unfit: int
    why: str
    input_tokens: int
    most_output: int
    least_cost: float | None
    most_cost: float | None


@overload
async def ask(
    rows: str | os.PathLike[str] | Iterable[Any],
    prompt: str | Callable[..., str],
    /,
    *,
    to: None = None,
    **options: Unpack[AskOptions],
) -> list[Any]: ...
@overload
async def ask(
    rows: str | os.PathLike[str] | Iterable[Any],
    prompt: str | Callable[..., str],
    /,
    *,
    to: str,
    **options: Unpack[AskOptions],
) -> AskReport: ...
async def ask(
    rows: str | os.PathLike[str] | Iterable[Any],
    prompt: str | Callable[..., str],
    /,
    *,
    to: str | None = None,
    **options: Unpack[AskOptions],
) -> list[Any] | AskReport:
    """Ask a model for every row, as `penstock prompt` does: into `to`, or return a list of the answers.

    With `to` it is a durable run: each answer is stored exactly once, and a run that was killed or stopped goes on
    where it was. The arguments are those of `AskJob`.

    Raises:
        OptionError: an argument breaks its rule.
        RowFailedError: there was no answer for a row, and `on_error` is "raise".
        AccountError: the service refuses the key, or wants to be paid.
        PenstockError: what else ended it: what was finished is stored.
    """
    job = AskJob(rows, prompt, to=to, **options)
    return await (job.answers() if to is None else job.run())


@dataclass
class AskJob(RowJob):
    """The same, to be watched with `report()` while `run()` runs, and ended early with `stop()`.

    By default it finds out how many requests the service takes at once. A request that may do better (429, 5xx, no
    connection, a cut) is made again after what the service asks for; after a 429 or 529 nobody starts anything until
    that is over. Requests and tokens a minute follow what headers of the service say.

    Attributes:
        over: the rows: as for `map_rows`, or any iterable of rows.
        prompt: a text with columns, as "Classify: {text}"; or a plain function of the row, or of its columns by name.
        to: as for `map_rows`. None: the answers are returned as a list, in the order of the rows; nothing is durable.
        model: a `Model`; or "openai:NAME" or "anthropic:NAME", with the key in OPENAI_API_KEY or ANTHROPIC_API_KEY.
        schema: what answers have to be, as for `penstock.flow.prompt`. Default: any text, in the column `answer`.
        system: what the model is told before.
        base_url: the address of the service, up to /v1, where `model` is a text.
        key, query, glob, table, keep, run_name, limit, memo: as for `map_rows`.
        concurrency: requests at once, >= 1; default `Adaptive()`.
        retry: attempts in all, >= 1; default 6.
        asks: how often a prompt is asked in all until an answer fits the schema, >= 1; default 3.
        timeout: seconds of an attempt; default none, but one of which nothing comes for 60 s fails.
        rate: requests that begin in a time, as "500/min".
        tokens: tokens of requests and answers in a time, as "90000/min": estimated before, put right after.
        on_error: "collect" sets a row aside that has no answer; "raise" ends the run; "skip" drops it. Default
            "collect", without `to` "raise".
        max_answer: tokens of an answer, >= 1; default 4096. One that is longer fails.
        price: what a million tokens cost: "IN/OUT" or "IN/OUT/CACHED", or such numbers.
        max_cost: the run ends in order when it has cost so much, over all its openings; needs a price.
        max_tokens: the same, for tokens of requests and answers together, failed ones included.
        deadline: the run ends in order after so long: seconds, a timedelta, or a text as "90s", "30min" or "2h".
    """

    over: str | os.PathLike[str] | Iterable[Any]
    prompt: str | Callable[..., str]
    _: KW_ONLY
    model: Model | str
    to: str | None = None
    schema: Schema | None = None
    system: str | None = None
    base_url: str | None = None
    key: str | None = None
    query: str | None = None
    glob: str | None = None
    table: str | None = None
    keep: bool = False
    run_name: str | None = None
    concurrency: int | Adaptive | None = None
    retry: int = ATTEMPTS
    asks: int = ASKS
    timeout: float | None = None
    rate: str | None = None
    tokens: str | None = None
    on_error: Literal["collect", "raise", "skip"] | None = None
    limit: int | None = None
    memo: bool = False
    max_answer: int = MAX_TOKENS
    price: str | tuple[float, ...] | None = None
    max_cost: float | None = None
    max_tokens: int | None = None
    deadline: Seconds | str | None = None

    def __post_init__(self) -> None:
        """Check the options; raise `OptionError`."""
        self.name = "prompt"
        self._text = self._prompt_function()
        self._requests, self._tokens = self._rates()
        validate.whole("max_answer", self.max_answer, least=1)
        options = {
            "model": self._own_model(),
            "system": self.system,
            "max_tokens": self.max_answer,
            "asks": self.asks,
        }
        self._asking: Asking = asking_of(None, self.schema, options)
        self._estimate = Estimate(self.max_answer)
        self._price = None if self.price is None else Price.of(self.price)
        self._seconds = _duration(self.deadline)
        self._check_budgets()
        self.spent: Spending = Spending()
        self.spent_before: Spending = Spending()
        self._total = Spending()
        self.ended_by: EndedBy | None = None
        self._asked = self._refused = self._silent = self._unfit = 0
        self._answered = self._has_prompt = False
        self._is_closed = False
        self._left: int | None = None
        self.on_error = self.on_error or ("raise" if self.to is None else "collect")
        validate.one_of("on_error", self.on_error, ON_ERROR)
        self.rows: Stream[Any] = self._open_rows()
        self.stream: Stream[Any] = self._stream()
        self.sink: Any = None if self.to is None else open_out(self.to, table=self.table)

    # What is asked, of whom

    def _prompt_function(self) -> Callable[[Any], str]:
        if isinstance(self.prompt, str):
            made = template(self.prompt)
            if not made.columns:
                raise OptionError(f"prompt must name a column, as 'Classify: {{text}}', got {self.prompt!r}")
            return made
        validate.plain_function("prompt", self.prompt)
        fn, arguments = self.prompt, Arguments(self.prompt)

        def text(row: Any) -> str:
            return cast("str", validate.instance("what prompt gives", arguments.call(fn, row), str, "a str"))

        return text

    def _wants_text(self) -> bool:
        if isinstance(self._text, RowTemplate):
            return "text" in self._text.columns
        return Arguments(cast("Callable[..., str]", self.prompt)).wants("text")

    def _own_model(self) -> Model:
        limits: ServiceLimits = {"requests": self._requests, "tokens": self._tokens}
        if not isinstance(self.model, str):
            if self.base_url is not None:
                raise OptionError(f"base_url is for a model that is named, got {self.base_url!r} with {self.model!r}")
            return self.model.following(limits) if isinstance(self.model, Service) else self.model
        service, colon, name = self.model.partition(":")
        kinds: dict[str, tuple[Any, str]] = {
            "openai": (OpenAIChat, "OPENAI_API_KEY"),
            "anthropic": (AnthropicMessages, "ANTHROPIC_API_KEY"),
        }
        if service not in kinds or not colon or not name:
            raise OptionError(f"model must be openai:NAME or anthropic:NAME, got {self.model!r}")
        kind, variable = kinds[service]
        key = None if self.base_url is not None and variable not in os.environ else secret(variable)
        made: Model = kind(name, key=key, base_url=self.base_url, limits=limits)
        return made

    def _rates(self) -> tuple[RateLimit, RateLimit]:
        """Return the limits of requests and of tokens, which follow what the service says."""
        requests = (_ANY_REQUESTS, 60.0) if self.rate is None else number_and_time(self.rate, "rate", "requests")
        tokens = (_ANY_TOKENS, 60.0) if self.tokens is None else number_and_time(self.tokens, "tokens", "tokens")
        several = 4 * (self.max_answer + 1)  # requests that may start in one pass of a busy loop, whatever the limit
        return (
            RateLimit(*requests, burst=_burst(requests, 4), name="requests"),
            RateLimit(*tokens, burst=_burst(tokens, several), name="tokens", cost=self._charge),
        )

    def _check_budgets(self) -> None:
        if self.max_cost is not None:
            validate.positive("max_cost", self.max_cost)
            if self._price is None:
                raise OptionError(f"max_cost needs a price (IN/OUT per million tokens), got {self.max_cost!r} without")
        if self.max_tokens is not None:
            validate.whole("max_tokens", self.max_tokens, least=1)
        if self.to is not None:
            return
        for option in ("max_cost", "max_tokens", "deadline", "limit", "table", "run_name"):
            if getattr(self, option) is not None:
                raise OptionError(
                    f"{option} is for a run into `to`, which goes on later, got {getattr(self, option)!r}"
                )
        if self.memo:
            raise OptionError("memo is for a run into `to`, which keeps the answers, got True")

    # The stream

    def _open_rows(self) -> Stream[Any]:
        if isinstance(self.over, str | os.PathLike):
            return open_rows(
                os.fspath(self.over),
                key=self.key,
                query=self.query,
                glob=self.glob,
                texts=self._wants_text(),
                on_error=cast("OnError", self.on_error),
            )
        for option in ("query", "glob"):
            if (given := getattr(self, option)) is not None:
                raise OptionError(f"{option} is for a place of rows, got {given!r} for {shown(self.over)}")
        if self.to is None:
            return stream(self.over)
        column = self.key

        def key(pair: tuple[int, Any]) -> str | int:
            return pair[0] if column is None else column_of(pair[1], column, f"rows, row {pair[0]}")

        numbered: Stream[tuple[int, Any]] = keyed(
            _Numbered(self.over), key=key, version=lambda pair: digest_of(pair[1]), name=f"rows by {column or 'place'}"
        )
        return numbered.map(_row_of, name="row")

    def _stream(self) -> Stream[Any]:
        limits = [self._requests, self._tokens]
        down = Breaker(on=_is_down, pause=10, most=120, name="service")
        retry = Retry(
            on=_may_do_better,
            attempts=self.retry,
            initial=0.5,
            max=60,
            wait=_wait,
            pauses=limits,
            budget=RetryBudget(1.0, least=MOST),
        )
        options: dict[str, Any] = {
            "name": "ask",
            "on_error": self.on_error,
            "memo": self.memo,
            "deps": self._depends_on(),
            "concurrency": Adaptive(most=MOST) if self.concurrency is None else self.concurrency,
            "limit": [*limits, down],
            "retry": retry,
            "timeout": self.timeout,
        }
        answer: Callable[[Any], Awaitable[Any]] = _AnswerOfRow(self)
        return cast("Stream[Any]", self.rows.map(answer, **options))

    def _depends_on(self) -> list[Any]:
        asking = self._asking
        return [
            self._text.text if isinstance(self._text, RowTemplate) else None,
            asking.system,
            asking.max_tokens,
            asking.model.code() if isinstance(asking.model, Service) else type(asking.model).__qualname__,
            None if asking.form is None else asking.form.instruction,
        ]

    @override
    def _options(self) -> dict[str, Any]:
        return {"limit": self.limit, "find_killers": False}  # a request kills no process, and is paid

    @override
    def _is_of_a_row(self, error: Exception) -> bool:
        if isinstance(error, ModelError | AnswerError | AttemptTimeout | OptionError):
            return self.on_error == "raise" and not isinstance(error, FatalError)
        return super()._is_of_a_row(error)

    # One row

    async def answer(self, row: Any) -> Any:
        """Return the answer for a row."""
        prompt = self._prompt_of(row)
        try:
            answer: Any = await self._asking.answer(prompt, self)
        except ModelError as error:
            self._refuse_all(error)
            raise
        self._answered = True
        return answer

    def _prompt_of(self, row: Any) -> str:
        """Return the prompt of a row; end the run where a column that it names is in no row."""
        try:
            prompt = self._text(row)
        except OptionError as error:
            self._unfit += 1
            if self._unfit == REFUSALS and not self._has_prompt:
                raise FatalError(f"no prompt can be made of the first {REFUSALS} rows: {error}") from error
            raise
        self._has_prompt = True
        return prompt

    def _refuse_all(self, error: ModelError) -> None:
        """End the run where no row will do better: no such model, or nothing but refusals or silence has come.

        What is no answer of a model, as the page of a proxy, is a refusal; one that ends too early, or says no, is one.
        """
        if isinstance(error, TruncatedError | DeclinedError):
            self._answered = True
        if self._answered or isinstance(error, FatalError):
            return
        if _is_down(error):
            self._silent += 1
            if self._silent == SILENT:
                raise FatalError(f"the service does not answer: {error}") from error
        if error.transient or (error.status is None and not isinstance(self._asking.model, Service)):
            return
        self._refused += 1
        if error.status == HTTPStatus.NOT_FOUND or self._refused == REFUSALS:
            raise FatalError(f"the service refuses all requests: {error}") from error

    def _charge(self, row: Any) -> float:
        """Return the tokens that an attempt on a row is charged before it begins."""
        try:
            prompt = self._asking.first(self._text(row))
        except Exception:  # noqa: BLE001 -- of the row or of the user's function: the attempt raises it
            return 0.0
        charged = self._expected(prompt)
        _CHARGED.set(charged)
        return charged

    def _expected(self, prompt: str) -> float:
        return float(math.ceil(self._estimate.input(f"{self.system or ''}{prompt}") + self._estimate.output))

    async def begin(self, prompt: str) -> None:
        """Let a request begin: never, once the run is to end; one that asks again waits for the limits first."""
        if math.isnan(_CHARGED.get()):
            charged = self._expected(prompt)
            await self._requests.acquire()
            await self._tokens.acquire(charged)
            _CHARGED.set(charged)
        if self._is_closed:
            await asyncio.get_running_loop().create_future()  # until it is cancelled: its row is not done
        self._asked += 1

    def ended(self, request: ModelRequest) -> None:
        """Count a request that has ended, and look whether the run is to end."""
        self._asked -= 1
        used = self._estimate.spending(request)
        self._estimate.learn(request)
        charged = _CHARGED.get()
        _CHARGED.set(math.nan)
        if not used.unknown:
            self._tokens.settle(charged, used.tokens)
        self.spent += used
        self._total += used
        if self._run is not None:
            self._run.note.write(self._total.as_note())
            self._look_at_budgets()
            if self._is_closed and not self._asked:
                self._abort_soon()

    # The end

    @override
    def _begin(self, run: DurableRun) -> None:
        self.spent_before = self._total = Spending.of_note(run.note.read())
        self._look_at_budgets()

    async def _prepare(self) -> None:
        """Raise `CannotBegin` if there is no key, or no package."""
        await prepare(self._asking.model)
        check(self._asking.model)

    @override
    async def run(self) -> AskReport:
        await self._prepare()
        timer = None
        if self._seconds is not None:
            timer = asyncio.get_running_loop().call_later(self._seconds, self._end, "deadline")
        try:
            await super().run()
        finally:
            if timer is not None:
                timer.cancel()
        if self.ended_by is not None:
            self._left = await self._rows_left()
        return self.report()

    async def answers(self) -> list[Any]:
        """Return the answers, in the order of the rows; those that `on_error` sets aside or drops are not there."""
        await self._prepare()
        return await self.stream.to_list()

    @override
    def stop(self) -> None:
        """Let requests that are made end, and begin no others."""
        super().stop()
        self._close()

    def _look_at_budgets(self) -> None:
        spent = self._total
        if self.max_tokens is not None and spent.tokens >= self.max_tokens:
            self._end("max_tokens")
        if self.max_cost is not None and self._price is not None and self._price.of_spending(spent) >= self.max_cost:
            self._end("max_cost")

    def _end(self, by: EndedBy) -> None:
        if self.ended_by is None and not self._stopped:
            self.ended_by = by
            self.stop()

    def _close(self) -> None:
        self._is_closed = True
        if not self._asked:
            self._abort_soon()

    def _abort_soon(self) -> None:
        """Cancel calls that wait, once the last request has given its answer: their rows are not done."""
        if self._run is not None:
            asyncio.get_running_loop().call_soon(self._run.abort)

    async def _rows_left(self) -> int | None:
        """Count the rows that are left, where they can be read again."""
        if self.over == "-" or not isinstance(self.over, str | os.PathLike):
            return None
        total = await self.rows.count()
        name = self.run_name or self.name
        settled = sum(each.done + each.dead for each in runs(self.sink) if each.name == name)
        return max(0, total - settled)

    @override
    def report(self) -> AskReport:
        report = super().report()
        stage = report.stats.stages[-1] if report.stats.stages else None
        return AskReport(
            **{each.name: getattr(report, each.name) for each in fields(RunReport)},
            spent=self.spent,
            spent_before=self.spent_before,
            cost=self._cost(self.spent),
            cost_before=self._cost(self.spent_before),
            ended_by=self.ended_by,
            left=self._left,
            limit_wait_s=0.0 if stage is None else stage.limit_wait_s,
            latency=None if stage is None else stage.latency,
        )

    def _cost(self, spent: Spending) -> float | None:
        return None if self._price is None else self._price.of_spending(spent)

    async def preview(self, number: int) -> Preview:
        """Return the first prompts and an estimate of all; ask nothing."""
        prompts: list[str] = []
        rows = unfit = 0
        why = ""
        tokens = 0.0
        async with self.rows.open() as found:
            async for row in found:
                rows += 1
                try:
                    prompt = self._asking.first(self._text(row))
                except Exception as error:  # noqa: BLE001 -- of the row or of the user's function
                    unfit, why = unfit + 1, why or str(error)
                    continue
                tokens += self._estimate.input(f"{self.system or ''}{prompt}")
                if len(prompts) < number:
                    prompts.append(prompt)
                if self.limit is not None and rows - unfit >= self.limit:
                    break
        most = (rows - unfit) * self.max_answer
        price = self._price
        return Preview(
            prompts,
            rows,
            unfit,
            why,
            round(tokens),
            most,
            None if price is None else price.of_tokens(tokens, 0),
            None if price is None else price.of_tokens(tokens, most),
        )


class _AnswerOfRow:
    """The function of the stage."""

    def __init__(self, job: AskJob) -> None:
        self._job = job

    def tell_code(self) -> object:
        """Say what answers depend on beside `deps`."""
        prompt = self._job.prompt
        return None if isinstance(prompt, str) else prompt

    async def __call__(self, row: Any) -> Any:
        """Return the row that comes of the answer for a row."""
        job = self._job
        answer = await job.answer(row)
        if job.to is None:
            return answer
        made = made_row(row, _plain(answer), key=job.key, keep=job.keep, column="answer")
        if job.key is None or not isinstance(row, dict):
            return made
        return made | {job.key: cast("dict[str, Any]", row)[job.key]}


class _Numbered:
    """The rows of an iterable with their numbers, from 1; as often as the iterable can be read."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = rows

    def __iter__(self) -> Any:
        return iter(enumerate(self._rows, 1))


def _row_of(pair: tuple[int, Any]) -> Any:
    return pair[1]


def _plain(answer: Any) -> Any:
    """Return a model of pydantic as what JSON has."""
    return answer.model_dump(mode="json") if hasattr(answer.__class__, "model_fields") else answer


def _may_do_better(error: Exception) -> bool:
    return transient(error) or isinstance(error, AttemptTimeout)


def _burst(limit: tuple[float, float], least: float) -> float:
    """Return what a quarter of a second brings, or a little where that is not known."""
    n, seconds = limit
    return least if n in {_ANY_REQUESTS, _ANY_TOKENS} else max(1.0, min(n / seconds / 4, n))


def _wait(error: Exception) -> float | None:
    """Return the seconds that all wait after an error: what the service asks for; some after a 429 that does not say.

    A 503 or 529 that does not say may be of one request: it waits by itself, and `Adaptive` makes fewer at once.
    """
    asked = asked_wait(error)
    refused = getattr(error, "status", None) == HTTPStatus.TOO_MANY_REQUESTS
    return _BUSY_WAIT if asked is None and refused else asked


def _is_down(error: Exception) -> bool:
    """Whether a failure says that nothing of the service works: not, that it has too much to do."""
    return transient(error) and getattr(error, "status", None) not in BUSY and getattr(error, "reply", None) is None


def _duration(given: Seconds | str | None) -> float | None:
    if not isinstance(given, str):
        return None if given is None else validate.seconds("deadline", cast("float | timedelta", given))
    number = given.strip().rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = _UNITS.get(given.strip()[len(number) :])
    try:
        seconds = float(number) * unit if unit else 0.0
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise OptionError(f"deadline must be a time, as 90s, 30min or 2h, got {given!r}")
    return seconds
