"""`concurrency=Adaptive()`: against services with limits that they do not tell, in virtual time."""

import asyncio
import itertools

import pytest

import penstock
from penstock import Adaptive, OptionError, Retry, stream
from penstock.core.adaptive import is_refusal

from .servers import Refused, Server


async def call_for(seconds, server, concurrency, **options):
    """Call the server for so many seconds; return the statistics of the stage."""
    loop = asyncio.get_running_loop()
    source = stream(itertools.count)
    options = {"ordered": False, "on_error": "skip", "name": "calls"} | options
    async with source.map(server.call, concurrency=concurrency, **options).open() as run:
        timer = loop.call_later(seconds, run.stop)
        async for _ in run:
            pass
        timer.cancel()
        return run.stats()["calls"]


SERVICES = {
    "refuses at once, 4": (4, 0.5, 0),
    "refuses at once, 4, slow": (4, 2, 0),
    "refuses at once, 20": (20, 0.5, 0),
    "queues some, 4": (4, 0.5, 4),
    "queues some, 20, quick": (20, 0.1, 20),
    "queues all, 4": (4, 0.5, 10**6),
    "queues all, 20": (20, 1, 10**6),
}
MORE_SERVICES = {
    "refuses at once, 60": (60, 1, 0),
    "queues some, 60, slow": (60, 2, 60),
    "queues all, 100": (100, 1, 10**6),
}
services = pytest.mark.parametrize(
    "service", [*SERVICES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_SERVICES)]
)


@services
async def test_it_comes_to_90_percent_of_the_best_in_30_s_and_2_percent_are_refused(caplog, service):
    """The best fixed setting is as many calls as there are servers."""
    caplog.set_level("CRITICAL", "penstock")
    servers, mean, queue = (SERVICES | MORE_SERVICES)[service]
    adaptive, best = Server(servers, mean, queue, seed=1), Server(servers, mean, queue, seed=1)
    await call_for(90, adaptive, Adaptive(most=256))
    began = asyncio.get_running_loop().time()
    await call_for(90, best, servers)
    assert adaptive.answered(30, 90) >= 0.9 * best.answered(began + 30, began + 90)
    assert adaptive.share_refused <= 0.02


async def test_refusals_that_take_no_time_are_as_few(caplog):
    """Trap: a call that is refused in no time leaves its place to the next at once, which is refused as well."""
    caplog.set_level("CRITICAL", "penstock")
    adaptive = Server(20, 0.5, 0, seed=1, hears=0)
    await call_for(60, adaptive, Adaptive(most=256))
    assert adaptive.answered(30, 60) >= 0.9 * 30 * 20 / 0.5
    assert adaptive.share_refused <= 0.02


@pytest.mark.parametrize(("before", "after", "queue"), [(40, 10, 0), (10, 40, 0), (10, 40, 10**6), (40, 10, 40)])
async def test_it_follows_a_service_that_changes(caplog, before, after, queue):
    caplog.set_level("CRITICAL", "penstock")
    server = Server(before, 0.5, queue, seed=2)
    asyncio.get_running_loop().call_later(60, setattr, server, "servers", after)
    await call_for(120, server, Adaptive())
    assert server.answered(90, 120) >= 0.9 * 30 * after / 0.5 * 0.95  # what chance gives the server in 30 s
    assert server.share_refused <= 0.02


async def test_where_all_wait_in_a_queue_the_queue_stays_short(caplog):
    """Nothing is refused: only latency tells."""
    server = Server(20, 0.5, 10**6)
    stats = await call_for(120, server, Adaptive(most=1000))
    assert stats.concurrency <= 4 * 20


async def test_a_service_that_becomes_slower_is_not_left(caplog):
    """Each call takes longer, whatever the concurrency: to fall for ever would help nobody."""
    server = Server(20, 0.2, 0)
    asyncio.get_running_loop().call_later(60, setattr, server, "mean", 1.0)
    await call_for(150, server, Adaptive())
    assert server.answered(100, 150) >= 0.85 * 50 * 20


async def at_once_or_later(item):
    await asyncio.sleep(1)
    return item


async def test_slow_start_doubles_in_the_time_of_a_call(clock):
    began = []

    async def call(_):
        began.append(clock.now)
        await asyncio.sleep(1)

    await stream(range(150)).map(call, concurrency=Adaptive(most=20)).drain()
    counts = [began.count(second) for second in range(9)]
    assert counts[:3] == [1, 2, 4]
    assert all(later >= min(1.5 * earlier, 20) for earlier, later in itertools.pairwise(counts))
    assert max(counts) == 20


async def test_no_more_run_than_it_says(clock):
    """P1: the number that the statistics show is the bound at that moment."""
    server, seen = Server(8, 0.5, 0), []

    async def call(item):
        stats = run.stats()[1]
        seen.append((stats.running, stats.concurrency))
        await server.call(item)

    async with stream(range(600)).map(call, concurrency=Adaptive(), ordered=False, on_error="collect").open() as run:
        async for _ in run:
            pass
    assert all(running <= concurrency + 1 for running, concurrency in seen)
    assert max(running for running, _ in seen) <= 12


async def test_it_does_not_grow_while_items_are_few(clock):
    """A slow source says nothing about the service."""

    async def source():
        for number in range(100):
            await asyncio.sleep(1)
            yield number

    async with stream(source).map(at_once_or_later, concurrency=Adaptive(least=2, most=50)).open() as run:
        async for _ in run:
            pass
        assert run.stats()[1].concurrency == 3


async def test_a_refused_call_makes_it_fall_and_other_failures_do_not(clock):
    fails = {50: ValueError, 100: Refused}
    levels = {}

    async def call(item):
        await asyncio.sleep(1)
        levels[item] = run.stats()[1].concurrency
        if item in fails:
            raise fails[item]

    options = {"concurrency": Adaptive(least=10, most=10), "on_error": "collect"}
    async with stream(range(10)).map(call, **options).open() as run:
        async for _ in run:
            pass
    options["concurrency"] = Adaptive(least=1, most=10)
    async with stream(range(140)).map(call, **options).open() as run:
        async for _ in run:
            pass
    assert min(levels[item] for item in range(45, 95)) == 10
    assert min(levels[item] for item in range(101, 120)) == 9


async def test_a_retry_that_is_refused_counts_too(clock):
    """Each attempt tells of the service, and a call that waits for its next try tells nothing."""
    server = Server(5, 0.5, 0)
    retry = Retry(on=Refused, attempts=9, initial=0.2)
    async with stream(range(400)).map(server.call, concurrency=Adaptive(), retry=retry).open() as run:
        async for _ in run:
            pass
    assert (len(server.done), server.share_refused <= 0.04) == (400, True)


async def test_lists_and_threads_and_durable_plans_have_it(clock):
    def double(item):
        clock.sleep(1)
        return 2 * item

    async def doubled(items):
        await asyncio.sleep(1)
        return [2 * item for item in items]

    wanted = [2 * item for item in range(40)]
    assert await stream(range(40)).map(double, concurrency=Adaptive(most=8)).to_list() == wanted
    assert await stream(range(40)).map_batches(doubled, 4, concurrency=Adaptive(most=4)).to_list() == wanted
    assert await penstock.parallel_map(range(40), double, concurrency=Adaptive(most=8)).to_list() == wanted
    assert clock.now < 40


async def test_leaving_a_run_in_the_middle(clock):
    server = Server(5, 0.5, 0)
    async with stream(itertools.count).map(server.call, concurrency=Adaptive(), on_error="skip").open() as run:
        for _ in range(100):
            await anext(run)
    assert run.stats()[1].in_flight == 0


class Response:
    status_code = 503


class WithResponse(Exception):
    response = Response()


class AsksToWait(Exception):
    retry_after = 3.0


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (Refused(), True),
        (WithResponse(), True),
        (AsksToWait(), True),
        (penstock.AttemptTimeout(), True),
        (ValueError(), False),
        (TimeoutError(), False),
    ],
)
def test_what_is_a_refusal(error, refused):
    assert is_refusal(error) is refused


def test_bad_options_are_refused():
    for wrong, message in (
        ({"least": 0}, "least must be an int >= 1, got 0"),
        ({"most": True}, "most must be an int >= 1, got True"),
        ({"least": 9, "most": 8}, "most must be at least 9, which is least, got 8"),
        ({"refused": 3}, "refused must be"),
    ):
        with pytest.raises(OptionError, match=message):
            Adaptive(**wrong)
    with pytest.raises(OptionError, match="concurrency must be an int >= 1 for flat_map, got Adaptive"):
        stream([]).flat_map(list, concurrency=Adaptive())
    assert repr(Adaptive(refused=KeyError)) == "Adaptive(least=1, most=256, refused=KeyError)"
    assert "concurrency=Adaptive(least=1, most=9)" in repr(
        stream([]).map(at_once_or_later, concurrency=Adaptive(most=9))
    )
