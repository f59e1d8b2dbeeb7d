"""How many requests go to a host, and when: in virtual time, with a client that takes a second for each."""

import asyncio
from collections import Counter, defaultdict

import pytest

from penstock.workflows import Fetcher, FetchRow
from penstock.workflows.fetching.responses import Fetched


class Slow:
    """Answers after a second, as `script` says for a host, and then well; notes when each request began."""

    def __init__(self, clock, script=()):
        self.began, self.most = defaultdict(list), Counter()
        self._clock, self._now = clock, Counter()
        self._script = defaultdict(list, script)

    async def get(self, place, known):
        host = place.host
        self.began[host].append(self._clock.now)
        self._now[host] += 1
        self.most[host] = max(self.most[host], self._now[host])
        await asyncio.sleep(1)
        self._now[host] -= 1
        return self._script[host].pop(0) if self._script[host] else Fetched(200, None, "x", is_new=True)


def urls(*hosts):
    return [FetchRow(number, {"a": f"http://{host}/{number}"}) for number, host in enumerate(hosts)]


async def records(client, rows, **options):
    fetcher = Fetcher(**options)
    fetcher._client = client
    return await fetcher.pipeline.to_list(rows)


async def test_a_host_that_is_full_holds_no_place_of_another(clock):
    """Of 8 places a host has 2, and those that wait for it leave the other 6 free."""
    client = Slow(clock)
    found = await records(client, urls(*["a"] * 12, *["b"] * 2, *["c"] * 2), concurrency=8, per_host=2)
    assert len(found) == 16
    assert client.most == {"a": 2, "b": 2, "c": 2}
    assert client.began["b"] == client.began["c"] == [0, 0]
    assert client.began["a"] == [second for second in range(6) for _ in range(2)]


async def test_a_rate_is_one_for_each_host(clock):
    client = Slow(clock)
    await records(client, urls("a", "b", "a", "b", "a"), rate="2/s")
    assert client.began == {"a": pytest.approx([0, 0.5, 1]), "b": pytest.approx([0, 0.5])}


async def test_a_try_waits_as_long_as_the_server_asks_and_counts_for_the_rate(clock):
    again = Fetched(503, "503", again=True, retry_after=17)
    client = Slow(clock, {"a": [again, again]})
    (record,) = await records(client, urls("a"), retry=3, rate="3/min")
    assert record["a_status"] == 200
    assert client.began["a"] == pytest.approx([0, 20, 40])


async def test_without_a_word_of_the_server_waits_grow(clock, monkeypatch):
    monkeypatch.setattr("random.uniform", lambda least, most: 1.0)
    again = Fetched(error="no", again=True)
    client = Slow(clock, {"a": [again] * 3})
    await records(client, urls("a"), retry=4)
    assert client.began["a"] == pytest.approx([0, 1.5, 3.5, 6.5])


async def test_a_host_that_asks_for_a_wait_is_left_alone_meanwhile(clock):
    """And the others are not."""
    client = Slow(clock, {"a": [Fetched(503, "503", again=True, retry_after=17)]})
    found = await records(client, urls("a", "b", "a", "b", "a"), per_host=1)
    assert len(found) == 5
    assert client.began["b"] == [0, 1]
    assert client.began["a"][0] == 0
    assert min(client.began["a"][1:]) == pytest.approx(18)
    assert len(client.began["a"]) == 4
