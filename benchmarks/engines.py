"""Calls on each engine beside libraries that run such calls, in one run: elapsed and processor time of the driver.

    tools/bench engines [--rounds 5] [--only process,pool] [--calls "50 us,1 ms"] [--quick]

All have two workers, which are started before and warm. Calls take processor time, so that a driver that keeps a
processor busy is seen. What takes chunks is given the best chunk size of some, looked for before. Pools, Ray and Dask
are measured one after the other, since a cluster keeps processors busy that has nothing to do; each kind of calls is
shown when it has been measured. Of one kind, all of a family take turns.
"""

import argparse
import asyncio
import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import batched, chain
from pathlib import Path
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
def streaming(engine, **options):
    """The engine of penstock, on a loop of its own."""
    with asyncio.Runner() as runner:
        opened = runner.run(engine.__aenter__())

        async def streamed(fn, items):
            seen = 0
            async with penstock.stream(items).map(fn, engine=opened, **options).open() as results:
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


def pools(_):
    return (
        Contender("no worker", "a loop in this process", plainly, but=("8 MB",)),
        Contender("sockets", "an echo by hand, one after the other", sockets, only=("8 MB",)),
        Contender("penstock process", "engine='process'", lambda: streaming(engines.processes(WORKERS))),
        Contender("Pool", "multiprocessing.Pool.imap in chunks", pool, chunked=True),
        Contender("ProcessPoolExecutor", "map(chunksize=)", executor, chunked=True),
        Contender("pebble", "ProcessPool.map(chunksize=)", pebble, chunked=True),
        Contender("mpire", "WorkerPool.imap(chunk_size=)", mpire, chunked=True),
        Contender("joblib", "Parallel with loky, which finds its batches", joblib),
    )


def on_ray(_):
    return (
        Contender("penstock ray", "engine=ray(...)", ray_engine, but=("trivial",)),
        Contender("penstock ray, 512", "and concurrency=512", lambda: ray_engine(concurrency=512), but=("8 MB",)),
        Contender(
            "penstock ray, 1024",
            "and concurrency=1024",
            lambda: ray_engine(concurrency=1024),
            only=("trivial", "50 us"),
        ),
        Contender("Ray, in groups", "tasks of so many items, by hand", ray_groups, chunked=True),
        Contender("Ray, a task each", "one task an item", ray_tasks, slower=20),
        Contender("Ray Data", "from_items(...).map(...)", ray_data, slower=4, but=("8 MB",)),
    )


def on_dask(clusters):
    return (
        Contender("penstock dask", "engine=dask(...)", lambda: streaming(engines.dask(address=clusters.address))),
        Contender(
            "Dask, in groups", "futures of so many items, by hand", lambda: dask_groups(clusters.address), chunked=True
        ),
    )


FAMILIES = {"pools": pools, "ray": on_ray, "dask": on_dask}


def ray_engine(**options):
    return streaming(engines.ray(WORKERS, num_cpus=0), **options)


class Clusters:
    """Clusters of Ray and Dask on this machine, which end with the stack."""

    def __init__(self, stack):
        self._stack = stack
        self.address = ""

    def start(self, family):
        """Start the one that this family needs."""
        if family == "ray":
            self._ray()
        elif family == "dask":
            self._dask()

    def _ray(self):
        import ray  # noqa: PLC0415 workers import this module, too

        ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level=40)
        self._stack.callback(ray.shutdown)

    def _dask(self):
        import distributed  # noqa: PLC0415 workers import this module, too

        cluster = distributed.LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
        )
        self.address = self._stack.enter_context(cluster).scheduler_address


def processor_time():
    """Seconds of this process and all below it, so far; what has ended is left out."""
    parents, seconds = {}, {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[place.name] = (place / "stat").read_text().rpartition(")")[2].split()[1]
            seconds[place.name] = sum(int(each.read_text().split()[0]) for each in place.glob("task/*/schedstat")) / 1e9
    below, found = [str(os.getpid())], 0.0
    while below:
        found += sum(seconds.get(number, 0.0) for number in below)
        below = [number for number, parent in parents.items() if parent in below]
    return found


class Bench:
    """The cases of one run, and what the driver and everybody took for each."""

    def __init__(self, runs, chunks, divisor):
        self.runs = runs
        self._chunks = chunks
        self._divisor = divisor
        self._cpu = {}

    def forget_cpu(self, contender, name):
        """Leave out what it took to get ready."""
        self._cpu[contender.name, name].clear()

    def driver(self, row, name):
        """Processor time of the driver, us an item."""
        return median(driver for driver, _ in self._cpu[row, name])

    def everybody(self, row, name):
        """Processor time of the driver and of all that work for it, us an item."""
        return median(everybody for _, everybody in self._cpu[row, name])

    def case(self, contender, name):
        """One cell: this contender makes calls of that kind."""
        calls = CALLS[name]
        small = name != "8 MB"
        count = max(1, calls.count // (contender.slower if small else 1) // (self._divisor if small else 1))
        chunk = self._chunks.get((contender.name, name), 1)
        run = self.runs[contender.name]
        cpu = self._cpu.setdefault((contender.name, name), [])

        def once(_):
            items = calls.items(count)
            everybody, wall, driver = processor_time(), time.perf_counter(), time.process_time()
            seen = sum(1 for _ in run(calls.fn, items, chunk))
            wall, driver = time.perf_counter() - wall, time.process_time() - driver
            cpu.append((driver / count * 1e6, (processor_time() - everybody) / count * 1e6))
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


def is_peer(row):
    """Whether it is another library, or by hand."""
    return not row.startswith(("penstock", "no worker", "sockets"))


class Report:
    """What was found, a block of rows at a time, and then as a whole."""

    def __init__(self, bench, chunks):
        self._bench = bench
        self._chunks = chunks
        self._met = set()
        self.cells = {}

    def block(self, family, name, cells):
        """Print what one kind of calls took in one family, beside the quickest by hand, and the aims that are of it."""
        self.cells.update(cells)
        peers = [cell.median for case, cell in cells.items() if is_peer(case.row)]
        thrifty = [self._bench.everybody(case.row, name) for case in cells if is_peer(case.row)]
        lines = [(f"{name}, {family}: us an item", "elapsed", "", "all processor time", "", "driver", "half within")]
        for case, cell in cells.items():
            everybody, driver = self._bench.everybody(case.row, name), self._bench.driver(case.row, name)
            of_quickest = f"{cell.median / min(peers):.2f}x" if peers else ""
            of_thriftiest = f"{everybody / min(thrifty):.2f}x" if thrifty else ""
            row = case.row + self._sized(case.row, name)
            figures = f"{everybody:,.1f}", of_thriftiest, f"{driver:,.1f}", f"{cell.spread:.0%}"
            lines.append((row, self._text(cell), of_quickest, *figures))
        print(aligned(lines), end="\n\n")
        for aim in aims(self.cells, self._bench):
            if aim.what not in self._met:
                self._met.add(aim.what)
                what, *row = aim.row()
                print(f"{what}: {', '.join(row)}")
        print(flush=True)

    def table(self, names):
        """Print all that was found."""
        columns = [name for name in names if any(case.table == name for case in self.cells)]
        lines = [("us an item: elapsed / all processor time", *columns)]
        for row in dict.fromkeys(case.row for case in self.cells):
            line = [row]
            for name in columns:
                cell = next((cell for case, cell in self.cells.items() if (case.row, case.table) == (row, name)), None)
                text = "" if cell is None else f"{self._text(cell)} / {self._bench.everybody(row, name):,.1f}"
                line.append(text + self._sized(row, name))
            lines.append(line)
        print(aligned(lines))
        spread = max(cell.spread for cell in self.cells.values())
        print(f"\nhalf the runs lie within {spread:.0%} of their median (widest cell)")

    def _text(self, cell):
        return f"{cell.median:,.1f}" + (f" LOST {cell.lost}" if cell.lost else "")

    def _sized(self, row, name):
        return f" in {chunk}s" if (chunk := self._chunks.get((row, name), 0)) > 1 else ""


BY_HAND = ("Pool", "ProcessPoolExecutor", "pebble", "mpire", "joblib")


def aims(cells, bench):
    found = {(case.row, case.table): cell.median for case, cell in cells.items()}
    most = {"50 us": 1.25, "1 ms": 1.25, "bimodal": 1.25}
    for name, limit in most.items():
        process, best = found.get(("penstock process", name)), found.get(("Pool", name))
        if process and best:
            yield Aim(f"{name}: penstock process, time over that of Pool in the best chunks", process / best, limit)
        others = [found[each, name] for each in BY_HAND if (each, name) in found]
        if process and len(others) > 1:
            yield Aim(f"{name}: penstock process, time over that of the quickest pool", process / min(others), limit)
            least = min(bench.everybody(each, name) for each in BY_HAND if (each, name) in found)
            share = bench.everybody("penstock process", name) / least
            yield Aim(f"{name}: penstock process, all processor time over that of the thriftiest pool", share, limit)
    if process := found.get(("penstock process", "trivial")):
        yield Aim("trivial: penstock process, us", process, 20, form="{:.1f}")
    process, floor = found.get(("penstock process", "8 MB")), found.get(("sockets", "8 MB"))
    if process and floor:
        yield Aim("8 MB: penstock process, time over that of sockets by hand", process / floor, 1.3)
        share = bench.everybody("penstock process", "8 MB") / bench.everybody("sockets", "8 MB")
        yield Aim("8 MB: penstock process, all processor time over that of sockets by hand", share, 1.3)
    default, single, groups = (
        found.get((who, "50 us")) for who in ("penstock ray", "Ray, a task each", "Ray, in groups")
    )
    if default and single:
        yield Aim("50 us: penstock ray, speed over a task each", single / default, 10, at_least=True)
    for places, row in (("128", "penstock ray"), ("512", "penstock ray, 512"), ("1,024", "penstock ray, 1024")):
        if groups and (ray := found.get((row, "50 us"))):
            share = bench.everybody(row, "50 us") / bench.everybody("Ray, in groups", "50 us")
            what = f"50 us: penstock ray with {places} places"
            yield Aim(f"{what}, time over groups by hand", ray / groups, 1.25)
            yield Aim(f"{what}, all processor time over groups by hand", share, 1.25)


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
    chunks = {}
    bench = Bench({}, chunks, 10 if given.quick else 1)
    report = Report(bench, chunks)
    for family, among in FAMILIES.items():
        with ExitStack() as stack:
            clusters = Clusters(stack)
            chosen = [
                each for each in among(clusters) if not wanted or any(part in each.name.lower() for part in wanted)
            ]
            if chosen:
                clusters.start(family)
            for each in chosen:
                bench.runs[each.name] = stack.enter_context(each.open())
            for name in names:
                if takes_part := [each for each in chosen if name in each.only and name not in each.but]:
                    report.block(family, name, measured(bench, takes_part, name, 3 if given.quick else given.rounds))
    report.table(names)
    print_aims(list(aims(report.cells, bench)))


def measured(bench, contenders, name, rounds):
    """What calls of that kind take these."""
    for each in contenders:
        if each.chunked:
            bench.look_for_chunk(each, name)
        else:
            bench.case(each, name).once("elapsed")
        bench.forget_cpu(each, name)
    return interleave([bench.case(each, name) for each in contenders], rounds)


if __name__ == "__main__":
    main()
