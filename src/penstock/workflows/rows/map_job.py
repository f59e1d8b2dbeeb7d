"""A function over every row, into a table or a file: one durable run."""

import inspect
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Final, Literal, TypedDict, Unpack

from penstock.core import validate
from penstock.core.retry import Retry
from penstock.core.text import name_of
from penstock.durable.options import OnDuplicate
from penstock.durable.report import RunReport
from penstock.engines.choosing import EngineOption
from penstock.streams import Stream
from penstock.workflows.rates import rate_of
from penstock.workflows.rows.row_function import Arguments, found_function, rows_by
from penstock.workflows.rows.row_job import ON_ERROR, RowJob
from penstock.workflows.rows.row_sinks import open_out
from penstock.workflows.rows.row_sources import open_rows

CONCURRENCY: Final = 8


class MapRowsOptions(TypedDict, total=False):
    """Options of `map_rows`: see `MapJob`."""

    key: str | None
    query: str | None
    glob: str | None
    table: str | None
    keep: bool
    run_name: str | None
    concurrency: int | None
    retry: int
    timeout: float | None
    rate: str | None
    on_error: Literal["collect", "raise", "skip"]
    engine: EngineOption | None
    limit: int | None
    on_duplicate: OnDuplicate | None
    memo: bool


async def map_rows(
    function: str | Callable[..., Any], /, over: str, to: str, **options: Unpack[MapRowsOptions]
) -> RunReport:
    """Call a function for every row of `over`, and store what it returns in `to`, exactly once, as `penstock map` does.

    A run that was killed or stopped goes on where it was. The arguments are those of `MapJob`.

    Raises:
        OptionError: an argument breaks its rule.
        RowFailedError: the function failed for a row, and `on_error` is "raise".
        PenstockError: what else ended it: what was finished is stored.
    """
    return await MapJob(function, over, to, **options).run()


@dataclass
class MapJob(RowJob):
    """The same, to be watched with `report()` while `run()` runs, and ended early with `stop()`.

    The function gets the row, a dict; or, if all parameters that it needs are names of columns, these. A dict that it
    returns is a row, a list or a generator are several, None is none, anything else is a row with the column `value`.

    Attributes:
        function: a function, or `MODULE:FUNCTION` as text, plain or async.
        over: a file (.jsonl, .ndjson, .csv, .tsv, .parquet), a directory, a database with a `query`, or "-" for lines
            of JSON from standard input.
        to: an SQLite database (.db, .sqlite, .sqlite3), a connection string of PostgreSQL, or a file of JSON lines.
        key: the column by which a row is known from run to run; each row that is stored has it. Default: its place.
        query, glob: which rows of a database, which files of a directory.
        table: the table of a database; default "rows".
        keep: whether rows have the columns of the row that they came from; default False.
        run_name: the name of the run; default that of the function.
        concurrency: calls at once, an int >= 1; default 8, or what the engine has.
        retry: attempts in all, an int >= 1; default 1.
        timeout: seconds of an attempt, > 0; default no limit.
        rate: calls that begin in a time, as "500/min"; default any number.
        on_error: "collect", the default, sets a row that fails aside; "raise" ends the run; "skip" drops it.
        engine: where a plain function runs, as for `Stream.map`; default "thread".
        limit: rows to do in this run, an int >= 1; default all.
        on_duplicate: what becomes of a row with the key of an earlier one: "refuse" (the default) ends the run, "first"
            drops it.
        memo: whether results are kept by the content of the row, and not paid for twice; default False.

    Raises:
        OptionError: an argument breaks its rule.
    """

    function: str | Callable[..., Any]
    over: str
    to: str
    _: KW_ONLY
    key: str | None = None
    query: str | None = None
    glob: str | None = None
    table: str | None = None
    keep: bool = False
    run_name: str | None = None
    concurrency: int | None = None
    retry: int = 1
    timeout: float | None = None
    rate: str | None = None
    on_error: Literal["collect", "raise", "skip"] = "collect"
    engine: EngineOption | None = None
    limit: int | None = None
    on_duplicate: OnDuplicate | None = None
    memo: bool = False

    def __post_init__(self) -> None:
        """Import the function and check the options; raise `OptionError`."""
        self._fn = found_function(self.function) if isinstance(self.function, str) else self.function
        validate.function("function", self._fn)
        validate.one_of("on_error", self.on_error, ON_ERROR)
        self.name: str = self.function if isinstance(self.function, str) else name_of(self._fn)
        self._work = rows_by(self._fn, key=self.key, keep=self.keep)
        self.rows: Stream[Any] = open_rows(
            self.over,
            key=self.key,
            query=self.query,
            glob=self.glob,
            texts=Arguments(self._fn).wants("text"),
            on_error=self.on_error,
        )
        self.stream: Stream[Any] = self._stream()
        self.sink: Any = open_out(self.to, table=self.table)

    def _stream(self) -> Stream[Any]:
        options: dict[str, Any] = {"name": "call", "on_error": self.on_error, "memo": self.memo}
        if self.rate is not None:
            options["limit"] = rate_of(self.rate)
        if self.retry != 1:
            options["retry"] = Retry(attempts=self.retry, on=Exception)
        if self.timeout is not None:
            options["timeout"] = self.timeout
        engine = self.engine or (None if _on_the_loop(self._work) else "thread")
        if engine is not None:
            options["engine"] = engine
        if self.concurrency is not None or engine in {None, "thread"}:
            options["concurrency"] = CONCURRENCY if self.concurrency is None else self.concurrency
        return self.rows.flat_map(self._work, **options)


def _on_the_loop(work: Any) -> bool:
    return inspect.iscoroutinefunction(work) or inspect.isasyncgenfunction(work)
