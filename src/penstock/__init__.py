"""Run many slow calls over a stream of items: bounded, ordered, retried, cancelled cleanly, in constant memory."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.core.errors import (
        AttemptTimeout,
        ConcurrentReadError,
        EmptyStreamError,
        OptionError,
        PenstockError,
        ResultCountError,
        SourceConsumedError,
        UnclosedStreamWarning,
        UnstoppedWorkWarning,
        WorkRaised,
    )
    from penstock.core.outcome import Failed, Ok, Reason, Result
    from penstock.core.policy import OnError
    from penstock.core.retry import Retry
    from penstock.functions import parallel_filter, parallel_map
    from penstock.run import Run
    from penstock.signals import drain_on_signals
    from penstock.streams import Stream, merge, stream

_HOMES = {
    "penstock.core.errors": (
        "AttemptTimeout",
        "ConcurrentReadError",
        "EmptyStreamError",
        "OptionError",
        "PenstockError",
        "ResultCountError",
        "SourceConsumedError",
        "UnclosedStreamWarning",
        "UnstoppedWorkWarning",
        "WorkRaised",
    ),
    "penstock.core.outcome": ("Failed", "Ok", "Reason", "Result"),
    "penstock.core.policy": ("OnError",),
    "penstock.core.retry": ("Retry",),
    "penstock.run": ("Run",),
    "penstock.functions": ("parallel_filter", "parallel_map"),
    "penstock.signals": ("drain_on_signals",),
    "penstock.streams": ("Stream", "merge", "stream"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AttemptTimeout",
    "ConcurrentReadError",
    "EmptyStreamError",
    "Failed",
    "Ok",
    "OnError",
    "OptionError",
    "PenstockError",
    "Reason",
    "Result",
    "ResultCountError",
    "Retry",
    "Run",
    "SourceConsumedError",
    "Stream",
    "UnclosedStreamWarning",
    "UnstoppedWorkWarning",
    "WorkRaised",
    "drain_on_signals",
    "merge",
    "parallel_filter",
    "parallel_map",
    "stream",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: asyncio alone takes longer to import than a command may take to answer."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
