"""Calls in worker processes against multiprocessing.Pool, in one run: wall time and processor time of the driver.

    python benchmarks/processes.py [--items 20000] [--workers 2]

`one by one` and `groups` are the engine itself, a group there and back before the next one. `stream` is
`stream(items).map(fn, engine="process")`, `imap` is `Pool.imap` with the best chunk size of some.
"""

import argparse
import asyncio
import multiprocessing
import resource
import time

import numpy as np

import penstock
from penstock.engines import Call, processes


def trivial(number):
    return number


def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
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


CALLS = {"trivial": (trivial, 1), "50 us": (call_of_50_us, 1), "1 ms": (call_of_1_ms, 8), "bimodal": (bimodal, 8)}
CHUNKS = (1, 16, 64, 256)


class Timed:
    def __enter__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_):
        self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu

    def each(self, count):
        return f"{self.wall / count * 1e6:9.1f} /{self.cpu / count * 1e6:7.1f}"


async def with_engine(fn, count, workers, group):
    async with processes(workers) as engine:
        prepared = engine.prepare(fn)
        await asyncio.gather(*(engine.submit([Call(prepared, (0,))]) for _ in range(workers)))
        with Timed() as timed:
            for start in range(0, count, group):
                await engine.submit([Call(prepared, (start + n,)) for n in range(group)])
    return timed


async def with_stream(fn, count, workers):
    async with processes(workers) as engine:
        await penstock.stream(range(workers * 64)).map(fn, engine=engine).drain()
        with Timed() as timed:
            await penstock.stream(range(count)).map(fn, engine=engine).count()
    return timed


def with_pool(fn, count, pool, chunk):
    list(pool.imap(fn, range(chunk * 4), chunk))
    with Timed() as timed:
        for _ in pool.imap(fn, range(count), chunk):
            pass
    return timed


async def arrays_with_engine(array, rounds):
    async with processes(1) as engine:
        prepared = engine.prepare(same)
        await engine.submit([Call(prepared, (array,))])
        with Timed() as timed:
            for _ in range(rounds):
                await engine.submit([Call(prepared, (array,))])
    return timed


def arrays_with_pool(array, rounds):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(same, (array,))
        with Timed() as timed:
            for _ in range(rounds):
                pool.apply(same, (array,))
    return timed


def copies(array, rounds):
    with Timed() as timed:
        for _ in range(rounds):
            array.copy().copy()
    return timed


def compare(name, fn, count, workers, pool):
    few, whole = count // 10, count // 64 * 64
    print(f"\n{name}, {count} calls, {workers} workers")
    print(f"  one by one   {asyncio.run(with_engine(fn, few, workers, 1)).each(few)}")
    print(f"  groups of 64 {asyncio.run(with_engine(fn, whole, 1, 64)).each(whole)}  (one worker)")
    stream = asyncio.run(with_stream(fn, count, workers))
    print(f"  stream       {stream.each(count)}")
    imaps = {chunk: with_pool(fn, count, pool, chunk) for chunk in CHUNKS}
    best = min(imaps, key=lambda chunk: imaps[chunk].wall)
    times = stream.wall / imaps[best].wall
    print(f"  imap         {imaps[best].each(count)}  (chunks of {best}; stream takes {times:.2f} times as long)")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    print("us an item: wall / processor time of the driver")
    with multiprocessing.get_context("spawn").Pool(given.workers) as pool:
        for name, (fn, fewer) in CALLS.items():
            compare(name, fn, given.items // fewer, given.workers, pool)
    array = np.ones(1_000_000)
    print(f"\n8 MB there and back, ms: engine {arrays_with_engine_ms(array):.1f}, ", end="")
    print(f"Pool {arrays_with_pool(array, 10).wall * 100:.1f}, two copies in memory {copies(array, 10).wall * 100:.1f}")
    print(f"largest memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


def arrays_with_engine_ms(array):
    return asyncio.run(arrays_with_engine(array, 30)).wall / 30 * 1e3


if __name__ == "__main__":
    main()
