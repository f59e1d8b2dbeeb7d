"""`memo=True`: results are kept in the sink, so that no call is paid for twice."""

import asyncio
import math
import os
import threading
from collections import Counter
from dataclasses import dataclass

import apsw
import numpy as np
import pytest

import penstock
from penstock import Limiter, OptionError, RateLimit, Retry
from penstock.durable.sqlite import journal
from penstock.durable.sqlite.journal import SqliteJournal
from penstock.durable.values import digest
from penstock.sinks.callback import Callback
from penstock.sinks.table import SqliteTable
from penstock.sources.keyed import keyed

from .dying import append, ask, kill_this, life, lines, wait_until

pytestmark = [pytest.mark.real_time, pytest.mark.slow]


@pytest.fixture
def sink(tmp_path):
    return SqliteTable(tmp_path / "out.db", "rows")


CALLS = {}


class Paid:
    """Functions that are paid for, and what they were called with: that is no part of what they hold."""

    def __init__(self):
        CALLS[id(self)] = []

    @property
    def calls(self):
        return CALLS[id(self)]

    @calls.setter
    def calls(self, calls):
        CALLS[id(self)] = calls

    async def row(self, item):
        self.calls.append(item)
        return {"item": item}

    def plain_row(self, item):
        self.calls.append(item)
        return {"item": str(item)}

    async def popped(self, item):
        self.calls.append(dict(item))
        return {"item": item.pop("text")}

    async def of_page(self, page):
        self.calls.append(page.number)
        return {"item": page.text}

    async def none(self, item):
        self.calls.append(item)
        return []

    async def rows(self, items):
        self.calls.append(items)
        return [{"item": item} for item in items]

    async def is_even(self, item):
        self.calls.append(item)
        return item % 2 == 0

    async def split(self, item):
        self.calls.append(item)
        return [f"{item}.{number}" for number in range(2)]

    async def split_slowly(self, item):
        self.calls.append(item)
        for number in range(2):
            yield f"{item}.{number}"

    def split_lazily(self, item):
        self.calls.append(item)
        return (f"{item}.{number}" for number in range(2))


def roots(items, version=""):
    return keyed(items, key=str, version=lambda _: version)


def as_row(value):
    return {"item": str(value)}


def found(sink):
    return sorted(row["item"] for row in sink.rows())


async def twice(sink, stream, items=(1, 2, 3)):
    """Run it, and again when every root has changed; the second report."""
    first = await stream(roots(items)).to(sink, run="run")
    before = found(sink)
    assert first.recalled == 0
    second = await stream(roots(items, "changed")).to(sink, run="run")
    assert found(sink) == before
    assert (second.redone, second.delivered) == (len(items), len(items))
    return second


@pytest.mark.quick
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("engine", ["inline", "thread"])
async def test_map(sink, ordered, engine):
    paid = Paid()
    report = await twice(
        sink, lambda base: base.map(paid.plain_row, memo=True, ordered=ordered, engine=engine, concurrency=2)
    )
    assert sorted(paid.calls) == [1, 2, 3]
    assert report.recalled == 3
    assert "3 results recalled" in str(report)


async def test_filter(sink):
    paid = Paid()
    report = await twice(sink, lambda base: base.filter(paid.is_even, memo=True).map(as_row))
    assert paid.calls == [1, 2, 3]
    assert report.recalled == 3
    assert found(sink) == ["2"]


@pytest.mark.quick
@pytest.mark.parametrize("split", ["split", "split_slowly", "split_lazily"])
@pytest.mark.parametrize("ordered", [True, False])
async def test_flat_map(sink, split, ordered):
    paid = Paid()
    report = await twice(sink, lambda base: base.flat_map(getattr(paid, split), memo=True, ordered=ordered).map(as_row))
    assert paid.calls == [1, 2, 3]
    assert report.recalled == 3
    assert found(sink) == ["1.0", "1.1", "2.0", "2.1", "3.0", "3.1"]


async def test_what_comes_of_an_item_may_be_nothing(sink):
    paid = Paid()
    for version in "12":
        report = await roots([1, 2], version).flat_map(paid.none, memo=True).to(sink, run="run")
        assert (report.delivered, report.rows) == (2, 0)
    assert paid.calls == [1, 2]


@pytest.mark.parametrize("ordered", [True, False])
async def test_known_items_are_taken_out_of_a_call(sink, ordered):
    paid = Paid()

    def stream(items, version):
        return roots(items, version).map_batches(paid.rows, 4, memo=True, ordered=ordered)

    await stream([1, 3], "").to(sink, run="run")
    paid.calls.clear()
    report = await stream([0, 1, 2, 3, 4, 5, 1000, 1001], "changed").to(sink, run="run")
    assert paid.calls == [[0, 2], [4, 5, 1000, 1001]]
    assert report.recalled == 2
    assert [row["item"] for row in sink.rows()] == [0, 1, 2, 3, 4, 5, 1000, 1001]


async def test_a_call_of_known_items_alone_is_none(sink):
    paid = Paid()
    await twice(sink, lambda base: base.map_batches(paid.rows, 2, memo=True))
    assert paid.calls == [[1, 2], [3]]


@pytest.mark.parametrize("on_error", ["skip", "collect"])
async def test_a_bad_item_of_a_call_leaves_the_known_ones_alone(sink, on_error):
    """The items of a call that fails are tried in halves; those known are no part of any."""
    calls = []

    async def rows(items):
        calls.append(items)
        if 3 in items and len(items) < 9:
            raise ValueError(items)
        return [{"item": str(item)} for item in items]

    def stream(items, version):
        return roots(items, version).map_batches(rows, 6, memo=True, on_error=on_error)

    await stream([0, 2, 5], "").to(sink, run="run")
    calls.clear()
    report = await stream([0, 1, 2, 3, 4, 5], "changed").to(sink, run="run")
    assert calls == [[1, 3, 4], [1], [3, 4], [3], [4]]
    assert report.recalled == 3
    assert found(sink) == ["0", "1", "2", "4", "5"]


async def test_the_first_bad_item_of_a_call_ends_the_run(sink):
    """What stands before it is delivered, also what is known; what stands behind it is not."""

    async def rows(items):
        if 3 in items:
            raise ValueError(items)
        return [{"item": item} for item in items]

    def stream(items, version):
        return roots(items, version).map_batches(rows, 6, memo=True)

    await stream([2, 5], "").to(sink, run="run")
    with pytest.raises(ValueError, match=r"\[3\]"):
        await stream([0, 1, 2, 3, 4, 5], "changed").to(sink, run="run")
    assert {0, 1, 2} <= {row["item"] for row in sink.rows()}
    assert dict(ask(sink.path, "SELECT key, version FROM penstock_roots"))["5"] == ""


async def test_a_call_whose_thread_is_stuck_keeps_its_place_behind_a_known_item(sink):
    """The thread of the bad item cannot be stopped; the one known item behind it must not hide that."""
    gate = threading.Event()

    class Stuck(Paid):
        def rows(self, items):
            self.calls.append(items)
            if 3 in items:
                gate.wait()
            return [{"item": item} for item in items]

    stuck = Stuck()

    def stream(items, version):
        return roots(items, version).map_batches(
            stuck.rows, 2, memo=True, deps="", engine="thread", timeout=0.2, on_error="skip", concurrency=1
        )

    await stream([4], "").to(sink, run="run")
    asyncio.get_running_loop().call_later(0.6, gate.set)
    report = await stream([3, 4, 5, 6], "changed").to(sink, run="run")
    assert report.recalled == 1
    assert found(sink) == [4, 5, 6]
    assert stuck.calls == [[4], [3], [5, 6]]  # in a place that was not free, the last would have timed out, and halved


async def test_failures_are_not_kept(sink):
    calls = []

    async def row(item):
        calls.append(item)
        if calls.count(item) < 3:
            raise ValueError(item)
        return {"item": item}

    for _ in range(2):
        with pytest.raises(ValueError, match="1"):
            await roots([1]).map(row, memo=True).to(sink, run="run")
    await roots([1]).map(row, memo=True).to(sink, run="run")
    assert calls == [1, 1, 1]


async def test_what_is_known_waits_for_no_limit_and_takes_no_attempt(sink):
    """A resume would otherwise last as long as the run before."""
    paid = Paid()
    limit = RateLimit(3, per=3600, burst=3)

    def stream(base):
        return base.map(paid.row, memo=True, limit=[limit, Limiter(1)], timeout=5, retry=Retry(on=ValueError))

    await stream(roots([1, 2, 3])).to(sink, run="run")
    report = await stream(roots([1, 2, 3], "changed")).to(sink, run="run")
    assert report.recalled == 3
    fan = Paid()

    def fanned(base):
        return base.flat_map(fan.split, memo=True, limit=RateLimit(3, per=3600, burst=3)).map(as_row)

    other = SqliteTable(sink.path, "others")
    await fanned(roots([1, 2, 3])).to(other, run="others")
    assert (await fanned(roots([1, 2, 3], "changed")).to(other, run="others")).recalled == 3


async def test_most_of_a_root_that_has_changed_is_known(sink):
    """Of a document in which one paragraph is another one, one paragraph is paid for."""
    paid = Paid()

    def stream(text):
        return (
            keyed([("doc", text)], key=lambda doc: doc[0], version=lambda doc: doc[1])
            .flat_map(lambda doc: doc[1].split())
            .map_batches(paid.rows, 2, memo=True)
        )

    await stream("a b c d e").to(sink, run="run")
    paid.calls.clear()
    report = await stream("a b X d e").to(sink, run="run")
    assert paid.calls == [["X"]]
    assert report.recalled == 4
    assert [row["item"] for row in sink.rows()] == ["a", "b", "X", "d", "e"]


async def test_deps_and_code_say_what_is_known(sink):
    paid = Paid()

    async def go(version, deps, fn):
        return await roots([1], version).map(fn, memo=True, deps=deps).to(sink, run="run")

    await go("1", {"model": "small"}, paid.row)
    assert (await go("2", {"model": "small"}, paid.row)).recalled == 1
    assert (await go("3", {"model": "large"}, paid.row)).recalled == 0
    assert (await go("4", {"model": "large"}, lambda item: {"item": item})).recalled == 0


async def test_at_the_end_what_no_run_has_any_more_is_dropped(sink):
    paid = Paid()

    def entries():
        return ask(sink.path, "SELECT count(*) FROM penstock_memo")[0][0]

    await roots([1, 2]).map(paid.row, memo=True, deps=1).to(sink, run="one")
    await roots([1, 2]).map(paid.row, memo=True, deps=2).to(SqliteTable(sink.path, "others"), run="other")
    assert entries() == 4
    await roots([1, 2, 3], "2").map(paid.row, memo=True, deps=3).to(sink, run="one")
    assert entries() == 5


async def test_much_is_dropped_a_part_at_a_time_beside_the_loop(sink, monkeypatch):
    """P9: what is kept of a million items is not deleted in one go, nor on the loop."""
    monkeypatch.setattr(journal, "_ENTRIES", 10)
    paid, dropped, drop = Paid(), [], SqliteJournal.drop_memo

    def watched(self, stage):
        drop(self, stage)
        dropped.append((threading.current_thread().name, self._connection.changes()))

    monkeypatch.setattr(SqliteJournal, "drop_memo", watched)
    await roots(range(25)).map(paid.row, memo=True, deps=1).to(sink, run="run")
    await roots(range(2), "2").map(paid.row, memo=True, deps=2).to(sink, run="run")
    assert dropped == [("penstock writer", deleted) for deleted in (10, 10, 5)]
    assert ask(sink.path, "SELECT count(*) FROM penstock_memo") == [(2,)]


async def test_a_run_that_is_stopped_drops_nothing(sink):
    paid = Paid()

    async def fail(item):
        raise ValueError(item)

    await roots([1, 2]).map(paid.row, memo=True, deps=1).to(sink, run="run")
    with pytest.raises(ValueError, match="1"):
        await roots([1, 2], "2").map(fail, memo=True, deps=2).to(sink, run="run")
    assert (await roots([1, 2], "3").map(paid.row, memo=True, deps=1).to(sink, run="run")).recalled == 2


async def test_an_entry_that_cannot_be_read_is_none(sink):
    paid = Paid()
    await roots([1]).map(paid.row, memo=True).to(sink, run="run")
    connection = apsw.Connection(sink.path)
    connection.execute("UPDATE penstock_memo SET value = ?", (b"?",))
    connection.close()
    assert (await roots([1], "2").map(paid.row, memo=True).to(sink, run="run")).recalled == 0
    assert (await roots([1], "3").map(paid.row, memo=True).to(sink, run="run")).recalled == 1


async def test_what_is_kept_stands_in_the_journal_of_a_callback(tmp_path):
    paid = Paid()
    brought = []

    async def bring(rows):
        brought.extend(row.row for row in rows)

    sink = Callback(bring, journal=tmp_path / "journal.db")
    for version in "12":
        report = await roots([1, 2], version).map(paid.row, memo=True).to(sink, run="run")
    assert report.recalled == 2
    assert paid.calls == [1, 2]
    assert brought == [{"item": 1}, {"item": 2}] * 2


@dataclass
class Page:
    number: int
    text: str


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        2**80,
        0.1,
        -0.0,
        "é\ud800",
        b"\x00",
        ("a", [1, (2.0,)]),
        {"a": {1, 2}, 3: None},
        [0.5, math.inf],
        [],
    ],
)
async def test_results_come_back_as_they_were(sink, value):
    seen = []
    for version in "12":
        stream = roots([1], version).map(lambda _: value, memo=True)
        report = await stream.tap(lambda result: seen.append(result)).map(as_text).to(sink, run="run")
        assert report.recalled == int(version) - 1
    assert repr(seen[0]) == repr(seen[1]) == repr(value)
    assert type(seen[1]) is type(value)


def as_text(value):
    return {"item": ascii(value)}


async def test_arrays_come_back_as_they_were(sink):
    seen = []
    for version in "12":
        stream = roots([np.arange(3)], version).map(lambda row: {"vector": row.astype(np.float32) / 3}, memo=True)
        await stream.tap(lambda result: seen.append(result["vector"])).map(lambda _: {"item": 1}).to(sink, run="run")
    assert seen[0].dtype == seen[1].dtype == np.float32
    assert np.array_equal(*seen)
    assert seen[1].flags.writeable


async def test_a_result_that_is_changed_later_is_kept_as_it_was(sink):
    async def row(item):
        return {"item": [item]}

    def add(row):
        row["item"].append("more")
        return row

    async def rows(item):
        for number in range(2):
            yield {"item": [item, number]}

    for version in "12":
        await roots([1], version).map(row, memo=True).map(add).to(sink, run="run")
    assert found(sink) == ['[1, "more"]']
    other = SqliteTable(sink.path, "others")
    for version in "12":
        await roots([1], version).flat_map(rows, memo=True).map(add).to(other, run="others")
    assert found(other) == ['[1, 0, "more"]', '[1, 1, "more"]']


async def test_an_input_that_is_changed_by_its_call_is_known_as_it_came(sink):
    paid = Paid()
    for version in "12":
        source = keyed([{"text": "a"}], key=lambda _: 0, version=lambda _, version=version: version)
        await source.map(paid.popped, memo=True).to(sink, run="run")
    assert paid.calls == [{"text": "a"}]


async def test_a_result_that_cannot_be_kept_is_an_error_that_names_stage_and_type(sink):
    async def page(item):
        return {"pages": [Page(item, "a")]}

    async def pages(items):
        return [Page(item, "a") for item in items]

    def lazily(item):
        yield Page(item, "a")

    base = roots([1])
    for stream in (
        base.map(page, memo=True, name="read"),
        base.map_batches(pages, 2, memo=True, name="read"),
        base.flat_map(lazily, memo=True, name="read"),
        base.flat_map(lambda item: [Page(item, "a")], memo=True, name="read"),
    ):
        with pytest.raises(
            OptionError, match=r"^memo=True of stage 'read' keeps JSON-like .*test_memo\.Page in .*Page\("
        ):
            await stream.map(as_row).to(sink, run="run", on_change="continue")


async def test_an_input_that_cannot_be_told_from_others_is_an_error_that_names_stage_and_item(sink):
    base = keyed([Paid()], key=lambda _: 1)
    for stream in (
        base.map(as_row, memo=True, name="read"),
        base.filter(bool, memo=True, name="read"),
        base.flat_map(lambda item: [1], memo=True, name="read"),
        base.map_batches(lambda items: items, 2, memo=True, name="read"),
    ):
        with pytest.raises(OptionError, match=r"^memo=True of stage 'read' needs items .*test_memo\.Paid in <.*Paid"):
            await stream.map(as_row).to(sink, run="run")


async def test_a_dataclass_may_be_an_input(sink):
    paid = Paid()
    for version in "12":
        base = keyed([Page(1, "a"), Page(2, "a")], key=lambda page: page.number, version=lambda _, v=version: v)
        await base.map(paid.of_page, memo=True).to(sink, run="run")
    assert paid.calls == [1, 2]


async def test_without_a_sink_there_is_nowhere_to_keep_anything():
    stream = roots([1]).map(as_row, memo=True)
    for each in (stream, stream.take(1), stream.merge(roots([2])), penstock.stream([1]).filter(bool, memo=True)):
        with pytest.raises(OptionError, match=r"^memo=True keeps results in the sink of a durable run: end the stream"):
            each.open()
        with pytest.raises(OptionError, match="memo=True"):
            await each.to_list()
    assert await penstock.stream([1]).map(str, deps="model").to_list() == ["1"]


async def test_effects_are_not_kept():
    for add in (penstock.stream([1]).tap, penstock.stream([1]).for_each):
        with pytest.raises(
            OptionError, match=r"memo must be False for (tap|for_each), got True: it calls its function"
        ):
            await add(print, memo=True)
    with pytest.raises(OptionError, match="memo must be True, False or a plain function, got 1"):
        penstock.stream([1]).map(print, memo=1)


# Killed


def test_a_call_that_was_paid_for_is_not_paid_for_again_after_a_kill(sink, tmp_path):
    """Not even where the root it was for was never done: of one root of 40 chunks, all come to one call each."""
    calls = tmp_path / "calls"

    async def pay(chunk):
        append(calls, chunk)
        if (committed := {10: 9, 25: 23}.get(len(lines(calls)))) is not None:
            wait_until(lambda: kept(sink) == committed)
            kill_this()
        return {"item": chunk}

    async def main():
        stream = roots(["a", "b"]).flat_map(lambda name: [f"{name}{number:02}" for number in range(20)])
        await stream.map(pay, memo=True).to(sink, run="run")

    assert life(main) == -9
    assert life(main) == -9
    assert life(main) == 0
    paid = Counter(lines(calls))
    assert len(paid) == 40
    assert sum(paid.values()) == 42  # the two that were in flight at the kills
    assert found(sink) == sorted(paid)


class Living:
    """Which process a life is: known by no function, as what a function holds is part of the code."""

    pid = 0


def kept(sink):
    return ask(sink.path, "SELECT count(*) FROM penstock_memo")[0][0]


def test_no_kill_has_a_call_made_again_whose_result_was_committed(sink, tmp_path):
    calls = tmp_path / "calls"
    chunks = {f"{name}{number}": digest(f"{name}{number}") for name in "abcdefghij" for number in range(8)}

    async def pay(chunk):
        append(calls, chunk)
        number = len(lines(calls))
        await asyncio.sleep(0)
        if number % 13 == 0 and os.getpid() == Living.pid:  # in a child of its own it would be the chunk that kills
            kill_this()
        return {"item": chunk}

    async def main():
        Living.pid = os.getpid()
        stream = roots("abcdefghij").flat_map(lambda name: [f"{name}{number}" for number in range(8)])
        await stream.map(pay, memo=True, concurrency=4).to(sink, run="run")

    kills, before, known = 0, 0, set()
    while life(main) == -9:
        kills += 1
        made = lines(calls)
        assert known.isdisjoint(made[before:])
        before = len(made)
        entries = {item for (item,) in ask(sink.path, "SELECT item FROM penstock_memo")}
        known = {chunk for chunk, item in chunks.items() if item in entries}
    assert known.isdisjoint(lines(calls)[before:])
    assert kills >= 3
    assert found(sink) == sorted(chunks)


async def test_the_same_input_twice_in_one_run_may_be_called_twice_and_is_kept_once(sink):
    paid = Paid()
    source = keyed(enumerate("aaaa"), key=lambda pair: pair[0]).map(lambda pair: pair[1])
    await source.map(paid.row, memo=True, concurrency=4).to(sink, run="run")
    assert found(sink) == ["a"] * 4
    assert kept(sink) == 1


async def test_items_share_a_result_by_what_it_depends_on(sink):
    """`memo` may be a function of the item; the newest results are found before they are committed."""
    paid = Paid()

    def tens(item):
        return item // 10

    stream = roots([10, 11, 20, 12]).map(paid.plain_row, engine="inline", keep=True, memo=tens, key=tens)
    report = await stream.map(lambda pair: {"item": f"{pair[0]} {pair[1]['item']}"}).to(sink, run="run")
    assert (paid.calls, report.recalled) == ([10, 20], 2)
    assert found(sink) == ["10 10", "11 10", "12 10", "20 20"]


async def test_what_memo_gives_must_be_a_value_and_memo_a_function(sink):
    failing = roots([1]).map(as_row, memo=lambda item: object(), deps="x")
    with pytest.raises(OptionError, match=r"memo of stage .* must give values made of JSON-like values.* got .*object"):
        await failing.to(sink, run="run")
    with pytest.raises(OptionError, match="memo must be True, False or a plain function, got 'text'"):
        roots([1]).map(as_row, memo="text")
