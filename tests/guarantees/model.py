"""When a bounded window starts calls and hands over results: a model that shares no code with the real one."""

import heapq


def schedule(durations, pauses, *, concurrency, places, ordered):
    """The times at which calls start, and the (item, time) of each delivery.

    Item `i` takes `durations[i]` seconds; after delivery `k` the consumer is away for `pauses[k]` seconds. The source
    is always ready. No two of the times may fall together, except at 0.
    """
    starts, deliveries = [], []
    running, waiting = [], []
    now = asks_at = 0.0
    while len(deliveries) < len(durations):
        while running and running[0][0] <= now:
            ended, index = heapq.heappop(running)
            heapq.heappush(waiting, (index if ordered else ended, index))
        delivered = asks_at <= now and waiting and (not ordered or waiting[0][1] == len(deliveries))
        if delivered:
            asks_at = now + pauses[len(deliveries)]
            deliveries.append((heapq.heappop(waiting)[1], now))
        while len(starts) < len(durations) and len(running) < concurrency and len(running) + len(waiting) < places:
            heapq.heappush(running, (now + durations[len(starts)], len(starts)))
            starts.append(now)
        if not delivered:
            now = min([end for end, _ in running[:1]] + [asks_at] * (asks_at > now))
    return starts, deliveries
