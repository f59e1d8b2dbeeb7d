"""The engine of Ray: actors, each of which makes the calls of one group at a time.

Actors, not tasks: after a cut of the network in silence the reference of a task never comes to anything, the call of an
actor fails after a minute. Ray tries nothing again, since the run does; each reference is awaited once.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from importlib import import_module
from logging import ERROR as QUIET
from typing import Any, override

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.engines.cluster.cluster_engine import ClusterEngine, runner_by_value
from penstock.engines.engine import Engine
from penstock.exports import naming_extras


def _library() -> Any:
    """The module of Ray; the types that it has do not say what an actor is."""
    with naming_extras("penstock.engines.ray", {"ray": "ray"}):
        return import_module("ray")


def ray(
    workers: int | None = None,
    *,
    num_cpus: float = 1,
    num_gpus: float = 0,
    resources: Mapping[str, float] | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    address: str | None = None,
) -> Engine:
    """An engine of up to `workers` actors on a Ray cluster, each started when there is work for it.

    It is entered with `async with`, which connects to the cluster (a local one takes some seconds to start). Functions,
    arguments and results are pickled; those of `__main__`, lambdas and closures go by value, others are imported where
    they run, with the `sys.path` of this process beside that of the worker. Calls run in a thread of their worker. A
    call that is stopped, by its timeout or by leaving the run, really stops: its actor is killed, and a new one takes a
    second. A worker, or a node, that dies fails the calls that it ran with `WorkerLost`.

    Args:
        workers: how many calls can run at once, an int >= 1. None: as many actors as fit on the cluster when it is
            entered.
        num_cpus: the processors that an actor takes, >= 0.
        num_gpus: the GPUs that it takes, >= 0.
        resources: what it takes of resources of your own.
        runtime_env: the environment of the actors, as Ray has it: packages, files, variables.
        address: the cluster: "auto", "ray://host:port", or "local". None: that to which this process is connected, or
            what RAY_ADDRESS says, or else a local one.

    Raises:
        OptionError: an argument breaks its rule.
        ModuleNotFoundError: Ray is not installed; the extra `ray` brings it.

    Example:
        async with penstock.engines.ray(num_gpus=1, address="auto") as engine:
            vectors = penstock.stream(texts).map(embed, engine=engine)
    """
    library = _library()
    needs = {
        "num_cpus": validate.number("num_cpus", num_cpus, least=0),
        "num_gpus": validate.number("num_gpus", num_gpus, least=0),
    }
    for option, value in (("resources", resources), ("runtime_env", runtime_env)):
        if value is not None:
            validate.instance(option, value, Mapping, "a mapping")
    options: dict[str, Any] = {**needs, "resources": dict(resources or {}) or None, "runtime_env": runtime_env}
    return Ray(
        library,
        None if workers is None else validate.whole("workers", workers, least=1),
        {name: value for name, value in options.items() if value is not None},
        None if address is None else validate.text("address", address),
    )


class Ray(ClusterEngine):
    """Runs plain functions in actors of Ray; see `ray`."""

    def __init__(self, library: Any, workers: int | None, options: Mapping[str, Any], address: str | None) -> None:
        super().__init__()
        self._ray = library
        self._workers = workers
        self._options = options
        self._address = address
        self._actor_class: Any = None
        self._runner = b""
        self._ours = False

    @override
    def _connect(self) -> int:  # in a thread: on the main one Ray would replace the handler of SIGTERM
        if not self._ray.is_initialized():
            address = self._address or os.environ.get("RAY_ADDRESS") or "local"
            more: dict[str, Any] = {}
            if address == "local":
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
                more["include_dashboard"] = False
            self._ray.init(address, log_to_driver=False, logging_level=QUIET, **more)
            self._ours = True
        self._runner = runner_by_value(import_module("ray.cloudpickle.cloudpickle"))
        self._actor_class = self._ray.remote(_worker_class())
        return self._fitting() if self._workers is None else self._workers

    def _fitting(self) -> int:
        """How many actors fit on the cluster."""
        there: dict[str, float] = self._ray.cluster_resources()
        options = self._options
        needs: dict[str, float] = {
            "CPU": options["num_cpus"],
            "GPU": options["num_gpus"],
            **options.get("resources", {}),
        }
        fit = [there.get(name, 0.0) // need for name, need in needs.items() if need]
        found = int(min(fit, default=there.get("CPU", 1.0)))
        if found < 1:
            raise OptionError(f"no worker fits on the cluster: it needs {needs}, and there is {there}")
        return found

    @override
    def _disconnect(self) -> None:
        if self._ours:
            self._ours = False
            self._ray.shutdown()

    @override
    def _start_worker(self) -> tuple[Any, Future[Any]]:
        options = {**self._options, "max_restarts": 0, "max_task_retries": 0, "enable_task_events": False}
        actor = self._actor_class.options(**options).remote(self._runner, sys.path)
        return actor, actor.ready.remote().future()

    @override
    def _call(self, worker: Any, method: str, *arguments: Any) -> Future[Any]:
        said: Future[Any] = getattr(worker, method).remote(*arguments).future()
        return said

    @override
    def _kill(self, worker: Any) -> None:
        if self._ray.is_initialized():
            with suppress(Exception):  # it is dead, or its cluster
                self._ray.kill(worker, no_restart=True)

    @override
    def _release(self, worker: Any) -> None:
        self._kill(worker)

    @override
    def _death(self, error: BaseException) -> str | None:
        known = self._ray.exceptions
        deaths = known.RayActorError, known.WorkerCrashedError, known.NodeDiedError, known.OutOfMemoryError
        return _first_line(error) if isinstance(error, deaths) else None

    @override
    def describe(self) -> str:
        return f"ray({'' if self._workers is None else self._workers})"


def _worker_class() -> type:
    """The class of actors: it has no name in a module, and so goes by value."""

    class Worker:
        """Has a runner."""

        def __init__(self, pickled: bytes, path: Sequence[str]) -> None:
            from pickle import loads  # noqa: PLC0415 -- where it runs

            self._runner: Any = loads(pickled)(path)  # noqa: S301

        def ready(self) -> Any:
            return self._runner.ready()

        def run(self, *given: Any) -> Any:
            return self._runner.run(*given)

        def rest(self) -> Any:
            return self._runner.rest()

    return Worker


def _first_line(error: BaseException) -> str:
    """What Ray says of a death; further lines are about where it was."""
    return next(iter(str(error).strip().splitlines()), "the actor died")
