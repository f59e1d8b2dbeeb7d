"""Run many slow calls over a stream of items: bounded, ordered, retried, cancelled cleanly, in constant memory."""

from typing import TYPE_CHECKING

from penstock.exports import exports, installed

if TYPE_CHECKING:
    from penstock import durable as durable
    from penstock import engines as engines
    from penstock import flow as flow
    from penstock import sinks as sinks
    from penstock import tasks as tasks
    from penstock import testing as testing
    from penstock import workflows as workflows
    from penstock.core.adaptive import Adaptive
    from penstock.core.breaker import Breaker
    from penstock.core.errors import (
        AttemptTimeout,
        BlockedLoopWarning,
        ConcurrentReadError,
        DuplicateKeyError,
        EmptyStreamError,
        ExecutorUseError,
        FatalError,
        MisuseError,
        NestedLimitError,
        NoResultError,
        OptionError,
        PenstockError,
        PicklingFailed,
        RemoteError,
        ResultCountError,
        ResultFailed,
        SourceConsumedError,
        SourceError,
        UnclosedStreamWarning,
        UnstoppedWorkWarning,
        WorkerLost,
        WorkRaised,
        WrongLoopError,
    )
    from penstock.core.limiter import Limiter
    from penstock.core.outcome import Cancelled, Failed, NotStarted, Ok, Outcome, Reason, Result
    from penstock.core.plan import OnError
    from penstock.core.rate_limit import RateLimit
    from penstock.core.retry import Retry, RetryBudget
    from penstock.core.stats import Latency, StageStats, Stats
    from penstock.durable.report import RunReport
    from penstock.functions import merge, parallel_filter, parallel_map, stream
    from penstock.ops.metadata import Record
    from penstock.run import Run
    from penstock.signals import drain_on_signals
    from penstock.sinks.callback import Callback, Delivered
    from penstock.sinks.directory import Files
    from penstock.sinks.finding import Found
    from penstock.sinks.json_lines import JsonLines
    from penstock.sinks.postgres_table import PostgresTable
    from penstock.sinks.table import SqliteTable
    from penstock.sinks.vectors import SqliteVectors
    from penstock.sources.csv_file import csv
    from penstock.sources.files import File, files
    from penstock.sources.jsonl import jsonl
    from penstock.sources.keyed import keyed
    from penstock.sources.rows import rows
    from penstock.streams import Stream
    from penstock.sync import SyncRun
    from penstock.tracing import traced
else:
    __getattr__, __dir__ = exports(
        __name__,
        {
            "penstock.core.errors": (
                "AttemptTimeout",
                "BlockedLoopWarning",
                "ConcurrentReadError",
                "DuplicateKeyError",
                "EmptyStreamError",
                "ExecutorUseError",
                "FatalError",
                "MisuseError",
                "NestedLimitError",
                "NoResultError",
                "OptionError",
                "PenstockError",
                "PicklingFailed",
                "RemoteError",
                "ResultCountError",
                "ResultFailed",
                "SourceConsumedError",
                "SourceError",
                "UnclosedStreamWarning",
                "UnstoppedWorkWarning",
                "WorkerLost",
                "WorkRaised",
                "WrongLoopError",
            ),
            "penstock.core.adaptive": ("Adaptive",),
            "penstock.core.breaker": ("Breaker",),
            "penstock.core.limiter": ("Limiter",),
            "penstock.core.rate_limit": ("RateLimit",),
            "penstock.core.outcome": ("Cancelled", "Failed", "NotStarted", "Ok", "Outcome", "Reason", "Result"),
            "penstock.core.plan": ("OnError",),
            "penstock.core.retry": ("Retry", "RetryBudget"),
            "penstock.core.stats": ("Latency", "StageStats", "Stats"),
            "penstock.durable.report": ("RunReport",),
            "penstock.ops.metadata": ("Record",),
            "penstock.run": ("Run",),
            "penstock.functions": ("merge", "parallel_filter", "parallel_map", "stream"),
            "penstock.signals": ("drain_on_signals",),
            "penstock.sinks.callback": ("Callback", "Delivered"),
            "penstock.sinks.directory": ("Files",),
            "penstock.sinks.finding": ("Found",),
            "penstock.sinks.json_lines": ("JsonLines",),
            "penstock.sinks.postgres_table": ("PostgresTable",),
            "penstock.sinks.table": ("SqliteTable",),
            "penstock.sinks.vectors": ("SqliteVectors",),
            "penstock.sources.csv_file": ("csv",),
            "penstock.sources.files": ("File", "files"),
            "penstock.sources.jsonl": ("jsonl",),
            "penstock.sources.keyed": ("keyed",),
            "penstock.sources.rows": ("rows",),
            "penstock.streams": ("Stream",),
            "penstock.sync": ("SyncRun",),
            "penstock.tracing": ("traced",),
        },
        extras={"apsw": "durable", "sqlite_vec": "durable", "numpy": "embed", "psycopg": "postgres"},
        modules=("durable", "engines", "flow", "sinks", "tasks", "testing", "workflows"),
    )

__all__ = [
    "Adaptive",
    "AttemptTimeout",
    "BlockedLoopWarning",
    "Breaker",
    "Callback",
    "Cancelled",
    "ConcurrentReadError",
    "Delivered",
    "DuplicateKeyError",
    "EmptyStreamError",
    "ExecutorUseError",
    "Failed",
    "FatalError",
    "File",
    "Files",
    "Found",
    "JsonLines",
    "Latency",
    "Limiter",
    "MisuseError",
    "NestedLimitError",
    "NoResultError",
    "NotStarted",
    "Ok",
    "OnError",
    "OptionError",
    "Outcome",
    "PenstockError",
    "PicklingFailed",
    "PostgresTable",
    "RateLimit",
    "Reason",
    "Record",
    "RemoteError",
    "Result",
    "ResultCountError",
    "ResultFailed",
    "Retry",
    "RetryBudget",
    "Run",
    "RunReport",
    "SourceConsumedError",
    "SourceError",
    "SqliteTable",
    "SqliteVectors",
    "StageStats",
    "Stats",
    "Stream",
    "SyncRun",
    "UnclosedStreamWarning",
    "UnstoppedWorkWarning",
    "WorkRaised",
    "WorkerLost",
    "WrongLoopError",
    "csv",
    "drain_on_signals",
    "files",
    "jsonl",
    "keyed",
    "merge",
    "parallel_filter",
    "parallel_map",
    "rows",
    "stream",
    "traced",
]

if not TYPE_CHECKING:
    _SQLITE = ("Callback", "Delivered", "Files", "Found", "JsonLines", "SqliteTable", "SqliteVectors")
    __all__[:] = installed(
        __all__,
        {"apsw": _SQLITE, "numpy": ("SqliteVectors",), "sqlite_vec": ("SqliteVectors",), "psycopg": ("PostgresTable",)},
    )
