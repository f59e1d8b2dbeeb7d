"""Durable runs: killed at any instant and started again, they go on where they were.

For users: how runs stand (`runs`), what failed of them and was set aside (`dead_roots`, `retry`, `discard`), and what
their sinks raise.
"""

from typing import TYPE_CHECKING, Any

from penstock.core.extras import imported

if TYPE_CHECKING:
    from penstock.durable.dead import DeadRoot, Letter, dead_roots, discard, retry
    from penstock.durable.lock import HeldError
    from penstock.durable.sqlite import StoreError, StoreFullError
    from penstock.durable.status import RunStatus, runs

_HOMES = {
    "dead": ("DeadRoot", "Letter", "dead_roots", "discard", "retry"),
    "lock": ("HeldError",),
    "sqlite": ("StoreError", "StoreFullError"),
    "status": ("RunStatus", "runs"),
}
_HOME_OF = {name: f"penstock.durable.{home}" for home, names in _HOMES.items() for name in names}

__all__ = [
    "DeadRoot",
    "HeldError",
    "Letter",
    "RunStatus",
    "StoreError",
    "StoreFullError",
    "dead_roots",
    "discard",
    "retry",
    "runs",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: the library behind it is an extra."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'penstock.durable' has no attribute {name!r}")
    value = globals()[name] = imported("penstock.durable", name, _HOME_OF[name])
    return value


def __dir__() -> list[str]:
    return __all__
