"""Run many slow calls over a stream of items: bounded, ordered, retried, cancelled cleanly, in constant memory."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.core.errors import (
        AttemptTimeout,
        ConcurrentReadError,
        DuplicateKeyError,
        EmptyStreamError,
        ExecutorUseError,
        NestedLimitError,
        NoResultError,
        OptionError,
        PenstockError,
        ResultCountError,
        ResultFailed,
        SourceConsumedError,
        SourceError,
        UnclosedStreamWarning,
        UnstoppedWorkWarning,
        WorkRaised,
        WrongLoopError,
    )
    from penstock.core.limits import Limiter
    from penstock.core.outcome import Cancelled, Failed, NotStarted, Ok, Outcome, Reason, Result
    from penstock.core.policy import OnError
    from penstock.core.rates import RateLimit
    from penstock.core.retry import Retry
    from penstock.durable.report import RunReport
    from penstock.functions import merge, parallel_filter, parallel_map, stream
    from penstock.run import Run
    from penstock.signals import drain_on_signals
    from penstock.sinks.callback import Callback, Delivered
    from penstock.sinks.finding import Found
    from penstock.sinks.table import SqliteTable
    from penstock.sinks.vectors import SqliteVectors
    from penstock.sources.files import File, files
    from penstock.sources.jsonl import jsonl
    from penstock.sources.keyed import keyed
    from penstock.sources.rows import rows
    from penstock.streams import Stream

_HOMES = {
    "penstock.core.errors": (
        "AttemptTimeout",
        "ConcurrentReadError",
        "DuplicateKeyError",
        "EmptyStreamError",
        "ExecutorUseError",
        "NestedLimitError",
        "NoResultError",
        "OptionError",
        "PenstockError",
        "ResultCountError",
        "ResultFailed",
        "SourceConsumedError",
        "SourceError",
        "UnclosedStreamWarning",
        "UnstoppedWorkWarning",
        "WorkRaised",
        "WrongLoopError",
    ),
    "penstock.core.limits": ("Limiter",),
    "penstock.core.outcome": ("Cancelled", "Failed", "NotStarted", "Ok", "Outcome", "Reason", "Result"),
    "penstock.core.policy": ("OnError",),
    "penstock.core.rates": ("RateLimit",),
    "penstock.core.retry": ("Retry",),
    "penstock.durable.report": ("RunReport",),
    "penstock.run": ("Run",),
    "penstock.functions": ("merge", "parallel_filter", "parallel_map", "stream"),
    "penstock.signals": ("drain_on_signals",),
    "penstock.sinks.callback": ("Callback", "Delivered"),
    "penstock.sinks.finding": ("Found",),
    "penstock.sinks.table": ("SqliteTable",),
    "penstock.sinks.vectors": ("SqliteVectors",),
    "penstock.sources.files": ("File", "files"),
    "penstock.sources.jsonl": ("jsonl",),
    "penstock.sources.keyed": ("keyed",),
    "penstock.sources.rows": ("rows",),
    "penstock.streams": ("Stream",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AttemptTimeout",
    "Callback",
    "Cancelled",
    "ConcurrentReadError",
    "Delivered",
    "DuplicateKeyError",
    "EmptyStreamError",
    "ExecutorUseError",
    "Failed",
    "File",
    "Found",
    "Limiter",
    "NestedLimitError",
    "NoResultError",
    "NotStarted",
    "Ok",
    "OnError",
    "OptionError",
    "Outcome",
    "PenstockError",
    "RateLimit",
    "Reason",
    "Result",
    "ResultCountError",
    "ResultFailed",
    "Retry",
    "Run",
    "RunReport",
    "SourceConsumedError",
    "SourceError",
    "SqliteTable",
    "SqliteVectors",
    "Stream",
    "UnclosedStreamWarning",
    "UnstoppedWorkWarning",
    "WorkRaised",
    "WrongLoopError",
    "drain_on_signals",
    "files",
    "jsonl",
    "keyed",
    "merge",
    "parallel_filter",
    "parallel_map",
    "rows",
    "stream",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: asyncio alone takes longer to import than a command may take to answer."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    from penstock.core.extras import imported  # noqa: PLC0415 -- see above

    value = globals()[name] = imported("penstock", name, _HOME_OF[name])
    return value


def __dir__() -> list[str]:
    return __all__
