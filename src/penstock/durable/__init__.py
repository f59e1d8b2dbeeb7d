"""Durable runs: killed at any instant and started again, they go on where they were.

For users: the handle on a run that goes on (`DurableRun`), how runs stand (`runs`), what failed of them and was set
aside (`dead_roots`, `retry`, `discard`), what is done again or forgotten because it is asked for (`redo`, `forget`),
and what their sinks raise.
"""

from typing import TYPE_CHECKING

from penstock.exports import exports

if TYPE_CHECKING:
    from penstock.durable.again import Forgotten, ToRedo, forget, redo
    from penstock.durable.causes import Cause
    from penstock.durable.dead import DeadRoot, Letter, dead_roots, discard, retry
    from penstock.durable.handle import DurableRun
    from penstock.durable.status import RunStatus, runs
    from penstock.durable.store_errors import HeldError, StoreError, StoreFullError
else:
    __getattr__, __dir__ = exports(
        __name__,
        {
            "penstock.durable.causes": ("Cause",),
            "penstock.durable.dead": ("DeadRoot", "Letter", "dead_roots", "discard", "retry"),
            "penstock.durable.handle": ("DurableRun",),
            "penstock.durable.again": ("Forgotten", "ToRedo", "forget", "redo"),
            "penstock.durable.store_errors": ("HeldError", "StoreError", "StoreFullError"),
            "penstock.durable.status": ("RunStatus", "runs"),
        },
        extras={"apsw": "durable", "sqlite_vec": "durable"},
    )

__all__ = [
    "Cause",
    "DeadRoot",
    "DurableRun",
    "Forgotten",
    "HeldError",
    "Letter",
    "RunStatus",
    "StoreError",
    "StoreFullError",
    "ToRedo",
    "dead_roots",
    "discard",
    "forget",
    "redo",
    "retry",
    "runs",
]
