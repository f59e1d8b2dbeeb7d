"""Calls on each engine beside libraries that run such calls, in one run: elapsed and processor time of the driver.

    tools/bench engines [--rounds 5] [--only process,pool] [--calls "50 us,1 ms"] [--quick]

All have two workers, which are started before and warm. Calls take processor time, so that a driver that keeps a
processor busy is seen. What takes chunks is given the best chunk size of some, looked for before. All take turns.
"""

import argparse
import asyncio
import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import batched, chain
from statistics import median

import numpy as np
from aims import Aim, print_aims
from timing import Case, aligned, busyness, interleave, machine

import penstock
from penstock import engines

WORKERS = 2
CHUNKS = (1, 16, 64, 256)


# The calls


def trivial(number):
    return number


def spin(seconds):
    ends = time.thread_time() + seconds
    while time.thread_time() < ends:
        pass


def call_of_50_us(number):
    spin(50e-6)
    return number


def call_of_1_ms(number):
    spin(1e-3)
    return number


def bimodal(number):
    spin(50e-3 if number % 100 == 50 else 10e-6)
    return number


def same(array):
    return array


def many(fn, items):
    return [fn(item) for item in items]


@dataclass(frozen=True)
class Calls:
    """A kind of call, and how many of it make a run; `items(n)` are what they are called with."""

    fn: Callable
    count: int
    items: Callable = range


def arrays(count):
    array = np.ones(1_000_000)
    return (array for _ in range(count))


CALLS = {
    "trivial": Calls(trivial, 20_000),
    "50 us": Calls(call_of_50_us, 10_000),
    "1 ms": Calls(call_of_1_ms, 1_000),
    "bimodal": Calls(bimodal, 1_000),
    "8 MB": Calls(same, 32, arrays),
}


# Who makes them. A contender is a context that gives `run(fn, items, chunk) -> results`, in the order of the items.


@contextmanager
def plainly():
    yield lambda fn, items, _: map(fn, items)


@contextmanager
def sockets():
    """A process that sends back what it gets: no library can be quicker with something large."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    echo = multiprocessing.get_context("spawn").Process(target=echoing, args=(there,), daemon=True)
    echo.start()
    there.close()

    def run(_, items, __):
        for array in items:
            here.send(array.nbytes)
            write_all(here.fileno(), memoryview(array).cast("B"))
            target = bytearray(array.nbytes)
            read_all(here.fileno(), target)
            yield np.frombuffer(target)

    yield run
    here.close()
    echo.join()


def echoing(pipe):
    try:
        while True:
            target = bytearray(pipe.recv())
            read_all(pipe.fileno(), target)
            write_all(pipe.fileno(), memoryview(target))
    except EOFError:
        return


def read_all(fd, target):
    view = memoryview(target)
    while view:
        view = view[os.readv(fd, [view]) :]


def write_all(fd, view):
    while view:
        view = view[os.write(fd, view) :]


@contextmanager
def pool():
    with multiprocessing.get_context("spawn").Pool(WORKERS) as workers:
        yield workers.imap


@contextmanager
def executor():
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as workers:
        yield lambda fn, items, chunk: workers.map(fn, items, chunksize=chunk)


@contextmanager
def pebble():
    from pebble import ProcessPool  # noqa: PLC0415 workers import this module, too

    with ProcessPool(WORKERS, context=multiprocessing.get_context("spawn")) as workers:
        yield lambda fn, items, chunk: workers.map(fn, items, chunksize=chunk).result()


@contextmanager
def mpire():
    from mpire import WorkerPool  # noqa: PLC0415 workers import this module, too

    with WorkerPool(WORKERS, start_method="spawn", keep_alive=True) as workers:

        def run(fn, items, chunk):
            items = list(items)
            return workers.imap(fn, items, iterable_len=len(items), chunk_size=chunk)

        yield run


@contextmanager
def joblib():
    from joblib import Parallel, delayed  # noqa: PLC0415 workers import this module, too

    with Parallel(WORKERS) as parallel:  # it finds the size of its batches itself
        yield lambda fn, items, _: parallel(delayed(fn)(item) for item in items)


@contextmanager
def ray_tasks():
    import ray  # noqa: PLC0415 workers import this module, too

    def run(fn, items, _):
        task = ray.remote(fn)
        yield from ray.get([task.remote(item) for item in items])

    yield run


@contextmanager
def ray_groups():
    import ray  # noqa: PLC0415 workers import this module, too

    def run(fn, items, chunk):
        task = ray.remote(many)
        yield from chain.from_iterable(ray.get([task.remote(fn, group) for group in batched(items, chunk)]))

    yield run


@contextmanager
def ray_data():
    import ray  # noqa: PLC0415 workers import this module, too

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)

    def run(fn, items, _):
        rows = ray.data.from_items(list(items)).map(lambda row: {"item": fn(row["item"])})
        return (row["item"] for row in rows.iter_rows())

    yield run


@contextmanager
def dask_groups(cluster):
    import distributed  # noqa: PLC0415 workers import this module, too

    with distributed.Client(cluster, set_as_default=False) as client:

        def run(fn, items, chunk):
            groups = [client.submit(many, fn, group, pure=False) for group in batched(items, chunk)]
            return chain.from_iterable(client.gather(groups))

        yield run


@contextmanager
def streaming(engine):
    """The engine of penstock, on a loop of its own."""
    with asyncio.Runner() as runner:
        opened = runner.run(engine.__aenter__())

        async def streamed(fn, items):
            seen = 0
            async with penstock.stream(items).map(fn, engine=opened).open() as results:
                async for _ in results:
                    seen += 1
            return range(seen)

        try:
            yield lambda fn, items, _: runner.run(streamed(fn, items))
        finally:
            runner.run(opened.aclose())


@dataclass(frozen=True)
class Contender:
    """Who makes calls; `slower` divides the number of small calls, which keeps the whole within minutes.

    `chunked`: it is told a chunk size; `only`, `but`: the calls that it is for, and not for.
    """

    name: str
    note: str
    open: Callable
    chunked: bool = False
    slower: int = 1
    only: tuple[str, ...] = tuple(CALLS)
    but: tuple[str, ...] = ()


def contenders(cluster):
    return (
        Contender("no worker", "a loop in this process", plainly, but=("8 MB",)),
        Contender("sockets", "an echo by hand, one after the other", sockets, only=("8 MB",)),
        Contender("penstock process", "engine='process'", lambda: streaming(engines.processes(WORKERS))),
        Contender("Pool", "multiprocessing.Pool.imap in chunks", pool, chunked=True),
        Contender("ProcessPoolExecutor", "map(chunksize=)", executor, chunked=True),
        Contender("pebble", "ProcessPool.map(chunksize=)", pebble, chunked=True),
        Contender("mpire", "WorkerPool.imap(chunk_size=)", mpire, chunked=True),
        Contender("joblib", "Parallel with loky, which finds its batches", joblib),
        Contender(
            "penstock ray", "engine=ray(...)", lambda: streaming(engines.ray(WORKERS, num_cpus=0)), but=("trivial",)
        ),
        Contender("Ray, in groups", "tasks of so many items, by hand", ray_groups, chunked=True),
        Contender("Ray, a task each", "one task an item", ray_tasks, slower=20),
        Contender("Ray Data", "from_items(...).map(...)", ray_data, slower=4, but=("8 MB",)),
        Contender("penstock dask", "engine=dask(...)", lambda: streaming(engines.dask(address=cluster()))),
        Contender("Dask, in groups", "futures of so many items, by hand", lambda: dask_groups(cluster()), chunked=True),
    )


class Clusters:
    """Clusters of Ray and Dask on this machine, each made when it is first wanted."""

    def __init__(self, stack):
        self._stack = stack
        self._dask = None

    def ray(self):
        import ray  # noqa: PLC0415 workers import this module, too

        if not ray.is_initialized():
            ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level=40)
            self._stack.callback(ray.shutdown)

    def dask(self):
        import distributed  # noqa: PLC0415 workers import this module, too

        if self._dask is None:
            self._dask = self._stack.enter_context(
                distributed.LocalCluster(
                    n_workers=WORKERS,
                    threads_per_worker=1,
                    dashboard_address="127.0.0.1:0",
                    scheduler_kwargs={"dashboard": False},
                    silence_logs=logging.CRITICAL,
                )
            )
        return self._dask.scheduler_address


class Bench:
    """The cases of one run, and what the driver took for each."""

    def __init__(self, runs, chunks, divisor):
        self._runs = runs
        self._chunks = chunks
        self._divisor = divisor
        self.cpu = {}

    def case(self, contender, name):
        """One cell: this contender makes calls of that kind."""
        calls = CALLS[name]
        small = name != "8 MB"
        count = max(1, calls.count // (contender.slower if small else 1) // (self._divisor if small else 1))
        chunk = self._chunks.get((contender.name, name), 1)
        run = self._runs[contender.name]
        cpu = self.cpu.setdefault((contender.name, name), [])

        def once(_):
            items = calls.items(count)
            wall, driver = time.perf_counter(), time.process_time()
            seen = sum(1 for _ in run(calls.fn, items, chunk))
            wall, driver = time.perf_counter() - wall, time.process_time() - driver
            cpu.append(driver / count * 1e6)
            return wall, seen

        return Case(name, contender.name, name, count, once)

    def look_for_chunk(self, contender, name):
        """Find the chunk size with which it is quickest."""
        walls = {}
        for chunk in CHUNKS if name != "8 MB" else (1,):
            self._chunks[contender.name, name] = chunk
            once = self.case(contender, name).once
            walls[chunk] = min(once("elapsed")[0] for _ in range(2))
        self._chunks[contender.name, name] = min(walls, key=walls.get)


def report(cells, bench, chunks, names):
    columns = [name for name in names if any(case.table == name for case in cells)]
    lines = [("us an item: elapsed / processor time of the driver", *columns)]
    for row in dict.fromkeys(case.row for case in cells):
        line = [row]
        for name in columns:
            cell = next((cell for case, cell in cells.items() if (case.row, case.table) == (row, name)), None)
            text = "" if cell is None else f"{cell.median:,.1f} / {median(bench.cpu[row, name]):,.1f}"
            text += f" in {chunk}s" if (chunk := chunks.get((row, name), 0)) > 1 else ""
            line.append(text + (f" LOST {cell.lost}" if cell is not None and cell.lost else ""))
        lines.append(line)
    print(aligned(lines))
    spread = max(cell.spread for cell in cells.values())
    print(f"\nhalf the runs lie within {spread:.0%} of their median (widest cell)")


BY_HAND = ("Pool", "ProcessPoolExecutor", "pebble", "mpire", "joblib")


def aims(cells):
    found = {(case.row, case.table): cell.median for case, cell in cells.items()}
    most = {"50 us": 1.25, "1 ms": 1.25, "bimodal": 1.25}
    for name, limit in most.items():
        process, best = found.get(("penstock process", name)), found.get(("Pool", name))
        if process and best:
            yield Aim(f"{name}: penstock process, time over that of Pool in the best chunks", process / best, limit)
        others = [found[each, name] for each in BY_HAND if (each, name) in found]
        if process and len(others) > 1:
            yield Aim(f"{name}: penstock process, time over that of the quickest pool", process / min(others), limit)
    if process := found.get(("penstock process", "trivial")):
        yield Aim("trivial: penstock process, us", process, 20, form="{:.1f}")
    process, floor = found.get(("penstock process", "8 MB")), found.get(("sockets", "8 MB"))
    if process and floor:
        yield Aim("8 MB: penstock process, time over that of sockets by hand", process / floor, 1.3)
    ray, single, groups = (found.get((who, "50 us")) for who in ("penstock ray", "Ray, a task each", "Ray, in groups"))
    if ray and single and groups:
        yield Aim("50 us: penstock ray, speed over a task each", single / ray, 10, at_least=True)
        yield Aim("50 us: penstock ray, time over groups by hand", ray / groups, 1.25)


def main():
    parser = argparse.ArgumentParser(
        prog="bench engines", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="3 rounds of a tenth of the calls: a look, not a result")
    parser.add_argument("--calls", default=",".join(CALLS), help="kinds of calls, with commas between")
    parser.add_argument(
        "--only", default="", help="contenders whose names have one of these in them, with commas between"
    )
    given = parser.parse_args()
    names = given.calls.split(",")
    wanted = [each for each in given.only.split(",") if each]
    print(machine(["penstock", "mpire", "joblib", "pebble", "ray", "distributed"]))
    print(busyness(), end="\n\n", flush=True)
    with ExitStack() as stack:
        clusters = Clusters(stack)
        chosen = [
            each
            for each in contenders(clusters.dask)
            if not wanted or any(part in each.name.lower() for part in wanted)
        ]
        runs, chunks = {}, {}
        for each in chosen:
            if "ray" in each.name.lower():
                clusters.ray()
            runs[each.name] = stack.enter_context(each.open())
        bench = Bench(runs, chunks, 10 if given.quick else 1)
        taking_part = [(each, name) for each in chosen for name in names if name in each.only and name not in each.but]
        for each, name in taking_part:
            if each.chunked:
                bench.look_for_chunk(each, name)
            else:
                bench.case(each, name).once("elapsed")
        bench.cpu.clear()
        cells = interleave([bench.case(*pair) for pair in taking_part], 3 if given.quick else given.rounds)
        report(cells, bench, chunks, names)
        print_aims(list(aims(cells)))


if __name__ == "__main__":
    main()
