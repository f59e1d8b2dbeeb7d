"""`Callback`: rows are handed over at least once, with ids that are the same every time, and then noted as done."""

import asyncio
import contextlib
import contextvars
import functools
import os
import signal
import subprocess
import sys
import threading

import pytest

import penstock
from penstock import durable
from penstock.durable import delivery
from penstock.sinks.callback import Callback, Delivered
from penstock.sources.keyed import keyed

pytestmark = [pytest.mark.real_time, pytest.mark.slow]


def numbers(roots, **options):
    """Roots, each of as many rows as its number says."""
    return keyed(roots, key=int, **options).map(lambda root: [f"{root}.{n}" for n in range(root)]).flatten()


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "sent.db"


@pytest.mark.grid
async def test_rows_come_with_what_they_are(journal):
    calls = []

    async def send(rows):
        calls.append(rows)

    report = await numbers([2, 0, 1], version=lambda root: f"v{root}").to(Callback(send, journal=journal), run="r")
    assert (report.guarantee, report.delivered, report.rows) == ("at least once", 3, 3)
    assert (report.path, report.complete) == (str(journal), True)
    rows = [row for call in calls for row in call]
    assert [(row.key, row.version, row.index, row.row) for row in rows] == [
        (2, "v2", 0, "2.0"),
        (2, "v2", 1, "2.1"),
        (1, "v1", 0, "1.0"),
    ]
    assert len({row.id for row in rows}) == 3
    assert all(isinstance(row, Delivered) for row in rows)


async def test_ids_tell_run_key_version_and_row_apart_and_nothing_else(tmp_path):
    ids = []

    async def send(rows):
        ids.append(tuple(row.id for row in rows))

    async def deliver(place, run, key, version):
        ids.clear()
        stream = keyed([7], key=lambda _: key, version=lambda _: version).map(lambda _: ["a", "b"]).flatten()
        await stream.to(Callback(send, journal=tmp_path / f"{place}.db"), run=run)
        return ids[0]

    known = await deliver("one", "r", "1", "")
    assert await deliver("two", "r", "1", "") == known
    others = [
        await deliver("three", "s", "1", ""),
        await deliver("four", "r", 1, ""),
        await deliver("five", "r", "1", "2"),
    ]
    assert len({*known, *(each for other in others for each in other)}) == 8


async def test_what_was_acknowledged_is_not_delivered_again(journal):
    sent = []

    async def send(rows):
        sent.extend(row.row for row in rows)

    sink = Callback(send, journal=journal)
    await numbers([2, 3]).to(sink, run="r")
    report = await numbers([2, 3, 1]).to(sink, run="r")
    assert (report.delivered, report.already_done) == (1, 2)
    assert sent == ["2.0", "2.1", "3.0", "3.1", "3.2", "1.0"]


@pytest.mark.grid
async def test_what_it_raises_ends_the_run_and_its_rows_come_again_with_their_ids(journal):
    calls = []
    failures = [None, None, ConnectionError("refused")]

    async def send(rows):
        calls.append([(row.id, row.row) for row in rows])
        if failures and (failure := failures.pop(0)):
            raise failure

    sink = Callback(send, journal=journal, size=1)
    with pytest.raises(ConnectionError, match="refused") as caught:
        await numbers([1, 2, 3]).to(sink, run="r")
    assert any("run it again to go on" in note for note in caught.value.__notes__)
    report = await numbers([1, 2, 3]).to(sink, run="r")
    assert (report.already_done, report.delivered) == (1, 2)
    assert [row for call in calls for _, row in call] == ["1.0", "2.0", "2.1", "2.0", "2.1", "3.0", "3.1", "3.2"]
    assert calls[1:3] == calls[3:5]


@pytest.mark.grid
async def test_a_failure_is_noticed_while_nothing_arrives(journal):
    """Work that would never end is stopped: its results could not be delivered."""
    never = asyncio.Event()
    cancelled = []

    async def work(root):
        if root == 1:
            return root
        try:
            return await never.wait()
        except asyncio.CancelledError:
            cancelled.append(root)
            raise

    async def send(rows):
        raise ConnectionError("refused")

    with pytest.raises(ConnectionError):
        await keyed([1, 2, 3], key=int).map(work, concurrency=3).to(Callback(send, journal=journal), run="r")
    assert cancelled == [2, 3]


@pytest.mark.grid
@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_call_that_does_not_end_is_cancelled_after_the_grace_of_a_run_that_is_left(journal, kind):
    """P4: a deadline around the run holds, also where its sink, or what a plain function returns, does not end."""
    began, cancelled = asyncio.Event(), []

    async def send(rows):
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append([row.key for row in rows])
            raise

    def plain(rows):
        return send(rows)

    async def work(root):
        if root == 2:
            await began.wait()
            raise ValueError(root)
        return root

    sink = Callback(plain if kind == "plain" else send, journal=journal, size=1)
    with pytest.raises(ValueError, match="2"):
        await keyed(range(3), key=int).map(work).to(sink, run="r", grace=0)
    assert cancelled == [[0]]
    (status,) = durable.runs(str(journal))
    assert (status.state, status.done) == ("stopped", 0)


async def test_a_call_in_progress_may_end_within_the_grace(journal):
    began, left, sent = asyncio.Event(), asyncio.Event(), []

    async def send(rows):
        began.set()
        await left.wait()
        sent.extend(row.key for row in rows)

    async def work(root):
        if root == 2:
            await began.wait()
            try:
                await asyncio.Event().wait()
            finally:
                left.set()
        return root

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as deadline:
            stream = keyed(range(3), key=int).map(work, concurrency=2)
            began_watch = asyncio.get_running_loop().create_task(began.wait())
            began_watch.add_done_callback(lambda _: deadline.reschedule(asyncio.get_running_loop().time()))
            await stream.to(Callback(send, journal=journal), run="r", grace=30)
    assert sent == [0, 1]
    assert durable.runs(str(journal))[0].done == 2


async def test_a_run_whose_function_failed_was_stopped_not_killed(journal):
    async def send(rows):
        raise ConnectionError("refused")

    with pytest.raises(ConnectionError):
        await numbers([1]).to(Callback(send, journal=journal), run="r")
    assert durable.runs(str(journal))[0].state == "stopped"


@pytest.mark.parametrize("raised", [StopIteration("s"), asyncio.CancelledError("c"), StopAsyncIteration("a")])
@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_control_flow_that_it_raises_arrives_as_an_error(journal, raised, kind):
    def plain(rows):
        raise raised

    async def send(rows):
        raise raised

    with pytest.raises(penstock.WorkRaised):
        await numbers([1]).to(Callback(plain if kind == "plain" else send, journal=journal), run="r")


async def test_rows_of_roots_that_finish_during_a_call_go_together(journal):
    """One call at a time; the next one takes what has finished meanwhile, up to `size` rows."""
    sizes = []
    finished = asyncio.Event()
    running = 0

    async def send(rows):
        nonlocal running
        running += 1
        assert running == 1
        sizes.append([row.key for row in rows])
        if len(sizes) == 1:
            await finished.wait()
        running -= 1

    async def work(root):
        if root == 9:
            finished.set()
        return root

    await keyed(range(10), key=int).map(work).to(Callback(send, journal=journal, size=4), run="r")
    assert [key for keys in sizes for key in keys] == list(range(10))
    assert max(map(len, sizes)) == 4


async def test_what_a_call_has_brought_is_noted_before_the_next_one(journal):
    """A call is of whole roots, if they fit: so of what was acknowledged, nothing comes again."""
    calls = []
    finished = asyncio.Event()

    async def send(rows):
        calls.append([row.row for row in rows])
        await finished.wait()
        if len(calls) == 3:
            raise ConnectionError("refused")

    async def last(row):
        if row == "3.2":
            finished.set()
        return row

    stream = keyed(range(5), key=int).map(lambda root: [f"{root}.{n}" for n in range(3)]).flatten().map(last)
    with pytest.raises(ConnectionError):
        await stream.to(Callback(send, journal=journal, size=7), run="r")
    before = sum(map(len, calls[:2])) // 3
    assert all(len(call) in {3, 6} for call in calls)
    calls.clear()
    assert (await stream.to(Callback(lambda rows: None, journal=journal), run="r")).already_done == before


async def test_a_large_root_goes_in_several_calls_in_order(journal, monkeypatch):
    """Its rows wait in the journal until it is finished; only then is the first of them delivered."""
    monkeypatch.setattr(delivery, "HELD", 10)
    calls = []
    last = []

    async def send(rows):
        assert last
        calls.append([row.index for row in rows])

    async def rows(root):
        for number in range(95):
            yield number
        last.append(root)

    report = await keyed(["a"], key=str).flat_map(rows).to(Callback(send, journal=journal, size=20), run="r")
    assert report.rows == 95
    assert [len(call) for call in calls] == [20, 20, 20, 20, 15]
    assert [index for call in calls for index in call] == list(range(95))


@pytest.mark.grid
async def test_an_async_function_runs_on_the_loop_and_a_plain_one_in_a_thread(tmp_path):
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("the caller's")
    loop, seen = asyncio.get_running_loop(), {}

    async def on_loop(rows):
        seen["async"] = (asyncio.get_running_loop() is loop, variable.get())

    def plain(rows):
        seen["plain"] = (threading.current_thread().name, variable.get())

    places = {"async": on_loop, "plain": plain, "other": lambda rows: on_loop(rows)}
    for name, fn in places.items():
        await numbers([1]).to(Callback(fn, journal=tmp_path / f"{name}.db"), run="r")
        if name != "plain":
            assert seen.pop("async") == (True, "the caller's")
    assert seen == {"plain": ("penstock callback_0", "the caller's")}


async def test_an_awaitable_that_a_plain_function_returns_is_awaited_on_the_loop(journal):
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("the caller's")
    loop, sent, threads = asyncio.get_running_loop(), [], []

    async def bring(rows):
        await asyncio.sleep(0)
        assert asyncio.get_running_loop() is loop
        sent.extend((row.row, variable.get()) for row in rows)

    def send(rows):
        threads.append(threading.current_thread().name)
        return bring(rows)

    await numbers([1]).to(Callback(send, journal=journal), run="r")
    assert (sent, threads) == ([("1.0", "the caller's")], ["penstock callback_0"])


async def test_what_that_awaitable_raises_ends_the_run(journal):
    async def bring(rows):
        raise ConnectionError("refused")

    def send(rows):
        return bring(rows)

    with pytest.raises(ConnectionError, match="refused"):
        await numbers([1]).to(Callback(send, journal=journal), run="r")
    assert durable.runs(str(journal))[0].done == 0


async def test_an_awaitable_that_comes_back_after_the_grace_is_cancelled(journal):
    """Nobody may be left with a coroutine that was never awaited, and what it is for does not end."""
    began, aborted, brought = asyncio.Event(), threading.Event(), []
    loop = asyncio.get_running_loop()

    async def bring(rows):
        await asyncio.Event().wait()
        brought.extend(rows)

    def send(rows):
        loop.call_soon_threadsafe(began.set)
        aborted.wait()
        return bring(rows)

    async def work(root):
        if root == 1:
            await began.wait()
            raise ValueError(root)
        return root

    class Aborting(Callback):
        def open(self, durability):
            store = super().open(durability)
            abort = store.abort
            store.abort = lambda: (abort(), aborted.set())
            return store

    with pytest.raises(ValueError, match="1"):
        await keyed(range(2), key=int).map(work).to(Aborting(send, journal=journal), run="r", grace=0)
    assert brought == []
    assert durable.runs(str(journal))[0].done == 0


def yielding(rows):
    yield rows


async def yielding_async(rows):
    yield rows


class Yields:
    def __call__(self, rows):
        yield rows

    def send(self, rows):
        yield rows


@pytest.mark.parametrize(
    "fn",
    [yielding, yielding_async, lambda rows: (yield rows), functools.partial(yielding), Yields(), Yields().send],
    ids=["generator", "async generator", "lambda", "partial", "object", "method"],
)
def test_a_function_that_yields_is_refused(journal, fn):
    """A call of it would do nothing, and its rows would count as delivered."""
    with pytest.raises(penstock.OptionError, match="fn must do its work when it is called, not yield, got "):
        Callback(fn, journal=journal)


@pytest.mark.parametrize("inner", [yielding, yielding_async])
@pytest.mark.parametrize("kind", ["plain", "lambda", "async"])
async def test_a_generator_that_comes_back_is_an_error(journal, inner, kind):
    def plain(rows):
        return inner(rows)

    async def send(rows):
        return inner(rows)

    fn = {"plain": plain, "lambda": lambda rows: inner(rows), "async": send}[kind]
    with pytest.raises(penstock.OptionError, match=r"fn must do its work .* but it returned <.*yielding"):
        await numbers([1]).to(Callback(fn, journal=journal), run="r")
    assert durable.runs(str(journal))[0].done == 0


async def test_a_wrapper_that_reads_a_generator_is_none(journal):
    sent = []

    def each(rows):
        for row in rows:
            sent.append(row.row)
            yield row

    @functools.wraps(each)
    def send(rows):
        for _ in each(rows):
            pass

    await numbers([2]).to(Callback(send, journal=journal), run="r")
    assert sent == ["2.0", "2.1"]


async def test_dead_roots_are_not_delivered(journal):
    sent = []

    async def fail(row):
        if row == "2.1":
            raise ValueError(row)
        return row

    async def send(rows):
        sent.extend(row.row for row in rows)

    report = await numbers([1, 2]).map(fail, on_error="collect").to(Callback(send, journal=journal), run="r")
    assert (report.delivered, report.dead, sent) == (1, 1, ["1.0"])


async def test_rows_cannot_be_taken_back(journal):
    sink = Callback(print, journal=journal)
    with pytest.raises(penstock.OptionError, match="on_missing='delete' needs a sink that can remove rows"):
        await numbers([1]).to(sink, run="r", on_missing="delete")
    assert not journal.exists()


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"fn": None}, "fn must be callable, got None"),
        ({"size": 0}, "size must be an int >= 1, got 0"),
        ({"size": True}, "size must be an int >= 1, got True"),
    ],
)
def test_bad_arguments_are_named(journal, arguments, rule):
    with pytest.raises(penstock.OptionError, match=rule):
        Callback(**{"fn": print, "journal": journal} | arguments)


PROGRAM = """
import asyncio, sys
import penstock
from penstock.sinks.callback import Callback
from penstock.sources.keyed import keyed

async def send(rows):
    with open("sent", "a") as file:
        for row in rows:
            print(row.key, row.id, file=file)
    if len(sys.argv) > 1 and any(row.key == 5 for row in rows):
        print("sent", flush=True)
        await asyncio.Event().wait()

async def main():
    print(await keyed(range(8), key=int).map(str).to(Callback(send, journal="sent.db", size=1), run="r"))

asyncio.run(main())
"""


def test_killed_between_delivery_and_note_it_delivers_again_with_the_same_ids(tmp_path):
    """A real kill, where it hurts: the rows were handed over and nobody has noted it."""
    first = subprocess.Popen([sys.executable, "-c", PROGRAM, "hang"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "sent\n"
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "3 delivered; 5 already done" in done.stdout
    sent = (tmp_path / "sent").read_text().splitlines()
    assert [line.split()[0] for line in sent] == [*"012345", *"567"]
    assert sent[5] == sent[6]


@pytest.mark.parametrize("kind", ["blocks", "swallows", "returns one that swallows"])
async def test_a_call_that_does_not_end_is_left_behind_with_a_warning_that_names_it(journal, kind):
    """The grace of the run, and a second after the cancellation: then the run ends without it."""
    began, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    free = asyncio.Event()

    def blocks(rows):
        loop.call_soon_threadsafe(began.set)
        release.wait()

    async def swallows(rows):
        began.set()
        while not free.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await free.wait()

    def returns_one(rows):
        return swallows(rows)

    async def work(root):
        if root == 1:
            await began.wait()
            raise ValueError(root)
        return root

    send = {"blocks": blocks, "swallows": swallows}.get(kind, returns_one)
    sink = Callback(send, journal=journal, size=1)
    with pytest.warns(penstock.UnstoppedWorkWarning, match=send.__name__), pytest.raises(ValueError, match="1"):
        await keyed(range(2), key=int).map(work).to(sink, run="r", grace=0)
    release.set()
    free.set()
    await asyncio.sleep(0)
    for thread in threading.enumerate():
        if thread.name.startswith("penstock callback"):
            thread.join()
    assert durable.runs(str(journal))[0].done == 0
