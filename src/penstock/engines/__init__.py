"""Where functions run: `engine=` takes the name of an engine, or one of these, which stages and runs can share.

The window, its order and its accounting are the same everywhere (P12).
"""

from typing import TYPE_CHECKING

from penstock.exports import exports

if TYPE_CHECKING:
    from penstock.core.errors import WorkerLost
    from penstock.engines.cluster.dask_engine import dask
    from penstock.engines.cluster.ray_engine import ray
    from penstock.engines.engine import Answer, Call, Engine, Progress, answer
    from penstock.engines.process.processes_engine import processes
    from penstock.engines.threads import Threads
else:  # a worker process imports modules of this package, and has no use for these
    __getattr__, __dir__ = exports(
        __name__,
        {
            "penstock.core.errors": ("WorkerLost",),
            "penstock.engines.cluster.dask_engine": ("dask",),
            "penstock.engines.cluster.ray_engine": ("ray",),
            "penstock.engines.engine": ("Answer", "Call", "Engine", "Progress", "answer"),
            "penstock.engines.process.processes_engine": ("processes",),
            "penstock.engines.threads": ("Threads",),
        },
        extras={},
    )

__all__ = ["Answer", "Call", "Engine", "Progress", "Threads", "WorkerLost", "answer", "dask", "processes", "ray"]
