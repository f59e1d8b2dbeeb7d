"""Limits with keys: a limit for each key, and calls that wait for their key hold no place of the window."""

import asyncio
from collections import Counter, defaultdict
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import penstock
from penstock import Limiter, OptionError, RateLimit, Retry
from penstock.sinks import SqliteTable
from penstock.testing import Gauge

pytestmark = pytest.mark.grid


def first(item):
    return item[0]


def pairs(*counts):
    """`pairs("aab")` is ("a", 0), ("a", 1), ("b", 0)."""
    seen = Counter()
    made = []
    for key in "".join(counts):
        made.append((key, seen[key]))
        seen[key] += 1
    return made


class Calls:
    """Work that takes a second (or as long as `seconds` says of a key), and what was seen of it."""

    def __init__(self, clock, **seconds):
        self.clock = clock
        self.seconds = seconds
        self.all = Gauge()
        self.by_key = defaultdict(Gauge)
        self.began = {}

    async def __call__(self, item):
        self.began[item] = self.clock.now
        with self.all, self.by_key[item[0]]:
            await asyncio.sleep(self.seconds.get(item[0], 1))
        return item


async def test_each_key_has_a_limit_of_its_own(clock):
    calls, hosts = Calls(clock), Limiter(2, key=first)
    items = pairs("ab" * 6)
    results = penstock.stream(items).map(calls, concurrency=12, limit=hosts)
    assert await results.to_list() == items
    assert {key: gauge.peak for key, gauge in calls.by_key.items()} == {"a": 2, "b": 2}
    assert (clock.now, hosts.in_use, hosts.waiting) == (3.0, 0, 0)


async def test_who_waits_for_a_key_holds_no_place(clock):
    """P1: with one place, and room for those that wait, the items of another key go on while a key is in use."""
    calls, hosts = Calls(clock), Limiter(1, key=first)
    async with hosts.hold(1, "a"):
        stream = penstock.stream(pairs("aaabbb")).map(calls, concurrency=1, buffer=3, ordered=False, limit=hosts)
        async with stream.open() as run:
            assert [await anext(run) for _ in range(3)] == pairs("bbb")
            stats = run.stats()[1]
            assert (stats.aside, stats.peak_aside, stats.peak_running, stats.in_flight) == (3, 3, 1, 3)
            assert calls.all.peak == 1


async def test_in_order_a_head_that_waits_for_its_key_does_not_lock_the_window(clock):
    """Its place is free and all room is taken by results behind it: it must come in all the same."""
    calls, hosts = Calls(clock), Limiter(1, key=first)

    async def hold():
        async with hosts.hold(1, "a"):
            await asyncio.sleep(5)

    holding = asyncio.create_task(hold())
    await asyncio.sleep(0)
    items = pairs("abbbb")
    assert await penstock.stream(items).map(calls, concurrency=1, buffer=2, limit=hosts).to_list() == items
    await holding
    assert calls.began["a", 0] == 5.0
    assert calls.all.peak == 1


async def test_the_window_holds_no_more_than_its_bound(clock):
    """P1: what is aside is not settled; `buffer` is the room for it."""
    calls, taken = Calls(clock), []
    source = (taken.append(number) or ("a", number) for number in range(1000))
    stream = penstock.stream(source).map(calls, concurrency=4, buffer=5, limit=Limiter(1, key=first))
    async with stream.open() as run:
        for number in range(20):
            assert await anext(run) == ("a", number)
            assert len(taken) <= number + 1 + 9
            assert run.stats()[1].peak_in_flight <= 9


async def test_the_source_is_not_read_ahead_of_a_free_place(clock):
    """P2: while every place runs, room for those that wait is no reason to read on."""
    taken = []
    source = (taken.append(number) or (number, number) for number in range(100))
    stream = penstock.stream(source).map(Calls(clock), concurrency=2, buffer=50, limit=Limiter(1, key=first))
    async with stream.open() as run:
        await anext(run)
        assert len(taken) <= 4


async def test_a_busy_key_starves_nobody(clock):
    """Of a hundred items of one key and ten of others, the others are done in their turn."""
    calls, hosts = Calls(clock), Limiter(2, key=first)
    items = pairs("aaaaaaaaaab" * 10)
    stream = penstock.stream(items).map(calls, concurrency=4, buffer=96, ordered=False, limit=hosts)
    await stream.drain()
    assert max(calls.began["b", number] for number in range(10)) <= 10
    assert clock.now == 50.0


async def test_who_has_its_key_comes_in_before_new_items(clock):
    """Items of ever new keys cannot keep out one that has waited for its key."""
    calls, hosts = Calls(clock), Limiter(1, key=first)
    items = [("a", 0), ("a", 1), *((number, 0) for number in range(30))]
    await penstock.stream(items).map(calls, concurrency=2, buffer=4, ordered=False, limit=hosts).drain()
    assert calls.began["a", 1] == 1.0


async def test_who_gets_its_key_while_every_place_is_taken_has_the_next_place(clock):
    """A new item does not take the place that becomes free, though the window would have room for it."""
    calls, keys = Calls(clock), Limiter(1, key=first)

    async def hold():
        async with keys.hold(1, "a"):
            await asyncio.sleep(1.5)

    holding = asyncio.create_task(hold())
    await asyncio.sleep(0)
    items = pairs("abcdefgh")
    await penstock.stream(items).map(calls, concurrency=1, buffer=4, ordered=False, limit=keys).drain()
    await holding
    assert (calls.began["c", 0], calls.began["a", 0], calls.began["d", 0]) == (1.0, 2.0, 3.0)


async def test_items_of_a_key_start_in_their_order(clock):
    calls = Calls(clock)
    items = pairs("abcabcbbacabcaaa")
    stream = penstock.stream(items).map(calls, concurrency=3, buffer=9, ordered=False, limit=Limiter(1, key=first))
    await stream.drain()
    for key in "abc":
        of_key = [number for each, number in sorted(calls.began, key=calls.began.__getitem__) if each == key]
        assert of_key == sorted(of_key)


async def test_a_rate_for_each_key(clock):
    """Its starts keep their distance, and whoever waits for its turn leaves the place to other keys."""
    calls = Calls(clock, a=0, b=0)
    items = pairs("aaaabbbb")
    stream = penstock.stream(items).map(calls, concurrency=1, buffer=7, limit=RateLimit(1, 1, key=first))
    assert await stream.to_list() == items
    assert [calls.began[item] for item in items] == [0, 1, 2, 3, 0, 1, 2, 3]


async def test_a_retry_waits_for_its_key_without_a_place(clock):
    """A waiting retry gives its key to others; when it wants it back, it is put aside like the first attempt."""
    failed = []

    async def work(item):
        await asyncio.sleep(1)
        if item == ("a", 0) and not failed:
            failed.append(item)
            raise ConnectionError
        return item

    retry = Retry(on=ConnectionError, initial=0.5, jitter=0)
    options = {"concurrency": 2, "buffer": 4, "ordered": False, "retry": retry, "limit": Limiter(1, key=first)}
    async with penstock.stream(pairs("aab")).map(work, **options).open() as run:
        assert [item async for item in run] == [("b", 0), ("a", 1), ("a", 0)]
        assert (run.stats()[1].retried, run.stats()[1].peak_aside, clock.now) == (1, 1, 3.0)


async def test_a_retry_that_waits_for_its_key_ends_at_its_deadline(clock):
    hosts = Limiter(1, key=first)

    async def work(item):
        if item == ("a", 0):
            raise ConnectionError
        await asyncio.sleep(5)
        return item

    retry = Retry(on=ConnectionError, initial=1, jitter=0, deadline=3)
    options = {"concurrency": 2, "buffer": 2, "ordered": False, "retry": retry, "limit": hosts}
    async with penstock.stream(pairs("aab")).map(work, on_error="collect", **options).open() as run:
        assert sorted([item async for item in run]) == [("a", 1), ("b", 0)]
    assert [str(failed.item) for failed in run.failures] == ["('a', 0)"]
    assert (hosts.in_use, hosts.waiting) == (0, 0)


@pytest.mark.parametrize("after", [0.5, 1.0, 1.5])
async def test_leaving_while_calls_are_aside_leaves_nothing(clock, after):
    """P4, P5: whoever waits for its key or for a place is cancelled, and has an outcome."""
    calls, hosts, run = Calls(clock), Limiter(1, key=first), None
    stream = penstock.stream(pairs("aaabbbc" * 9)).map(calls, concurrency=2, buffer=9, limit=hosts)
    with suppress(TimeoutError):
        async with asyncio.timeout(after), stream.open() as run:
            await run.__anext__()
            await asyncio.sleep(10)
    stats = run.stats()[1]
    assert (stats.aside, stats.running, stats.in_flight, hosts.in_use, hosts.waiting) == (0, 0, 0, 0, 0)


async def test_a_failure_ends_those_aside(clock):
    hosts = Limiter(1, key=first)

    async def work(item):
        await asyncio.sleep(1)
        raise ValueError(item)

    with pytest.raises(ValueError, match="'a', 0"):
        await penstock.stream(pairs("aaab")).map(work, concurrency=2, buffer=9, limit=hosts).to_list()
    assert (hosts.in_use, hosts.waiting) == (0, 0)


async def test_a_call_that_is_cancelled_aside_leaves_its_key_and_place(clock):
    """By somebody else than the run: it is the failure of its item, and the others go on."""
    hosts, running = Limiter(1, key=first), set()

    async def work(item):
        running.add(asyncio.current_task())
        await asyncio.sleep(1)
        return item

    async def cancel():
        await asyncio.sleep(0.5)
        aside = asyncio.all_tasks() - others - running - {asyncio.current_task()}
        assert len(aside) == 2
        aside.pop().cancel()

    others = asyncio.all_tasks()
    cancelling = asyncio.create_task(cancel())
    stream = penstock.stream(pairs("aaab")).map(work, concurrency=2, buffer=9, limit=hosts, on_error="skip")
    assert len(await stream.to_list()) == 3
    await cancelling
    assert (hosts.in_use, hosts.waiting, clock.now) == (0, 0, 2.0)


async def test_whoever_waits_for_a_key_holds_nothing_that_all_keys_share(clock):
    """Keys come first: a slow key must not keep the turn of a rate, or the place in a limiter, that others need."""
    calls = Calls(clock, b=0)
    everybody, rate, hosts = Limiter(2), RateLimit(100, 1), Limiter(1, key=first)
    stream = penstock.stream(pairs("aaabbb")).map(
        calls, concurrency=3, buffer=6, ordered=False, limit=[everybody, rate, hosts]
    )
    await stream.drain()
    assert max(calls.began["b", number] for number in range(3)) < 0.1


@pytest.mark.parametrize("operator", ["filter", "tap", "map_batches", "thread"])
async def test_other_operators_put_calls_aside_too(clock, operator):
    began, hosts = {}, Limiter(1, key=first)
    items = pairs("aaabbb")

    async def work(item):
        began.setdefault(item, clock.now)
        await asyncio.sleep(1)
        return item

    def blocking(item):
        began.setdefault(item, clock.now)
        clock.sleep(1)
        return item

    async def work_list(items):
        return [await work(item) for item in items]

    stream = penstock.stream(items)
    options = {"concurrency": 2, "buffer": 4, "ordered": False, "limit": hosts}
    if operator == "map_batches":
        options["limit"] = hosts = Limiter(1, key=lambda items: items[0][0])
        stream = stream.map_batches(work_list, 1, **options)
    elif operator == "thread":
        stream = stream.map(blocking, engine="thread", **options)
    else:
        stream = getattr(stream, operator)(work, **options)
    async with stream.open() as run:
        assert sorted([item async for item in run]) == items
        stats = run.stats()[-1]
        assert (stats.peak_running, clock.now) == (2, 3.0)
        assert 2 <= stats.peak_aside <= (3 if operator == "thread" else 2)  # a thread is back when it is back
    assert began == {item: item[1] for item in items}
    assert (hosts.in_use, hosts.waiting) == (0, 0)


@pytest.mark.parametrize("ordered", [True, False])
async def test_in_flat_map_an_input_keeps_its_place(clock, ordered):
    """Inputs that wait for room hold places too: a head that came back to none would wait for ever."""

    async def outputs(item):
        for _ in range(3):
            await asyncio.sleep(1)
            yield item

    items, hosts = pairs("aabab"), Limiter(1, key=first)
    async with penstock.stream(items).flat_map(outputs, concurrency=2, ordered=ordered, limit=hosts).open() as run:
        assert sorted([item async for item in run]) == sorted(items * 3)
        assert (run.stats()[1].peak_in_flight, run.stats()[1].peak_aside) == (2, 0)
    assert (hosts.in_use, hosts.waiting) == (0, 0)


async def test_idle_keys_are_forgotten(clock):
    """P7: memory does not grow with the number of keys that there have been."""
    limits = [Limiter(1, key=first), RateLimit(1000, 1, key=first)]
    items = ((number, 0) for number in range(3000))
    await penstock.stream(items).map(Calls(clock), concurrency=50, limit=limits).drain()
    assert [len(limit._parts_in_use()) <= 200 for limit in limits] == [True, True]


async def test_a_key_that_owes_is_not_forgotten(clock):
    rate = RateLimit(1, 100, key=first)
    for number in range(300):
        await rate.acquire(1, (number, 0))
    await rate.acquire(1, (0, 0))
    assert clock.now == 100.0
    for number in range(300, 600):
        await rate.acquire(1, (number, 0))
    assert len(rate._parts_in_use()) <= 400


async def test_by_hand_the_key_is_that_of_the_item(clock):
    hosts, rate, gauge = Limiter(1, key=first), RateLimit(1, 1, key=first), Gauge()

    async def ask(item, more):
        with gauge:
            await rate.acquire(item=item)
            await asyncio.sleep(1)
            return item, more

    answers = await asyncio.gather(*(hosts.run(ask, item, 1) for item in pairs("aabb")))
    assert answers == [(item, 1) for item in pairs("aabb")]
    assert (gauge.peak, clock.now) == (2, 2.0)
    async with hosts.hold(item="a"), Limiter(2, key=str).hold(2, "x"):
        assert hosts.in_use == 1


async def test_by_hand_without_an_item_is_refused():
    hosts, rate = Limiter(1, key=first, name="hosts"), RateLimit(1, 1, key=first)
    with pytest.raises(
        OptionError, match=r"Limiter\(1, name='hosts'\) has a key, and there is no item to ask it of: use"
    ):
        async with hosts:
            pass
    with pytest.raises(OptionError, match=r"run\(fn, item\)"):
        await hosts.run(asyncio.sleep)
    with pytest.raises(OptionError, match=r"acquire\(cost, item\)"):
        async with rate:
            pass
    with pytest.raises(OptionError, match="must be hashable"):
        await hosts.run(lambda item: item, [[]])
    with pytest.raises(OptionError, match="key must be a plain function, got the async"):
        Limiter(1, key=asyncio.sleep)
    with pytest.raises(OptionError, match="key must be callable, got 'host'"):
        RateLimit(1, 1, key="host")


async def test_a_key_that_cannot_be_told_is_the_failure_of_its_item(clock):
    hosts = Limiter(1, key=lambda item: 1 // item)
    results = await penstock.stream([1, 0, 2]).map(str, concurrency=2, limit=hosts, on_error="return").to_list()
    assert [type(result).__name__ for result in results] == ["Ok", "Failed", "Ok"]


async def test_resizing_lets_in_waiters_of_every_key(clock):
    calls, hosts = Calls(clock), Limiter(1, key=first)

    async def resize():
        await asyncio.sleep(0.5)
        hosts.limit = 3

    resizing = asyncio.create_task(resize())
    await penstock.stream(pairs("abab")).map(calls, concurrency=4, limit=hosts).drain()
    await resizing
    assert clock.now == 1.5
    assert [calls.by_key[key].peak for key in "ab"] == [2, 2]


@pytest.mark.real_time
async def test_in_a_durable_run_the_key_is_asked_of_the_item(tmp_path):
    asked = []
    hosts = Limiter(1, key=lambda item: asked.append(item) or item["host"])
    items = [{"id": number, "host": number % 2} for number in range(6)]
    stream = penstock.keyed(items, key=lambda item: str(item["id"])).map(
        lambda item: {"id": item["id"]}, concurrency=4, limit=hosts
    )
    report = await stream.to(SqliteTable(tmp_path / "out.db", "rows", key="id"), run="test")
    assert report.delivered == 6
    assert sorted(item["id"] for item in asked) == list(range(6))


@pytest.mark.parametrize("limit", ["limiter", "rate"])
async def test_leaving_while_a_call_has_its_key_and_waits_for_a_place_gives_the_key_back(clock, limit):
    """It was let in by the limit, and is not begun: nobody else would ever get that key."""
    calls = Calls(clock, b=10)
    by_key = Limiter(1, key=first) if limit == "limiter" else RateLimit(1, 1, key=first)

    async def hold():
        if limit == "rate":
            await by_key.acquire(item="a")
            return
        async with by_key.hold(item="a"):
            await asyncio.sleep(1)

    holding = asyncio.create_task(hold())
    await asyncio.sleep(0)
    stream = penstock.stream(pairs("ab")).map(calls, concurrency=1, buffer=2, ordered=False, limit=by_key)
    with suppress(TimeoutError):
        async with asyncio.timeout(2):
            await stream.drain()
    await holding
    assert list(calls.began) == [("b", 0)]
    async with asyncio.timeout(5):
        await hold()


CASES = st.fixed_dictionaries(
    {
        "items": st.lists(
            st.tuples(st.sampled_from("aaabbc"), st.sampled_from([0, 0, 0.5, 1, 1, 2])), min_size=1, max_size=14
        ),
        "concurrency": st.integers(1, 4),
        "buffer": st.integers(0, 6),
        "ordered": st.booleans(),
        "of_key": st.integers(1, 2),
        "of_all": st.none() | st.integers(1, 3),
        "rate": st.none() | st.sampled_from([1, 4]),
        "failing": st.none() | st.integers(0, 13),
        "leave": st.none() | st.sampled_from([0.5, 1, 2.5, 4]),
        "operator": st.sampled_from(["map", "map", "flat_map", "map_batches"]),
    }
)


class Fuzz:
    """A stream of one stage with limits by key, whose work checks every bound at every start."""

    def __init__(self, case):
        self.case = case
        self.items = [(key, number, seconds) for number, (key, seconds) in enumerate(case["items"])]
        self.running, self.failed, self.taken, self.given = Counter(), [], [], []

    async def work(self, item):
        case, key = self.case, item[0]
        self.running[key] += 1
        assert self.running[key] <= case["of_key"]
        assert self.running.total() <= min(case["concurrency"], case["of_all"] or 99)
        try:
            await asyncio.sleep(item[2])
            if case["failing"] == item[1] and not self.failed:
                self.failed.append(item)
                raise ConnectionError
        finally:
            self.running[key] -= 1
        return item

    async def outputs(self, item):
        yield await self.work(item)

    async def in_list(self, items):
        return [await self.work(items[0])]

    def source(self):
        case = self.case
        bound = case["concurrency"] + case["buffer"] + (case["operator"] == "flat_map")  # it settles when asked again
        for item in self.items:
            self.taken.append(item)
            assert len(self.taken) - len(self.given) <= bound
            yield item

    def limits(self):
        case = self.case
        key = (lambda items: items[0][0]) if case["operator"] == "map_batches" else first
        yield Limiter(case["of_key"], key=key)
        if case["of_all"]:
            yield Limiter(case["of_all"])
        if case["rate"]:
            yield RateLimit(case["rate"], 1, key=key)

    def stream(self, limits):
        options = {key: self.case[key] for key in ("concurrency", "buffer", "ordered")}
        options |= {"limit": limits[::-1], "retry": Retry(on=ConnectionError, initial=1)}
        source = penstock.stream(self.source)
        if self.case["operator"] == "map_batches":
            return source.map_batches(self.in_list, 1, **options)
        if self.case["operator"] == "flat_map":
            return source.flat_map(self.outputs, **options)
        return source.map(self.work, **options)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(case=CASES)
async def test_any_limits_with_keys_keep_all_bounds_and_lose_nothing(case):
    """Against the promises: P1 at every start, all limits held, everything comes through, everything is given back."""
    fuzz = Fuzz(case)
    limits = list(fuzz.limits())
    with suppress(TimeoutError):
        async with asyncio.timeout(case["leave"]), fuzz.stream(limits).open() as run:
            async for item in run:
                fuzz.given.append(item)
    stats = run.stats()[-1]
    assert stats.in_flight == stats.aside == stats.running == fuzz.running.total() == 0
    if case["leave"] is None:
        in_order = fuzz.given if case["ordered"] else sorted(fuzz.given, key=lambda item: item[1])
        assert in_order == fuzz.items
    for limit in limits:
        if isinstance(limit, Limiter):
            assert (limit.in_use, limit.waiting) == (0, 0)
