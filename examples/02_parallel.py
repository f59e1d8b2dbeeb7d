"""The same calls one after another, eight at once in order, and eight at once as they finish.

    python examples/02_parallel.py
    python examples/02_parallel.py --calls 200 --concurrency 32

Most calls take 5 ms, one in ten takes 50 ms, as services do. In order, results wait behind a slow call; `buffer` gives
those that wait a place of their own, so that the calls go on. The most that ran at once is counted.
"""

import argparse
import asyncio
import time

import penstock

QUICK, SLOW = 0.005, 0.05


class Service:
    """Counts the calls that it answers at once."""

    def __init__(self) -> None:
        self.running = self.most = 0

    async def answer(self, number: int) -> int:
        """Take a moment, or ten."""
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(SLOW if number % 10 == 0 else QUICK)
            return number * number
        finally:
            self.running -= 1


async def main(calls: int, concurrency: int) -> None:
    """Do it in each way and print a line for each."""
    options = {
        "one after another": {"concurrency": 1},
        "at once, in order": {"concurrency": concurrency},
        "in order, with a buffer": {"concurrency": concurrency, "buffer": 4 * concurrency},
        "as they finish": {"concurrency": concurrency, "ordered": False},
    }
    for way, given in options.items():
        service = Service()
        began = time.perf_counter()
        squares = await penstock.stream(range(calls)).map(service.answer, **given).to_list()
        assert sorted(squares) == [number * number for number in range(calls)]
        print(f"{way:24} {time.perf_counter() - began:6.2f} s, at most {service.most} at once")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100, help="how many (100)")
    parser.add_argument("--concurrency", type=int, default=8, help="how many at once (8)")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.calls, arguments.concurrency))
