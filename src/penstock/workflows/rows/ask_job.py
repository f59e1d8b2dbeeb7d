"""A prompt over every row: one answer of a model for each, into a table or a file, or a list."""

import asyncio
import math
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Any, ClassVar, Final, Literal, Required, TypedDict, Unpack, cast, overload, override

from penstock.core import validate
from penstock.core.adaptive import Adaptive
from penstock.core.errors import AttemptTimeout, FatalError, OptionError
from penstock.core.plan import OnError
from penstock.core.retry import Seconds
from penstock.core.stats import Latency
from penstock.core.text import shown
from penstock.durable.handle import DurableRun
from penstock.durable.options import OnDuplicate
from penstock.durable.report import RunReport
from penstock.durable.status import runs
from penstock.durable.values import pack
from penstock.flow.answer_forms import AnswerError, Schema
from penstock.flow.asking import ASKS, MAX_TOKENS, Asking, ModelRequest, asking_of, check, prepare
from penstock.flow.models import Model, ModelError
from penstock.flow.service_limits import ServiceLimits
from penstock.flow.services import Service
from penstock.functions import stream
from penstock.streams import Stream
from penstock.workflows.rows.budgets import Budgets, EndedBy
from penstock.workflows.rows.failed_requests import Hope, again, breaker
from penstock.workflows.rows.named_models import model_of
from penstock.workflows.rows.preview import Preview, preview
from penstock.workflows.rows.prompt_text import PromptText
from penstock.workflows.rows.request_limits import RequestLimits
from penstock.workflows.rows.row_function import made_row
from penstock.workflows.rows.row_job import ON_ERROR, RowJob
from penstock.workflows.rows.row_sinks import open_out
from penstock.workflows.rows.row_sources import numbered_rows, open_rows
from penstock.workflows.rows.spending import Estimate, Price, Spending

ATTEMPTS: Final = 6
"""How often a request is made in all that may do better, by default."""

MOST: Final = 256
"""Requests at once, at most, by default."""


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
    on_duplicate: OnDuplicate | None
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
        key, query, glob, table, keep, run_name, limit, on_duplicate, memo: as for `map_rows`.
        concurrency: requests at once, an int >= 1; default `Adaptive()`.
        retry: attempts in all, an int >= 1; default 6.
        asks: how often a prompt is asked in all until an answer fits the schema, an int >= 1; default 3.
        timeout: seconds of an attempt, > 0; default no limit, but one of which nothing comes for 60 s fails.
        rate: requests that begin in a time, as "500/min".
        tokens: tokens of requests and answers in a time, as "90000/min": estimated before, put right after.
        on_error: "collect" sets a row aside that has no answer; "raise" ends the run; "skip" drops it. Default
            "collect", without `to` "raise".
        max_answer: tokens of an answer, an int >= 1; default 4096. One that is longer fails.
        price: what a million tokens cost: "IN/OUT" or "IN/OUT/CACHED", or such numbers.
        max_cost: the run ends in order when it has cost so much, a number > 0, over all its openings; needs a price.
        max_tokens: the same, for tokens of requests and answers together, failed ones included.
        deadline: the run ends in order after so long: seconds, a timedelta, or a text as "90s", "30min" or "2h".

    Raises:
        OptionError: an argument breaks its rule.
        ModuleNotFoundError: a library is missing; the message says which extra installs it.
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
    on_duplicate: OnDuplicate | None = None
    memo: bool = False
    max_answer: int = MAX_TOKENS
    price: str | tuple[float, ...] | None = None
    max_cost: float | None = None
    max_tokens: int | None = None
    deadline: Seconds | str | None = None

    def __post_init__(self) -> None:
        """Check the options; raise `OptionError`."""
        self.name = "prompt"
        self._text = PromptText(self.prompt)
        validate.whole("max_answer", self.max_answer, least=1)
        self._limits = RequestLimits(self.rate, self.tokens, self.max_answer, self._expected_of)
        followed: ServiceLimits = {"requests": self._limits.requests, "tokens": self._limits.tokens}
        options = {
            "model": model_of(self.model, self.base_url, followed),
            "system": self.system,
            "max_tokens": self.max_answer,
            "asks": self.asks,
        }
        self._asking: Asking = asking_of(None, self.schema, options)
        self._estimate = Estimate(self.max_answer)
        self._price = None if self.price is None else Price.of(self.price)
        self._budgets = Budgets(self.max_cost, self.max_tokens, self.deadline, self._price)
        self._refuse_without_place()
        self.spent: Spending = Spending()
        self.spent_before: Spending = Spending()
        self._total = Spending()
        self.ended_by: EndedBy | None = None
        self._hope = Hope(of_service=isinstance(self._asking.model, Service))
        self._asked = 0
        self._answered: Counter[int] = Counter()  # rows with an answer of which none is made, by their addresses
        self._is_closed = False
        self._left: int | None = None
        self.on_error = self.on_error or ("raise" if self.to is None else "collect")
        validate.one_of("on_error", self.on_error, ON_ERROR)
        self.rows: Stream[Any] = self._open_rows()
        self.stream: Stream[Any] = self._stream()
        self.sink: Any = None if self.to is None else open_out(self.to, table=self.table)

    def _refuse_without_place(self) -> None:
        if self.to is not None:
            return
        for option in ("max_cost", "max_tokens", "deadline", "limit", "on_duplicate", "table", "run_name"):
            if getattr(self, option) is not None:
                raise OptionError(
                    f"{option} is for a run into `to`, which goes on later, got {getattr(self, option)!r}"
                )
        if self.memo:
            raise OptionError("memo is for a run into `to`, which keeps the answers, got True")

    # The stream

    calls: ClassVar[int] = -2

    def _open_rows(self) -> Stream[Any]:
        if isinstance(self.over, str | os.PathLike):
            return open_rows(
                os.fspath(self.over),
                key=self.key,
                query=self.query,
                glob=self.glob,
                texts=self._text.wants_text,
                on_error=cast("OnError", self.on_error),
            )
        for option in ("query", "glob"):
            if (given := getattr(self, option)) is not None:
                raise OptionError(f"{option} is for a place of rows, got {given!r} for {shown(self.over)}")
        if self.to is None:
            return stream(self.over)
        return numbered_rows(self.over, self.key)

    def _stream(self) -> Stream[Any]:
        options: dict[str, Any] = {
            "name": "ask",
            "on_error": self.on_error,
            "memo": self._prompt_of if self.memo else False,
            "key": self._question if self.memo else None,
            "deps": self._depends_on(),
            "concurrency": Adaptive(most=MOST) if self.concurrency is None else self.concurrency,
            "limit": [*self._limits.both(), breaker()],
            "retry": again(self.retry, MOST, self._limits.both()),
            "timeout": self.timeout,
        }
        if self.to is None:
            return cast("Stream[Any]", self.rows.map(self.answer, **options))
        answering: Callable[[Any], Awaitable[Any]] = _Answering(self)
        pairs = cast("Stream[tuple[Any, Any]]", self.rows.map(answering, keep=True, **options))
        return pairs.map(_RowMaking(self), name="prompt")

    def _question(self, row: Any) -> str:
        """Return the prompt of a row, or what all have that have none: rows with one question wait for one answer."""
        try:
            return self._text.of(row)
        except Exception:  # noqa: BLE001 -- of the row or of the user's function: asking for the answer raises it
            return ""

    def _depends_on(self) -> list[Any]:
        asking = self._asking
        return [
            asking.system,
            asking.max_tokens,
            asking.model.code() if isinstance(asking.model, Service) else type(asking.model).__qualname__,
            None if asking.form is None else asking.form.instruction,
        ]

    @override
    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "find_killers": False}  # a request kills no process, and is paid

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
            self._hope.without_answer(error)
            raise
        self._hope.has_answer()
        return answer

    def _prompt_of(self, row: Any) -> str:
        """Return the prompt of a row; end the run where a column that it names is in no row."""
        try:
            prompt = self._text.of(row)
        except OptionError as error:
            self._hope.without_prompt(error)
            raise
        self._hope.has_prompt()
        return prompt

    def _expected_of(self, row: Any) -> float:
        return self._expected(self._asking.first(self._text.of(row)))

    def _expected(self, prompt: str) -> float:
        return float(math.ceil(self._input_of(prompt) + self._estimate.output))

    def _input_of(self, prompt: str) -> float:
        return self._estimate.input(f"{self.system or ''}{prompt}")

    async def begin(self, prompt: str) -> None:
        """Let a request begin: never, once the run is to end; one that asks again waits for the limits first."""
        await self._limits.begin(lambda: self._expected(prompt))
        if self._is_closed:
            await asyncio.get_running_loop().create_future()  # until it is cancelled: its row is not done
        self._asked += 1

    def ended(self, request: ModelRequest) -> None:
        """Count a request that has ended, and look whether the run is to end."""
        self._asked -= 1
        used = self._estimate.spending(request)
        self._estimate.learn(request)
        self._limits.ended(None if used.unknown else used.tokens)
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
        if self._budgets.seconds is not None:
            timer = asyncio.get_running_loop().call_later(self._budgets.seconds, self._end, "deadline")
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
        by = self._budgets.reached(self._total)
        if by is not None:
            self._end(by)

    def _end(self, by: EndedBy) -> None:
        if self.ended_by is None and not self._stopped:
            self.ended_by = by
            self.stop()

    def _close(self) -> None:
        self._is_closed = True
        if not self._asked:
            self._abort_soon()

    def is_answered(self, row: Any) -> None:
        """Note that the row of an answer is to be made."""
        self._answered[id(row)] += 1

    def is_made(self, row: Any) -> None:
        """Note that it is made. That of an answer that was known is none of these."""
        place = id(row)
        if self._answered[place] > 1:
            self._answered[place] -= 1
        else:
            self._answered.pop(place, None)
        if self._is_closed:
            self._abort_soon()

    def _abort_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._abort)

    def _abort(self) -> None:
        """Cancel calls that wait, once the row of the last answer is made: their rows are not done."""
        if self._run is not None and not self._asked and not self._answered:
            self._run.abort()

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
        stage = report.stats.stages[self.calls] if report.stats.stages else None
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
        return await preview(
            self.rows,
            lambda row: self._asking.first(self._text.of(row)),
            self._input_of,
            shown=number,
            limit=self.limit,
            longest=self.max_answer,
            price=self._price,
        )


class _Answering:
    """The function of the stage that asks: `deps` say what answers depend on, beside the texts of prompts."""

    def __init__(self, job: AskJob) -> None:
        self._job = job

    def tell_code(self) -> object:
        """Say nothing more."""
        return None

    async def __call__(self, row: Any) -> Any:
        """Return the answer for a row, made of what JSON has."""
        answer = _plain(await self._job.answer(row))
        if self._job.memo:
            pack(answer)  # what is too deep to be kept fails here: its row would not come
        self._job.is_answered(row)
        return answer


class _RowMaking:
    """The function of the stage that makes rows of answers, and tells by what prompts were made."""

    def __init__(self, job: AskJob) -> None:
        self._job = job

    def tell_code(self) -> object:
        """Return the text with columns, or the function."""
        return self._job.prompt

    def __call__(self, pair: tuple[Any, Any]) -> Any:
        """Return what is stored of a row and its answer."""
        job, (row, answer) = self._job, pair
        job.is_made(row)
        made = made_row(row, answer, key=job.key, keep=job.keep, column="answer")
        if job.key is None or not isinstance(row, dict):
            return made
        return made | {job.key: cast("dict[str, Any]", row)[job.key]}


def _plain(answer: Any) -> Any:
    """Return a model of pydantic as what JSON has."""
    return answer.model_dump(mode="json") if hasattr(answer.__class__, "model_fields") else answer
