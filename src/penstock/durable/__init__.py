"""Durable runs: killed at any instant and started again, they go on where they were.

For users: how runs stand (`runs`), what failed of them and was set aside (`dead_roots`, `retry`, `discard`), and what
their sinks raise.
"""

from typing import TYPE_CHECKING

from penstock.exports import exports

if TYPE_CHECKING:
    from penstock.durable.dead import DeadRoot, Letter, dead_roots, discard, retry
    from penstock.durable.lock import HeldError
    from penstock.durable.sqlite import StoreError, StoreFullError
    from penstock.durable.status import RunStatus, runs
else:
    __getattr__, __dir__ = exports(
        __name__,
        {
            "penstock.durable.dead": ("DeadRoot", "Letter", "dead_roots", "discard", "retry"),
            "penstock.durable.lock": ("HeldError",),
            "penstock.durable.sqlite": ("StoreError", "StoreFullError"),
            "penstock.durable.status": ("RunStatus", "runs"),
        },
        extras={"apsw": "durable", "sqlite_vec": "durable"},
    )

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
