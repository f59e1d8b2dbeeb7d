# ruff: noqa: INP001, T201 -- a program that prints
"""Run calls on a Ray cluster of three nodes on this machine, one of which is killed: is a result lost, or there twice?

Exits with 1 if the count of one item is not one.
"""

import argparse
import asyncio
import os
import sys
import time
from collections import Counter
from importlib import import_module
from typing import Any

import penstock

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
AGAIN = penstock.Retry(on=penstock.WorkerLost, attempts=10, initial=0)


def work(number: int) -> int:
    """Take 10 ms."""
    time.sleep(0.01)
    return number


async def run(items: int) -> int:
    """Send the items through, and count what came out wrong."""
    cluster: Any = import_module("ray.cluster_utils").Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    seen: Counter[int] = Counter()
    try:
        async with penstock.engines.ray(address=cluster.address) as engine:
            print(f"{engine.slots()} workers on a head and {len(nodes)} nodes", flush=True)
            async with penstock.stream(range(items)).map(work, engine=engine, retry=AGAIN).open() as results:
                async for number in results:
                    seen[number] += 1
                    if number == items // 4:
                        await asyncio.to_thread(cluster.remove_node, nodes.pop(), allow_graceful=False)
                        print(f"{len(seen):,} results, a node killed", flush=True)
    finally:
        cluster.shutdown()
    lost = sum(number not in seen for number in range(items))
    twice = sum(count > 1 for count in seen.values())
    print(f"{items:,} items: {lost} lost, {twice} twice")
    return lost + twice


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("items", type=int, nargs="?", default=1000)
    sys.exit(min(1, asyncio.run(run(parser.parse_args().items))))
