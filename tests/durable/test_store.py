"""The contract of stores, kept by SQLite, by PostgreSQL and in memory: what each can be asked, and whole runs."""

import json
import subprocess
import sys
from contextlib import closing

import pytest
from tests.postgres import needs_postgres

import penstock
import penstock.sinks
from penstock.durable import HeldError, StoreError, dead_roots, discard, forget, redo, retry, runs
from penstock.durable.fingerprint import StageCode
from penstock.durable.journals import journal_at
from penstock.durable.made_by import going_on
from penstock.durable.note import RunNote, note_key
from penstock.durable.owner import owner
from penstock.durable.roots import DEAD, DONE, Root, RootId
from penstock.durable.store import Opened, Suspect

from .memory import MemorySink

pytestmark = pytest.mark.real_time

STAGES = [StageCode("fetch", b"f" * 16), StageCode("parse", b"p" * 16)]


class FilesOfRows(penstock.Files):
    """A file for each row, which is a mapping, named by all that is in it but for its version."""

    def open(self, durability):
        store = super().open(durability)
        accept = store.accept
        store.accept = lambda row: accept((f"{row['n']}/{row.get('at', 0):03}", json.dumps(row)))
        return store

    def rows(self):
        return (json.loads(content) for _, content in super().rows())


@pytest.fixture(params=["sqlite", "lines", "files", "memory", pytest.param("postgres", marks=needs_postgres)])
def sink(request, tmp_path):
    if request.param == "lines":
        return penstock.JsonLines(tmp_path / "t.jsonl")
    if request.param == "files":
        return FilesOfRows(tmp_path / "t")
    if request.param == "postgres":
        return penstock.PostgresTable(request.getfixturevalue("postgres").new(), "rows")
    return MemorySink() if request.param == "memory" else penstock.SqliteTable(tmp_path / "t.db", "rows")


@pytest.fixture
def store(sink):
    with closing(sink.open("process")) as store:
        yield store


def begin(store, name="r", code=b"1" * 16):
    """Open the run of that name."""
    with store.transaction():
        before = store.journal.run(name)
        times, codes = (1, ()) if before is None else (before.times + 1, before.codes)
        codes = going_on(codes, times, code)
        run = store.journal.begin(name, "numbers", "sink", owner(), STAGES, codes)
        return Opened(run, name, times, clean=before is None or before.clean, codes=codes)


def root_of(key, *rows, version="", error=None, position=0):
    root = Root(key, version, position, lambda _: None)
    root.rows = list(rows)
    if error is not None:
        root.set_aside("fetch", 1, error, key)
    return root


def put(store, opened, *roots):
    """Settle them together with their rows; their numbers."""
    accept = getattr(store, "accept", lambda row: row)
    numbers = []
    with store.transaction():
        for root in roots:
            number = store.journal.settle(opened, root)
            store.replace(RootId(number, root.key), map(accept, root.rows))
            numbers.append(number)
    return numbers


def asked(store, question, *arguments):
    with store.transaction():
        return getattr(store.journal, question)(*arguments)


def test_one_writes_at_a_time(sink, store):
    with pytest.raises(HeldError, match="is writing to it"):
        sink.open("process")
    begin(store)
    with journal_at(sink).read() as journal:
        assert journal.writer() == owner()
        store.close()
        assert journal.writer() == ""
    sink.open("process").close()


def test_a_transaction_is_all_or_nothing_and_readers_see_what_is_committed(sink, store):
    opened = begin(store)
    with closing(store.reader()) as reader:
        with pytest.raises(LookupError), store.transaction():
            number = store.journal.settle(opened, root_of("a", {"n": 1}))
            store.replace(RootId(number, "a"), ())
            assert store.journal.known(opened.id, "a") == (number, "", DONE, 1, 0)
            assert reader.known(opened.id, "a") is None
            raise LookupError
        assert asked(store, "known", opened.id, "a") is None
        put(store, opened, root_of("a", {"n": 1}, version="v", position=7))
        assert reader.known(opened.id, "a")[1:] == ("v", DONE, 1, 7)
    assert [row["n"] for row in sink.rows()] == [1]


def test_a_root_keeps_its_number_and_no_other_is_ever_given_it(sink, store):
    opened = begin(store)
    a, b = put(store, opened, root_of("a", {"n": 1}, {"n": 2}), root_of("b", {"n": 3}))
    assert put(store, opened, root_of("a", version="2")) == [a]
    assert [row["n"] for row in sink.rows()] == [3]
    assert asked(store, "forget", b) == 1
    (c,) = put(store, opened, root_of("b"))
    assert asked(store, "forget_run", opened.id) == (2, 0)
    store.close()
    with closing(sink.open("process")) as again:
        assert len({a, b, c, *put(again, begin(again), root_of("a"))}) == 4


def test_new_roots_are_settled_together(sink, store):
    if not hasattr(store, "accept_all"):
        pytest.skip("it does not say that it can")
    opened = begin(store)
    with store.transaction():
        a, b = store.journal.settle_new(opened, 2, keys=[3, 1], versions=["", "v"], positions=[7, 8], rows=[1, 2])
        rows = store.accept_all([{"n": 30}, {"n": 10}, {"n": 11}])
        store.add(zip((a, b, b), rows, strict=True))
    with closing(store.reader()) as reader:
        assert reader.known(opened.id, 3) == (a, "", DONE, 1, 7)
        assert reader.known(opened.id, 1) == (b, "v", DONE, 1, 8)
        assert [reader.rows_of(number) for number in (a, b)] == [1, 2]
    assert [row["n"] for row in sink.rows()] == [30, 10, 11]


def test_keys_are_numbers_before_text_and_text_by_code_points(store):
    opened, keys = begin(store), [-5, 5, 10**18, "", "10", "5", "A", "a", "ø", "字", "𝄞"]
    put(store, opened, *map(root_of, reversed(keys)))
    with closing(store.reader()) as reader:
        assert list(reader.known_from(opened.id, -(2**63), 99).keys) == keys
        assert list(reader.known_from(opened.id, "5", 3).keys) == ["5", "A", "a"]
        assert list(reader.known_from(opened.id, "4", 1).keys) == ["5"]
        assert [key for _, key, _ in reader.settled(opened.id, None, 2)] == [-5, 5]
        assert [key for _, key, _ in reader.settled(opened.id, 10**18, 2)] == ["", "10"]
        assert reader.settled(opened.id, "𝄞", 2) == []
        assert reader.count_settled(opened.id, None, len(keys) + 1, but=0) == (len(keys), None)
        assert reader.count_settled(opened.id, None, 2, but=0) == (2, keys[1])
        assert reader.count_settled(opened.id, keys[1], 3, but=opened.times) == (0, keys[4])
        assert reader.count_settled(opened.id, keys[-1], 3, but=0) == (0, None)
        assert reader.known(opened.id, 5) != reader.known(opened.id, "5")
        assert set(reader.keys_near(opened.id, "10", 2)) == {"", 10**18, "10", "5"}


def test_what_is_known_of_runs(store):
    first, other = begin(store), begin(store, "other")
    put(store, other, root_of("a"))
    assert asked(store, "known", first.id, "a") is None
    run = asked(store, "run", "r")
    assert (run.number, run.source, run.sink, run.owner) == (first.id, "numbers", "sink", owner())
    assert (run.times, run.clean, run.ended, run.codes) == (1, False, None, ((1, b"1" * 16),))
    assert asked(store, "stages", first.id) == STAGES
    asked(store, "leave_run", first.id)
    assert asked(store, "run", "r").clean
    begin(store, code=b"2" * 16)
    run = asked(store, "run", "r")
    assert (run.times, run.clean, run.codes) == (2, False, ((1, b"1" * 16), (2, b"2" * 16)))
    asked(store, "close_run", first.id)
    assert asked(store, "run", "r").ended >= run.began
    assert asked(store, "run", "R") is None
    assert [each.name for each in asked(store, "runs")] == ["r", "other"]


def test_dead_roots_and_what_becomes_of_them(store):
    opened = begin(store)
    a, b, c = put(store, opened, *(root_of(key, error=ValueError(key)) for key in "abc"))
    with closing(store.reader()) as reader:
        dead = [(each.root, each.run, each.key, each.version, each.letter.error) for each in reader.dead()]
        assert dead[0] == (a, "r", "a", "", "ValueError: a")
        assert [each[0] for each in dead] == [a, b, c]
        put(store, opened, root_of("a", {"n": 1}))
        asked(store, "discard", b)
        asked(store, "retry", c)
        assert list(reader.dead()) == []
        run = opened.id
        assert set(reader.counts()) == {(run, DONE, 1, 2, 1), (run, DEAD, 0, 1, 0)}
        assert [reader.known(run, key)[2:4] for key in "abc"] == [(DONE, 1), (DONE, 1), (DEAD, 0)]


@pytest.mark.parametrize("keeps", [True, False])
def test_a_dead_root_keeps_the_rows_of_the_version_before_if_the_run_says_so(store, keeps):
    opened = begin(store)
    opened = Opened(opened.id, "r", 1, clean=True, keeps_rows_of_dead=keeps)
    (number,) = put(store, opened, root_of("a", {"n": 1}, {"n": 2}))
    with store.transaction():
        store.journal.settle(opened, root_of("a", version="2", error=ValueError()))
        assert store.journal.rows_of(number) == (2 if keeps else 0)


def test_roots_are_done_again_by_their_openings_or_as_they_are_dead(store):
    first = begin(store)
    put(store, first, root_of("a", {"n": 1}), root_of("b", {"n": 2}, {"n": 3}))
    second = begin(store)
    put(store, second, root_of("c", {"n": 4}), root_of("d", error=ValueError()))
    run = first.id
    assert asked(store, "redo", run) != (0, 0)
    put(store, first, root_of("a", {"n": 1}), root_of("b", {"n": 2}, {"n": 3}))
    put(store, second, root_of("c", {"n": 4}), root_of("d", error=ValueError()))
    with store.transaction():
        redo = store.journal.redo
        assert redo(run, dead=True) == (1, 0)
        assert redo(run, openings=(2, None)) == (1, 1)
        assert redo(run, openings=(1, 2)) == (2, 3)
        assert redo(run, openings=(1, None)) == (0, 0)
        assert not list(store.journal.dead())
        assert store.journal.roots_with_rows(run) == 0


def test_a_run_is_forgotten_some_roots_at_a_time_or_at_once(store):
    opened = begin(store)
    numbers = put(store, opened, *(root_of(key, {"n": key}) for key in range(5)))
    with store.transaction():
        some = store.journal.some_roots(opened.id, 3)
        assert len(some) == 3
        assert set(some) <= {*map(RootId, numbers, range(5))}
        assert store.journal.roots_with_rows(opened.id) == 5
        assert sum(store.journal.forget(root.number) for root in some) == 3
        assert store.journal.forget_run(opened.id) == (2, 2)
        assert store.journal.run("r") is None
        assert list(store.journal.counts()) == []


def test_rows_that_are_lost_are_told(store):
    opened = begin(store)
    _, b, _ = put(store, opened, root_of("a", {"n": 1}), root_of("b", {"n": 2}), root_of("c"))
    assert list(asked_store(store, "lost", opened.id)) == []
    asked_store(store, "replace", RootId(b, "b"), ())
    assert list(asked_store(store, "lost", opened.id)) == [(b, 0)]
    asked(store, "retry", b, 0)
    assert list(asked_store(store, "lost", opened.id)) == []
    assert store.is_there()


def asked_store(store, question, *arguments):
    with store.transaction():
        return getattr(store, question)(*arguments)


def test_an_error_of_the_work_is_no_refusal_of_a_row(store):
    assert store.refusal(LookupError("x")) is None


def test_results_are_kept_until_no_run_has_their_stage(store):
    used, unused = STAGES[0].fingerprint, b"u" * 16
    opened = begin(store)
    with store.transaction():
        for stage in (used, unused):
            store.journal.remember(stage, b"item", b"before")
            store.journal.remember(stage, b"item", b"value")
    with closing(store.reader()) as reader:
        assert reader.recall(used, b"item") == b"value"
        assert reader.recall(used, b"other") is None
        assert reader.unused_memo() == unused
        asked(store, "drop_memo", unused)
        assert reader.unused_memo() is None
        asked(store, "forget_run", opened.id)
        assert reader.unused_memo() == used


def test_the_note_of_a_run_is_kept_as_long_as_the_run(store):
    opened = begin(store)
    with closing(store.reader()) as reader:
        writes = []
        note = RunNote(reader, writes.append, opened.id)
        assert note.read() is None
        for value in ({"paid": 1}, {"paid": 2}):
            note.write(value)
        (write,) = writes  # the last of a commit is enough
        with store.transaction():
            write(store.journal)
        note.write({"paid": 3})
        with store.transaction():
            writes.pop()(store.journal)
        assert note.read() == {"paid": 3}
        assert reader.unused_memo() is None
        asked(store, "forget_run", opened.id)
        assert reader.unused_memo() == note_key(opened.id)


def test_parts_wait_under_their_number_until_they_are_dropped_or_the_store_is_opened_again(sink, store):
    for number, part in [(1, b"a"), (2, b"x"), (1, b"b")]:
        asked(store, "stage", number, part)
    with store.transaction():
        assert list(store.journal.staged(1)) == [b"a", b"b"]
        store.journal.unstage(2)
        assert list(store.journal.staged(2)) == []
    store.close()
    with closing(sink.open("process")) as again, again.transaction():
        assert list(again.journal.staged(1)) == []


def test_an_opening_that_is_not_left_has_died_and_what_it_had_begun_is_known(sink, store):
    """Of the first death it is known how far its sources were read; after it, each root is noted that is begun."""
    opened = begin(store)
    with store.transaction():
        assert not store.journal.deaths.enter(opened.id, 1)
    reach = store.reach(opened.id, 1)
    assert reach is None or reach(1, 4) > 4
    store.close()
    with closing(sink.open("process")) as again:
        begin(again)
        with again.transaction():
            deaths = again.journal.deaths
            ((opening, noted, reached),) = deaths.last(opened.id)
            assert (opening, noted) == (1, False)
            assert reach is None or (reached[0], reached[1] > 4) == (0, True)
            assert deaths.enter(opened.id, 2)
            for position, key in enumerate(["a", "b", "c"]):
                deaths.dispatch(opened.id, 2, Root(key, "v", 9 - position, lambda _: None, 1))
            deaths.acquit(opened.id, "b")
            assert list(deaths.begun(opened.id, 2)) == [Suspect("c", "v", 7, 1, 1), Suspect("a", "v", 9, 1, 1)]
            assert deaths.enter(opened.id, 3)
            deaths.dispatch(opened.id, 3, Root("a", "v", 9, lambda _: None, 1))
            assert [each.attempts for each in deaths.begun(opened.id, 3)] == [2]
            settled = root_of("c")
            settled.dispatched = True
            again.journal.settle(opened, settled)
            assert [each.key for each in deaths.begun(opened.id, 2)] == ["a"]
            assert [death.opening for death in deaths.last(opened.id)] == [3, 2]
            deaths.begin_anew(opened.id, 3)
            assert list(deaths.begun(opened.id, 3)) == []
            again.journal.leave_run(opened.id)
            assert [death.opening for death in deaths.last(opened.id)] == [3, 1]
            deaths.forget(opened.id)
            assert list(deaths.last(opened.id)) == []


def numbers(count=6, *, spoilt=(), calls=None, version="", most=1):
    """A stream over numbers, which gives each a row `most` times; of some the work fails."""

    def work(number):
        if calls is not None:
            calls.append(number)
        if number in spoilt:
            raise ValueError(number)
        return [{"n": number, "version": version, "at": at} for at in range(most)]

    keyed = penstock.keyed(range(count), key=int, version=lambda _: version, name="numbers")
    return keyed.flat_map(work, on_error="collect")


def seen(sink):
    return sorted((row["n"], row["version"]) for row in sink.rows())


async def test_a_run_is_done_once_and_then_passed_over(sink):
    report = await numbers().to(sink, run="r")
    assert (report.delivered, report.rows, report.complete, report.guarantee) == (6, 6, True, "exactly once")
    again = await numbers(calls=(calls := [])).to(sink, run="r")
    assert (again.delivered, again.already_done, calls) == (0, 6, [])
    assert seen(sink) == [(number, "") for number in range(6)]
    (run,) = runs(sink)
    assert (run.name, run.state, run.times, run.done, run.rows) == ("r", "complete", 2, 6, 6)


async def test_a_run_that_is_cut_short_goes_on_where_it_was(sink):
    """By its limit, by its handle, and by an error of its source."""

    def failing():
        yield from range(4)
        raise LookupError("the source is gone")

    assert (await numbers().to(sink, run="r", limit=2)).limited
    assert [run.state for run in runs(sink)] == ["stopped"]
    unfinished = penstock.keyed(failing(), key=int, name="numbers").map(lambda n: {"n": n, "version": ""})
    with pytest.raises(LookupError):
        await unfinished.to(sink, run="r")
    async with numbers().deliver(sink, run="r") as run:
        run.stop()
        await run.finish()
    report = await numbers(calls=(calls := [])).to(sink, run="r")
    assert report.already_done + report.delivered == 6
    assert report.already_done >= 2
    assert len(calls) == report.delivered
    assert seen(sink) == [(number, "") for number in range(6)]


async def test_new_versions_take_the_place_of_old_rows_and_roots_that_are_gone_are_removed(sink):
    await numbers(most=2).to(sink, run="r")
    report = await numbers(4, version="2").to(sink, run="r", on_missing="delete")
    assert (report.redone, report.missing, report.removed) == (4, 2, 2)
    assert seen(sink) == [(number, "2") for number in range(4)]


async def test_dead_roots_are_told_and_tried_again(sink):
    report = await numbers(spoilt={2, 4}).to(sink, run="r")
    assert (report.delivered, report.dead, report.complete) == (4, 2, True)
    assert [(root.key, root.letters[0].item) for root in dead_roots(sink)] == [(2, "2"), (4, "4")]
    with pytest.raises(StoreError, match="no run 'x', there are 'r'"):
        dead_roots(sink, run="x")
    assert [root.key for root in retry(sink, keys=["2"])] == [2]
    report = await numbers().to(sink, run="r")
    assert (report.delivered, report.dead_before) == (1, 1)
    assert [root.key for root in discard(sink)] == [4]
    assert [(run.done, run.dead) for run in runs(sink)] == [(6, 0)]
    assert seen(sink) == [(number, "") for number in (0, 1, 2, 3, 5)]


async def test_roots_are_done_again_on_demand_and_runs_forgotten(sink):
    await numbers().to(sink, run="r")
    asked = redo(sink, run="r", keys=[1, 3])
    assert (asked.roots, asked.rows) == (2, 2)
    with pytest.raises(StoreError, match="no root '1' in run 'r', there are 1"):
        redo(sink, run="r", keys=["1"])
    await numbers(calls=(calls := [])).to(sink, run="r")
    assert calls == [1, 3]
    assert redo(sink, run="r", which="missing rows").roots == 0
    assert redo(sink, run="r", which="all").roots == 6
    gone = forget(sink, run="r", rows="remove")
    assert (gone.roots, gone.rows, gone.removed) == (6, 6, True)
    assert seen(sink) == []


def one(number):
    return {"n": number, "version": "1"}


def two(number):
    return {"n": number, "version": "2"}


async def test_roots_that_other_code_made_are_told_and_done_again_on_demand(sink):
    source = penstock.keyed(range(4), key=int, name="numbers")
    await source.map(one).to(sink, run="r")
    report = await source.map(two).to(sink, run="r")
    assert (report.by_other_code, report.already_done, report.changed) == (4, 4, ("map(two)",))
    assert [run.by_other_code for run in runs(sink)] == [4]
    with pytest.raises(StoreError, match="the code of the run 'r' has changed"):
        await source.map(one).to(sink, run="r", on_change="refuse")
    assert redo(sink, run="r", which="other code").roots == 4
    assert (await source.map(two).to(sink, run="r")).redone == 4
    assert redo(sink, run="r", which="other code").roots == 0
    assert (await source.map(one).to(sink, run="r", on_change="restart")).redone == 4
    assert seen(sink) == [(number, "1") for number in range(4)]
    with pytest.raises(StoreError, match="is over numbers, not over others"):
        await penstock.keyed(range(4), key=int, name="others").map(one).to(sink, run="r")


async def test_rows_of_unfinished_roots_wait_in_the_journal(sink, monkeypatch):
    monkeypatch.setattr("penstock.durable.delivery.HELD", 20)
    report = await numbers(3, most=200).to(sink, run="r")
    assert (report.rows, report.complete) == (600, True)
    assert [row["at"] for row in sink.rows()] == [*range(200)] * 3


async def test_results_are_kept_between_runs(sink):
    if isinstance(sink, FilesOfRows):
        pytest.skip("two runs cannot have the same files")
    PAID.clear()
    for run in ("a", "b"):
        stream = penstock.keyed(range(5), key=int, name="numbers").map(pay, memo=True)
        assert (await stream.to(sink, run=run)).recalled == (5 if run == "b" else 0)
    assert [*range(5)] == PAID


PAID = []


def pay(number):
    PAID.append(number)
    return {"n": number, "version": ""}


async def test_a_row_that_the_store_refuses_is_the_failure_of_its_root(tmp_path):
    """Whatever its database raises: `refusal` says what that means."""
    sink = MemorySink(refused=[{"n": 2, "version": "", "at": 0}])
    report = await numbers().to(sink, run="r")
    assert (report.delivered, report.dead) == (5, 1)
    assert [root.letters[0].error for root in dead_roots(sink)] == [
        "RowError: memory cannot hold {'n': 2, 'version': '', 'at': 0}"
    ]
    with pytest.raises(penstock.sinks.RowError):
        await numbers().to(MemorySink(refused=sink.refused), run="r", on_error="raise")


async def test_a_run_of_which_nothing_is_left_is_refused_with_what_can_be_done():
    """A store that is no file is told as one: no command of the shell would find it."""
    sink = MemorySink()
    await numbers().to(sink, run="r")
    sink.journal.content.rows.clear()
    with pytest.raises(
        StoreError, match=r"memory: .*; penstock\.durable\.redo\(sink, run='r', which=\"missing rows\"\) has"
    ):
        await numbers().to(sink, run="r")
    assert redo(sink, run="r", which="missing rows").roots == 6
    assert (await numbers().to(sink, run="r")).redone == 6


@pytest.mark.parametrize("journal", [None, "sent.db"])
def test_what_has_neither_path_nor_journal_is_no_sink(journal):
    class Nowhere:
        delivery = "exactly once"

        def open(self, durability):
            raise NotImplementedError

    sink = Nowhere()
    sink.journal = journal
    with pytest.raises(penstock.OptionError, match="sink must be a sink"):
        runs(sink)
    with pytest.raises(penstock.OptionError, match="sink must be a sink"):
        numbers().deliver(sink, run="r")


@pytest.mark.parametrize("nth", range(1, 11))
async def test_killed_at_any_commit_a_run_has_each_row_once(nth):
    """P10, P11: what was committed is passed over, all else is done again."""
    sink, died = MemorySink(), 0
    for life, dies_at in enumerate((nth, nth + 1, nth, None)):
        sink.journal.commits_left = dies_at
        before = len(sink.rows())
        try:
            report = await numbers(20, calls=(calls := [])).to(sink, run="r", find_killers=life < 2)
        except StoreError:
            died += 1
            assert [each.clean for each in sink.journal.content.runs.values()] in ([False], [])
        else:
            assert (report.already_done, len(calls)) == (before, 20 - before)
    assert died
    assert report.complete
    assert seen(sink) == [(number, "") for number in range(20)]


def test_another_store_needs_nothing_of_sqlite():
    """Its run, and what is asked of its journal, import no apsw."""
    code = (
        "import asyncio, sys; sys.modules['apsw'] = None; import penstock\n"
        "from penstock.durable import dead_roots, runs\n"
        "from tests.durable.memory import MemorySink\n"
        "sink = MemorySink()\n"
        "numbers = penstock.keyed(range(3), key=int).map(lambda n: 1 // n, on_error='collect')\n"
        "print(asyncio.run(numbers.to(sink, run='r')).delivered, len(dead_roots(sink)), runs(sink)[0].state)\n"
        "print(any('sqlite' in name for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("2 1 complete\nFalse\n", "")
