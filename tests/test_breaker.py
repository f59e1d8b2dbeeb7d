"""Breakers: when nothing starts, who finds out, and what counts."""

import asyncio

import pytest

import penstock
from penstock import Breaker, Limiter, MisuseError, OptionError, RateLimit, Retry, WrongLoopError
from penstock.testing import Clock
from penstock.testing import run as run_in

pytestmark = pytest.mark.grid


class Service:
    """Work that takes a second and fails from one time to another, and when each call began."""

    def __init__(self, clock, down=(0.0, 0.0), error=ConnectionError):
        self.clock = clock
        self.down = down
        self.error = error
        self.began = []

    async def __call__(self, item):
        began = self.clock.now
        self.began.append(began)
        await asyncio.sleep(1)
        if self.down[0] <= began < self.down[1]:
            raise self.error(item)
        return [item] * len(item) if isinstance(item, list) else [item]


RETRY = Retry(on=ConnectionError, attempts=9, initial=0)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("operator", ["map", "flat_map", "map_batches", "filter", "tap"])
async def test_after_failures_in_a_row_nothing_starts_and_then_one_probe(clock, operator, ordered):
    """The probe's success lets all go on; nothing is lost, and the order is kept."""
    service = Service(clock, down=(2, 25))
    more = {"map_batches": (1,)}.get(operator, ())
    options = {} if operator == "tap" else {"ordered": ordered}
    options |= {"concurrency": 4, "limit": Breaker(4, pause=10), "retry": RETRY}
    stream = getattr(penstock.stream(range(16)), operator)(service, *more, **options)
    found = await stream.to_list()
    assert len(found) == 16
    assert service.began[:14] == [*[0] * 4, *[1] * 4, *[2] * 4, 13, 34]
    assert service.began[14:] == [35] * (7 - (last := service.began.count(36))) + [36] * last


async def test_a_probe_that_fails_doubles_the_pause_up_to_the_most(clock):
    service = Service(clock, down=(0, 80))
    breaker = Breaker(1, pause=4, most=10)
    await penstock.stream([1]).map(service, limit=breaker, retry=RETRY, concurrency=2).drain()
    assert service.began == [0, 5, 14, 25, 36, 47, 58, 69, 80]
    assert not breaker.is_open


async def test_a_success_between_failures_keeps_it_closed(clock):
    breaker, outcomes = Breaker(2, pause=10), iter([0, 1, 0, 1, 0])

    async def work(item):
        if not next(outcomes):
            raise ConnectionError
        return item

    await penstock.stream(range(5)).map(work, limit=breaker, on_error="skip").drain()
    assert clock.now == 0
    assert not breaker.is_open


async def test_what_is_no_failure_of_the_service_is_neither_counted_nor_a_success(clock):
    """Also of the probe: then another one finds out."""
    kinds = iter([ConnectionError, KeyError, ConnectionError, KeyError, ValueError, None, None])
    began = []

    async def work(item):
        began.append(clock.now)
        if (kind := next(kinds)) is not None:
            raise kind(item)

    breaker = Breaker(2, pause=10, on=ConnectionError)
    await penstock.stream(range(7)).map(work, limit=breaker, on_error="skip").drain()
    assert began == [0, 0, 0, 10, 10, 10, 10]


async def test_calls_in_flight_when_it_opens_do_not_open_it_again_nor_close_it(clock):
    async def work(item):
        await asyncio.sleep(item)
        if item in {1, 3}:
            raise ConnectionError

    breaker = Breaker(1, pause=10)
    done = penstock.stream([1, 2, 3, 4]).map(work, concurrency=3, limit=breaker, on_error="skip", ordered=False)
    await done.drain()
    assert clock.now == 1 + 10 + 4


@pytest.mark.parametrize("kind", [Limiter, RateLimit])
async def test_calls_that_waited_for_a_limit_when_it_opened_do_not_start(clock, kind):
    """They hold nothing while they wait: others that share the limit go on."""
    limit = Limiter(1) if kind is Limiter else RateLimit(1, 1)
    service = Service(clock, down=(0, 5))
    other = Service(clock)
    await asyncio.gather(
        penstock.stream(range(4)).map(service, concurrency=4, limit=[limit, Breaker(1, pause=20)], retry=RETRY).drain(),
        penstock.stream(range(4)).map(other, concurrency=4, limit=limit).drain(),
    )
    first, second = service.began[:2]
    assert second == first + 21 if kind is Limiter else second in {first + 21, first + 22}
    assert max(other.began) < second


async def test_a_probe_that_is_cancelled_leaves_it_to_another(clock):
    breaker = Breaker(1, pause=5)
    failing, service = Service(clock, down=(0, 1)), Service(clock)
    await penstock.stream([1]).map(failing, limit=breaker, on_error="skip").drain()
    probe = asyncio.create_task(breaker.run(asyncio.sleep, 100))
    await asyncio.sleep(6)
    waiting = asyncio.create_task(breaker.run(service, 1))
    await asyncio.sleep(2)
    assert service.began == []
    probe.cancel()
    assert await waiting == [1]
    assert service.began == [9]


async def test_a_wait_that_is_cancelled_leaves_nothing(clock):
    """No timer, which the fixture looks for."""
    breaker = Breaker(1, pause=50)
    with pytest.raises(KeyError):
        await breaker.run({}.__getitem__, 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await penstock.stream(range(3)).map(Service(clock), concurrency=3, limit=breaker).drain()
    assert breaker.is_open


async def test_each_key_has_its_own_and_those_that_wait_take_no_place(clock):
    began = []

    async def work(item):
        began.append((item, clock.now))
        if item[0] == "a" and clock.now < 9:
            raise ConnectionError

    hosts = Breaker(1, pause=10, key=lambda item: item[0])
    items = ["a0", "a1", "a2", "b0", "b1"]
    options = {"concurrency": 1, "buffer": 4, "ordered": False, "on_error": "skip"}
    await penstock.stream(items).map(work, limit=hosts, **options).drain()
    assert began == [("a0", 0), ("b0", 0), ("b1", 0), ("a1", 10), ("a2", 10)]


async def test_a_million_keys_that_failed_once_are_forgotten(clock):
    hosts = Breaker(2, pause=1, most=1, key=str)
    for number in range(1000):
        with pytest.raises(KeyError):
            await hosts.run({}.__getitem__, number)
        await asyncio.sleep(0.1)
    assert len(hosts._parts_in_use()) < 200


async def test_a_deadline_ends_the_wait_for_it(clock):
    service = Service(clock, down=(0, 1000))
    retry = Retry(on=ConnectionError, attempts=99, initial=0, deadline=60)
    with pytest.raises(ConnectionError):
        await penstock.stream([1]).map(service, limit=Breaker(1, pause=20, most=40), retry=retry).drain()
    assert clock.now == 60
    assert service.began == [0, 21]


async def test_it_can_be_paused_as_other_limits(clock):
    breaker, service = Breaker(), Service(clock)
    breaker.pause(7)
    await penstock.stream(range(3)).map(service, concurrency=3, limit=breaker).drain()
    assert service.began == [7, 8, 8]


async def test_a_predicate_that_raises_is_the_failure_and_leaves_no_probe_behind(clock):
    def broken(error):
        raise LookupError("mine") from error

    breaker = Breaker(1, pause=1, on=broken)
    for _ in range(2):
        with pytest.raises(LookupError, match="mine"):
            await breaker.run({}.__getitem__, 1)
    breaker.pause(1)
    with pytest.raises(LookupError, match="mine"):
        await penstock.stream([1]).map(Service(clock, (0, 9)), limit=breaker).drain()
    assert await breaker.run(str, 1) == "1"


async def test_errors_of_our_own_open_nothing(clock):
    async def work(_):
        raise MisuseError("no")

    breaker = Breaker(1)
    with pytest.raises(MisuseError):
        await penstock.stream([1]).map(work, limit=breaker).drain()
    assert not breaker.is_open


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"failures": 0}, "failures must be an int >= 1, got 0"),
        ({"pause": 0}, "pause must be a finite number of seconds > 0"),
        ({"pause": 10, "most": 5}, "most must be at least 10, which is pause, got 5"),
        ({"on": 3}, "on must be an exception type"),
        ({"on": asyncio.sleep}, "on must be a plain function"),
        ({"key": 3}, "key must be callable, got 3"),
    ],
)
async def test_bad_options_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        Breaker(**options)


async def test_it_is_a_limit_and_says_what_it_is():
    assert repr(Breaker(3, pause=5, name="service")) == "Breaker(3, pause=5, name='service')"
    with pytest.raises(OptionError, match="limit must be a Limiter, a RateLimit, a Breaker or a sequence of them"):
        penstock.stream([1]).map(str, limit=3)
    with pytest.raises(OptionError, match="limit must name each limit once"):
        penstock.stream([1]).map(str, limit=[breaker := Breaker(), breaker])
    with pytest.raises(OptionError, match="has a key, and there is no item"):
        await Breaker(key=str).run(dict)


def test_it_belongs_to_one_loop():
    breaker = Breaker()

    async def once():
        return await breaker.run(str, 1)

    run_in(once(), clock=Clock())
    with pytest.raises(WrongLoopError):
        run_in(once(), clock=Clock())
