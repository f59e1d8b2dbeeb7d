"""What is done is passed over: in any order, in flat memory, with the loop free for others; and what comes twice."""

import asyncio
import os
import random
import signal
import threading
import time
import tracemalloc
from contextlib import asynccontextmanager, suppress

import apsw
import pytest

import penstock
from penstock import drain_on_signals
from penstock.durable.ledger import Identity
from penstock.durable.sqlite.reader import SqliteReader
from penstock.durable.store_errors import DamageError
from penstock.sinks.table import SqliteTable, TableStore
from penstock.sources.read_ahead import read_ahead

pytestmark = pytest.mark.real_time


@pytest.fixture
def table(tmp_path):
    return SqliteTable(tmp_path / "out.db", "items")


def itself(item):
    return item


def no_rows(_):
    return ()


def run(source, table, *, name="r", version=None, **options):
    """Roots that come to no rows: the journal alone knows them."""
    return penstock.keyed(source, key=itself, version=version).flat_map(no_rows).to(table, run=name, **options)


def orders(number):
    """The keys of so many roots, in several orders."""
    keys = [f"k{key:05}" for key in range(number)]
    dice = random.Random(number)
    shuffled = dice.sample(keys, number)
    blocks = [keys[at : at + 50] for at in range(0, number, 50)]
    dice.shuffle(blocks)
    return {
        "in order": keys,
        "backwards": keys[::-1],
        "shuffled": shuffled,
        "block by block": [key for block in blocks for key in block],
        "in order, then not, then in order": [*keys[: number // 3], *shuffled[:40], *keys[number // 3 :]],
    }


@pytest.mark.parametrize("order", orders(0))
async def test_what_is_done_is_passed_over_in_any_order(table, order):
    keys = list(dict.fromkeys(orders(3000)[order]))
    assert (await run(keys[:2500], table)).delivered == 2500
    changed = set(keys[::7])
    report = await run(keys, table, version=lambda key: "new" * (key in changed))
    assert report.already_done == 2500 - len(changed & set(keys[:2500]))
    assert report.redone == len(changed & set(keys[:2500]))
    assert report.delivered == report.redone + 500
    assert report.missing == 0


def mixed(dice, keys, most):
    """Some of the keys, mostly in order: a few are new, are in another place, or come twice."""
    taken = [key for key in keys if dice.random() < 0.9] + [f"{dice.choice(keys)}n" for _ in range(dice.choice([0, 3]))]
    taken.sort()
    for _ in range(dice.randrange(most)):
        taken.insert(dice.randrange(len(taken)), taken.pop(dice.randrange(len(taken))))
    for _ in range(dice.randrange(most)):
        taken.insert(dice.randrange(len(taken)), dice.choice(taken))
    return taken


@pytest.mark.parametrize("seed", range(4))
async def test_roots_that_are_passed_over_together_are_the_ones_that_would_be_alone(table, seed):
    """Among them are dead ones, changed ones, those of several openings, and keys that come twice."""
    dice = random.Random(seed)
    keys = [f"k{key:04}" for key in range(300)]
    versions = {}  # of what is settled
    dead, again = set(), set()
    for opening in range(4):
        known = set(versions)
        again |= {key for key in known if dice.random() < 0.03}
        mark_for_redoing(table, again)
        items = mixed(dice, keys, 4) if opening else dice.sample(keys, dice.choice([200, 300]))
        once = dict.fromkeys(items)
        now = {key: f"v{opening}" * (dice.random() < 0.05) or versions.get(key, "") for key in once}
        fails = {key for key in once if dice.random() < 0.02}

        def work(key, fails=fails):
            if key in fails:
                raise ValueError(key)
            return ()

        stream = penstock.keyed(items, key=itself, version=now.get).flat_map(work, on_error="collect")
        report = await stream.to(table, run="r", on_duplicate="first")
        begun = {key for key in once if versions.get(key) != now[key] or key in again}
        assert report.duplicates == len(items) - len(once)
        assert report.redone == len(begun & known)
        assert report.delivered == len(begun - fails)
        assert report.dead == len(begun & fails)
        assert report.dead_before == len((dead & set(once)) - begun)
        assert report.already_done == len(set(once) - begun - dead)
        assert report.missing == len(known - set(once))
        versions |= now
        again -= begun
        dead = (dead - begun) | (begun & fails)


def mark_for_redoing(table, keys):
    connection = apsw.Connection(str(table.path))
    connection.executemany("UPDATE penstock_roots SET times = 0 WHERE key = ?", ((key,) for key in keys))
    connection.close()


@pytest.mark.parametrize("is_alone", [False, True])
async def test_nothing_is_read_behind_an_item_that_is_to_be_done(table, is_alone):
    """P2, among roots that are passed over together."""
    keys = [f"k{key:04}" for key in range(300)]
    await run(keys[: 1 if is_alone else None], table)
    read = []
    seen = []

    def work(_):
        seen.append(len(read))
        return ()

    source = (read.append(key) or key for key in [*keys[:100], "k0099n", *keys[100:]])
    await penstock.keyed(source, key=itself).flat_map(work, concurrency=1, ordered=False).to(table, run="r")
    assert seen[0] == (2 if is_alone else 101)


async def test_keys_that_are_equal_to_those_of_done_roots_are_no_keys_for_that(table):
    await run(range(4), table)
    with pytest.raises(penstock.OptionError, match=r"key must give a str or an int, got 2\.0 for item 2"):
        await run([0, 1, 2.0, 3], table)


async def test_a_key_that_came_too_early_and_comes_again_in_its_place_came_twice(table):
    await run(range(9), table)
    with pytest.raises(penstock.DuplicateKeyError, match="the key 5 stands twice"):
        await run([0, 1, 5, 2, 3, 4, 5, 6], table)


async def test_a_key_or_version_that_fails_within_a_page_is_the_failure_of_its_item(table):
    await run(range(9), table, version=str)
    with pytest.raises(ZeroDivisionError):
        await penstock.keyed(range(9), key=lambda n: n // (n != 5), version=str).to(table, run="r")
    with pytest.raises(ZeroDivisionError):
        await run(range(9), table, version=lambda n: str(n // (n != 5)))


@pytest.mark.parametrize("changed", ["state = 7", "times = 9", "times = -1"])
@pytest.mark.parametrize("key", [0, 1, 5])
async def test_a_root_in_no_state_or_of_no_opening_is_damage(table, changed, key):
    """It counted as neither done nor dead, or as done for ever."""
    await run(range(9), table)
    connection = apsw.Connection(str(table.path))
    connection.execute(f"UPDATE penstock_roots SET {changed} WHERE key = ?", (key,))
    connection.close()
    with pytest.raises(DamageError, match=rf"out.db: the database is damaged: the root {key} is in state"):
        await run(range(9), table)


async def test_roots_are_read_again_only_if_some_are_missing(table, monkeypatch):
    """To count them costs a tenth of that."""
    pages = []
    settled = SqliteReader.settled
    monkeypatch.setattr(SqliteReader, "settled", lambda *args: pages.append(args) or settled(*args))
    monkeypatch.setattr("penstock.durable.done._COUNTED", 7)
    keys = [f"k{key:02}" for key in range(50)]
    for items, changed, missing in ((keys, 0, 0), (keys, 0, 0), ([*keys, "new"], 5, 0), (keys, 5, 1)):
        report = await run(items, table, version=lambda key, changed=changed: "new" * (key in keys[:changed]))
        assert (report.missing, bool(pages)) == (missing, missing > 0)


async def test_keys_of_both_kinds_can_stand_in_one_source(table):
    keys = [key for number in range(500) for key in (number - 250, str(number))]
    await run(keys, table)
    assert (await run(keys, table)).already_done == 1000
    assert (await run(sorted(keys, key=str), table)).already_done == 1000


@pytest.mark.parametrize("gap", [2, 7, 300])
async def test_a_source_that_has_lost_items_and_gained_others_is_compared_right(table, gap):
    old = [f"k{key:05}" for key in range(0, 4000, 2)]
    await run(old, table)
    new = sorted([*old[::gap], *(f"k{key:05}" for key in range(1, 4000, 2))])
    report = await run(new, table)
    assert report.already_done == len(old[::gap])
    assert report.delivered == 2000
    assert report.missing == 2000 - len(old[::gap])


@pytest.mark.slow
@pytest.mark.parametrize("again", [0, 700, 1499, 1999, 2999])
@pytest.mark.parametrize("before", [0, 1500, 3000])
async def test_a_key_that_comes_twice_is_an_error_wherever_it_comes(table, before, again):
    """Among roots that were done before, are under way, or were done in this run."""
    keys = [f"k{key:05}" for key in range(3000)]
    await run(keys[:before], table)
    with pytest.raises(penstock.DuplicateKeyError, match=f"the key '{keys[again]}' stands twice .* at item 3000"):
        await run([*keys, keys[again]], table)


async def test_a_key_that_comes_twice_names_both_places(table):
    with pytest.raises(penstock.DuplicateKeyError, match="twice in the source: at item 1 and at item 3"):
        await run(["a", "b", "c", "b"], table)


async def test_a_changed_root_that_comes_twice_is_done_once(table):
    """Also long after its page was read, and after it was committed."""
    keys = [f"k{key:05}" for key in range(2000)]
    await run(keys, table)
    with pytest.raises(penstock.DuplicateKeyError, match="'k00005' stands twice"):
        await run([*keys, "k00005"], table, version=lambda key: "new" * (key < "k00010"))


async def test_a_new_key_that_came_out_of_order_is_known_when_it_comes_again(table):
    """Also when it was committed after a page was read that says that it is not there."""
    keys = [f"k{key:05}" for key in range(3000)]
    await run(keys, table)
    gate = asyncio.Event()

    def is_known(key):
        connection = apsw.Connection(str(table.path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            return bool(list(connection.execute("SELECT 1 FROM penstock_roots WHERE key = ?", (key,))))
        finally:
            connection.close()

    async def source():
        for key in random.Random(3).sample(keys[:200], 200):
            yield key
        yield "k9"
        for key in keys[200:]:
            yield key
        gate.set()
        while not is_known("k9"):  # noqa: ASYNC110 -- another thread writes it
            await asyncio.sleep(0.001)
        yield "k9"

    async def work(_):
        await gate.wait()
        return ()

    stream = penstock.keyed(source, key=itself).flat_map(work, concurrency=2, ordered=False)
    with pytest.raises(penstock.DuplicateKeyError, match="the key 'k9' stands twice"):
        await stream.to(table, run="r")


async def test_runs_and_joined_sources_do_not_see_each_others_roots(table):
    keys = [f"k{key:05}" for key in range(1500)]
    await run(keys, table, name="one")
    assert (await run(keys, table, name="two")).delivered == 1500
    sources = [penstock.keyed(keys, key=itself), penstock.keyed(keys[::-1], key=itself)]
    both = penstock.merge(*sources).flat_map(no_rows)
    assert (await both.to(table, run="both")).delivered == 3000
    assert (await both.to(table, run="both")).already_done == 3000


async def test_keys_in_order_are_read_a_page_at_a_time(table, monkeypatch):
    """The index is read along with them: few queries, and none that is long."""
    keys = [f"k{key:05}" for key in range(20_000)]
    await run(keys, table)
    asked = []

    def counted(method):
        return lambda self, run, key, *rest: asked.append(key) or method(self, run, key, *rest)

    for name in ("known", "known_from"):
        monkeypatch.setattr(SqliteReader, name, counted(getattr(SqliteReader, name)))
    await run(keys, table)
    assert len(asked) < 30
    asked.clear()
    await run(["k19999", *keys[:-1]], table)  # one that is out of order is no lasting matter
    assert len(asked) < 60


@asynccontextmanager
async def watched():
    """Gives a function that says for how long nobody else had the loop, in processor time of its thread."""
    longest = 0.0

    async def watch():
        nonlocal longest
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            longest, before = max(longest, time.thread_time() - before), time.thread_time()

    watching = asyncio.create_task(watch())
    yield lambda: longest
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching


@pytest.mark.slow
async def test_others_get_the_loop_while_much_is_passed_over(table):
    """P9, and while what is missing is looked for."""
    keys = [f"k{key:06}" for key in range(60_000)]
    await run(keys, table)
    async with watched() as longest:
        await run(keys[:40_000], table)
    assert longest() < 0.010


async def test_others_get_the_loop_where_keys_take_long(table):
    """Also where many items are there at once, read by a thread."""

    def key(number):
        until = time.thread_time() + 0.0002
        while time.thread_time() < until:
            pass
        return number

    stream = read_ahead("numbers", lambda _: (n for n in range(600)), Identity("numbers", key, str)).flat_map(no_rows)
    await stream.to(table, run="r")
    async with watched() as longest:
        await stream.to(table, run="r")
    assert longest() < 0.010


@pytest.mark.slow
async def test_memory_does_not_grow_with_what_is_done(table):
    """A bit for each root; pages of the index; nothing else."""

    def keys(number):
        return (f"k{key:06}" for key in range(number))

    peaks = []
    for number in (20_000, 80_000):
        await run(list(keys(number)), table)
        tracemalloc.start()
        await run(lambda number=number: keys(number // 2), table)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000


async def test_a_stream_of_done_roots_has_its_statistics(table):
    await run(["a", "b", "c"], table)
    async with penstock.keyed(["a"], key=itself).open() as items:
        assert [stage.name for stage in items.stats().stages] == ["source"]


class Watched(SqliteTable):
    """A table of small commits that notes who removes how many roots in each."""

    def __init__(self, path, during=lambda: None):
        super().__init__(path, "items")
        self.removed = []
        self.during = during

    def open(self, durability):
        store = TableStore(self, durability)
        store.largest = 10
        replace, transaction = store.replace, store.transaction

        def watched_replace(root, rows):
            if rows == ():
                self.removed[-1].append(threading.current_thread().name)
                self.during()
            replace(root, rows)

        def watched_transaction():
            self.removed.append([])
            return transaction()

        store.replace, store.transaction = watched_replace, watched_transaction
        return store


def rows_of(keys, sink, **options):
    rows = penstock.keyed(keys, key=itself).flat_map(lambda key: [{"key": key}] * 3)
    return rows.to(sink, run="r", **options)


async def test_roots_that_are_missing_are_removed_beside_the_loop_a_few_at_a_time(tmp_path):
    """P9: no transaction is longer than one commit may be, and none holds the loop."""
    sink = Watched(tmp_path / "out.db")
    await rows_of(range(20), sink)
    sink.removed.clear()
    report = await rows_of(range(2), sink, on_missing="delete")
    assert (report.missing, report.removed, report.complete) == (18, 18, True)
    commits = [commit for commit in sink.removed if commit]
    assert [len(commit) for commit in commits] == [3] * 6  # of a root and three rows each
    assert {name for commit in commits for name in commit} == {"penstock writer"}
    assert [row["key"] for row in sink.rows()] == [0] * 3 + [1] * 3


async def test_a_run_that_is_stopped_removes_no_more(tmp_path):
    """A signal is answered between two commits; the next run goes on."""
    sink = Watched(tmp_path / "out.db")
    await rows_of(range(20), sink)

    def stop():
        sink.during = lambda: None
        os.kill(os.getpid(), signal.SIGTERM)

    sink.during = stop
    with drain_on_signals():
        report = await rows_of([], sink, on_missing="delete_all")
    assert (report.removed in {3, 6}, report.complete) == (True, False)  # one more may have begun
    again = await rows_of([], sink, on_missing="delete_all")
    assert (again.removed, again.complete) == (20 - report.removed, True)
