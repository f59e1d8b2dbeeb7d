"""The engine of Dask: its workers, each of which makes the calls of one group at a time.

High-level idea: the scheduler of Dask sees no tasks. Each worker is asked directly (`Client.run`): equal calls are two
calls, a death is told by the connection that breaks, and no setting of the cluster has a say in what runs where, how
often, and whose fault it is. A call that is to be stopped has its worker killed by its nanny, which starts another one.
The scheduler sees the end of our connection: if the driver is killed, it has workers end what they do for it.

All that is of Dask runs on the event loop of its own thread.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from contextlib import suppress
from importlib import import_module
from logging import CRITICAL as SILENT
from typing import Any, Final, override
from uuid import uuid4

from penstock.core import validate
from penstock.core.errors import MisuseError, OptionError
from penstock.engines.cluster.cluster_engine import ClusterEngine, runner_by_value
from penstock.engines.engine import Engine
from penstock.engines.process.crossing import loads, why
from penstock.engines.process.processes_engine import processors
from penstock.exports import naming_extras

LOOK: Final = 0.1
"""Seconds between looks for a worker that is free."""

EMPTY: Final = 30.0
"""Seconds for which a cluster may have no workers at all; one that dies is replaced in about three."""

CONNECTS: Final = 10.0
"""Seconds in which the first worker of a cluster has to connect, when the engine is entered."""

GOODBYE: Final = 1.0
"""Seconds that workers of others have to drop what was sent to them."""


def _library() -> Any:
    """The module of Dask; it has hardly any types."""
    with naming_extras("penstock.engines.dask", {"distributed": "dask", "dask": "dask"}):
        return import_module("distributed")


def dask(workers: int | None = None, *, address: str | None = None) -> Engine:
    """An engine of up to `workers` workers of a Dask cluster, each of which makes one call at a time.

    It is entered with `async with`, which connects to the cluster (a local one takes some seconds to start, and needs
    `if __name__ == "__main__":` in the program). Functions, arguments and results are pickled; those of `__main__`,
    lambdas and closures go by value, others are imported where they run, with the `sys.path` of this process beside
    that of the worker. Calls run in a thread of their worker. A call that is stopped, by its timeout or by leaving the
    run, really stops: its worker is killed, and its nanny starts a new one, which takes seconds. A worker that dies
    fails the call that it ran with `WorkerLost`.

    Args:
        workers: how many calls can run at once, an int >= 1. None: as many as the cluster has workers when it is
            entered, and of a local one, as there are processors.
        address: that of the scheduler, as "tcp://host:8786". None: what DASK_SCHEDULER_ADDRESS says, or else a local
            cluster.

    Raises:
        OptionError: an argument breaks its rule.
        ModuleNotFoundError: Dask is not installed; the extra `dask` brings it.

    Example:
        async with penstock.engines.dask(address="tcp://head:8786") as engine:
            vectors = penstock.stream(texts).map(embed, engine=engine)
    """
    return Dask(
        _library(),
        None if workers is None else validate.whole("workers", workers, least=1),
        None if address is None else validate.text("address", address),
    )


class _Taken:
    """A worker of the cluster, once there is one; no two of these have the same.

    Attributes:
        address: the worker's; empty until one is found.
    """

    def __init__(self) -> None:
        self.address = ""


class Dask(ClusterEngine):
    """Runs plain functions in workers of Dask; see `dask`."""

    def __init__(self, library: Any, workers: int | None, address: str | None) -> None:
        super().__init__()
        self._dask = library
        self._workers = workers
        self._address = address
        self._name = uuid4().hex
        self._cluster: Any = None
        self._client: Any = None
        self._runner = b""
        self._work = _work_of_workers()
        self._end = _end_of_workers()
        self._watcher = f"penstock {self._name}"
        self._is_watched = False
        self._taken: set[str] = set()

    @override
    def _connect(self) -> int:
        self._runner = runner_by_value(import_module("cloudpickle"))
        address = self._address or import_module("dask").config.get("scheduler-address", None)
        try:
            return self._own() if address is None else self._connected(address)
        except BaseException:
            self._disconnect()
            raise

    def _own(self) -> int:
        """Start a cluster; gives how many workers it has."""
        workers = self._workers or processors()
        try:
            self._cluster = self._dask.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",  # with None it would take port 8787
                scheduler_kwargs={"dashboard": False},
                silence_logs=SILENT,
            )
        except RuntimeError as error:
            rule = 'a program that starts one does so under `if __name__ == "__main__":`'
            raise MisuseError(f"{self.describe()}: a local cluster cannot be started; {rule}: {why(error)}") from error
        self._client = self._dask.Client(self._cluster, set_as_default=False)
        return workers

    def _connected(self, address: str) -> int:
        """Connect to a cluster; gives how many workers are wanted of it."""
        self._client = self._dask.Client(address, set_as_default=False)
        there = self._on_its_loop(self._found()).result()
        if not there:
            what = f"no worker has connected to {address!r} within {CONNECTS:g} s"
            raise OptionError(f"address must be that of a cluster with workers: {what}")
        found = [address for address, has_nanny in there.items() if has_nanny]
        if not found:
            rule = "that of a cluster whose workers have nannies, which kill them where a call is to be stopped"
            raise OptionError(f"address must be {rule}, got {address!r}, where none has one")
        pickle: Any = import_module("distributed.protocol.pickle")
        leave = {"op": "run", "function": pickle.dumps(self._work), "args": pickle.dumps((self._name, "leave"))}
        with suppress(ValueError):  # a scheduler may be told to load nothing: then a call of a killed driver runs on
            watcher = _watcher(self._dask, self._client.id, self._watcher, leave)
            self._client.register_plugin(watcher, name=self._watcher)
            self._is_watched = True
        return self._workers or len(found)

    @override
    def _disconnect(self) -> None:
        client, cluster = self._client, self._cluster
        if client is not None and cluster is None:
            wait([self._call(address, "end") for address in self._taken], GOODBYE)
            if self._is_watched:
                with suppress(Exception):  # the scheduler is gone
                    client.unregister_scheduler_plugin(self._watcher)
        self._client = self._cluster = None
        for each in (client, cluster):
            if each is not None:
                each.close()

    def _on_its_loop[T](self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run this on the loop of Dask."""
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._client.loop.asyncio_loop)
        except BaseException as error:  # noqa: BLE001 -- the engine was closed, or that loop
            coroutine.close()
            failed: Future[T] = Future()
            failed.set_exception(error)
            return failed

    async def _with_nannies(self) -> set[str]:
        """The addresses of the workers that there are, but for those that cannot be killed."""
        return {address for address, has_nanny in (await self._all()).items() if has_nanny}

    async def _all(self) -> dict[str, bool]:
        """The addresses of the workers that there are, and whether each has a nanny."""
        known = await self._client.scheduler.identity()
        return {address: bool(worker["nanny"]) for address, worker in known["workers"].items()}

    async def _found(self) -> dict[str, bool]:
        """The same of a cluster whose workers may be about to connect: wait for the first one."""
        patience = CONNECTS
        while not (found := await self._all()) and patience > 0:
            patience -= LOOK
            await asyncio.sleep(LOOK)
        return found

    @override
    def _start_worker(self) -> tuple[_Taken, Future[None]]:
        worker = _Taken()
        return worker, self._on_its_loop(self._begin(worker))

    async def _begin(self, worker: _Taken) -> None:
        """Take a worker that no other slot has; wait until there is one."""
        patience = EMPTY
        while True:
            there = await self._with_nannies()
            self._taken &= there
            if free := there - self._taken:
                break
            patience = EMPTY if there else patience - LOOK
            if patience <= 0:
                raise TimeoutError(f"the cluster has had no workers for {EMPTY:g} seconds")
            await asyncio.sleep(LOOK)
        worker.address = free.pop()
        self._taken.add(worker.address)
        await self._run(worker.address, "start", self._runner, sys.path)

    @override
    def _watch(self, worker: _Taken) -> None:
        self._await(self._call(worker, "watch"), lambda watched: self._gone(worker, watched))

    @override
    def _call(self, worker: _Taken | str, method: str, *arguments: Any) -> Future[Any]:
        address = worker if isinstance(worker, str) else worker.address
        return self._on_its_loop(self._run(address, method, *arguments))

    async def _run(self, address: str, *arguments: Any) -> Any:
        said = await self._client.run(self._work, self._name, *arguments, workers=[address])
        return loads(said[address])

    @override
    def _kill(self, worker: _Taken) -> None:
        self._on_its_loop(self._end_worker(worker.address))

    async def _end_worker(self, address: str) -> None:
        with suppress(Exception):  # it is dead, or its cluster
            await self._client.run(self._end, workers=[address], nanny=True)

    @override
    def _release(self, worker: _Taken) -> None:
        """Keep it until `_disconnect`."""

    @override
    def _death(self, error: BaseException) -> str | None:
        return f"the worker died: {error}" if isinstance(error, OSError) else None

    @override
    def describe(self) -> str:
        return f"dask({'' if self._workers is None else self._workers})"


def _work_of_workers() -> Callable[..., Any]:
    """What workers are asked to do: it has no name in a module, and so goes by value."""

    async def work(name: str, method: str, *arguments: Any, dask_worker: Any = None) -> bytes:
        import asyncio  # noqa: PLC0415 -- where it runs
        import os  # noqa: PLC0415
        import signal  # noqa: PLC0415
        from pickle import dumps, loads  # noqa: PLC0415

        kept: Any = dask_worker.__dict__.setdefault("penstock_runners", {})
        said = None
        if method == "start":
            runner, *given = arguments
            kept[name] = loads(runner)(*given), asyncio.Event()  # noqa: S301
        elif method == "watch":
            await kept[name][1].wait()
        elif method in {"end", "leave"}:
            runner, ended = kept.pop(name, (None, None))
            if runner is not None:
                if method == "leave" and runner.busy():  # nobody waits for this call any more
                    os.kill(os.getpid(), signal.SIGKILL)
                runner.end()
                ended.set()
        else:
            runner, _ = kept[name]
            said = await asyncio.get_running_loop().run_in_executor(None, getattr(runner, method), *arguments)
        return dumps(said, 5)

    return work


def _end_of_workers() -> Callable[..., Any]:
    """What a nanny is asked to do: it goes by value, too."""

    async def end(dask_worker: Any = None) -> None:
        import os  # noqa: PLC0415
        import signal  # noqa: PLC0415

        os.kill(dask_worker.pid, signal.SIGKILL)

    return end


def _watcher(library: Any, client: str, name: str, leave: dict[str, Any]) -> Any:
    """What the scheduler is given, under a name, to notice that a client is gone; it goes by value, too."""

    class Watcher(library.SchedulerPlugin):  # type: ignore[misc]
        """Sends a message to all workers when the client is removed."""

        def remove_client(self, scheduler: Any, client: str) -> None:
            if client == watched:
                scheduler.remove_plugin(name=name)
                scheduler.loop.add_callback(scheduler.broadcast, msg=leave, on_error="ignore")

    watched = client
    return Watcher()
