"""When an ideal window would be done: a simulation that shares no code with penstock."""

import heapq
import math
from collections.abc import Iterable


def finish(latencies: Iterable[float], concurrency: int, buffer: float = math.inf, *, ordered: bool = True) -> float:
    """Seconds until the last result is handed over, with a source and a consumer that take no time.

    Call `i` starts when the one before it has started, a place is free, and, in order, all results up to
    `i - concurrency - buffer` have been handed over.
    """
    running: list[float] = []
    handed_over: list[float] = []
    start = last = 0.0
    for index, latency in enumerate(latencies):
        if len(running) == concurrency:
            start = max(start, heapq.heappop(running))
        if ordered and index >= concurrency + buffer:
            start = max(start, handed_over[index - int(concurrency + buffer)])
        heapq.heappush(running, start + latency)
        last = max(last, start + latency)
        handed_over.append(last)
    return last
