"""What is done, when the code of a stage has changed: it stays, it is done again, or the run is refused."""

import asyncio
from collections import Counter

import pytest

from penstock import OptionError
from penstock.durable.store_errors import StoreError
from penstock.sinks.table import SqliteTable
from penstock.sources.keyed import keyed

from .dying import ask, kill_this, life, wait_until

pytestmark = pytest.mark.real_time

SOURCE = "async def embed(item):\n    called(item)\n    return {'item': item, 'by': 'WHICH'}\n"


def code(which, called):
    """The function as it is in one version of a program."""
    names = {"called": called, "__name__": "program"}
    exec(SOURCE.replace("WHICH", which), names)  # as importing does
    return names["embed"]


async def go(sink, which, count=6, **options):
    called = []
    stream = keyed(range(count), key=lambda item: item).map(code(which, called.append))
    return await stream.to(sink, run="run", **options), called


def by(sink):
    return Counter(row["by"] for row in sink.rows())


@pytest.fixture
def sink(tmp_path):
    return SqliteTable(tmp_path / "out.db", "rows")


async def test_done_stays_done_and_the_rest_is_done_by_the_new_code(sink, caplog):
    await go(sink, "old", 4)
    report, called = await go(sink, "new")
    assert called == [4, 5]
    assert by(sink) == {"old": 4, "new": 2}
    assert report.changed == ("map(embed)",)
    assert "code changed: map(embed)" in str(report)
    assert "run 'run': the code has changed since the last time: map(embed)" in caplog.messages
    report, called = await go(sink, "new")
    assert report.changed == ()
    assert called == []


async def test_restart_does_all_of_it_again(sink):
    await go(sink, "old")
    report, called = await go(sink, "new", on_change="restart")
    assert called == [0, 1, 2, 3, 4, 5]
    assert (report.delivered, report.redone, report.already_done) == (6, 6, 0)
    assert by(sink) == {"new": 6}
    report, called = await go(sink, "new", on_change="restart")
    assert called == []
    assert report.already_done == 6


async def test_restart_does_again_what_other_code_made_at_any_time(sink):
    """Between the change and the restart, a run with the default went over what was done: it stayed so."""
    await go(sink, "old", 4)
    await go(sink, "new")
    report, called = await go(sink, "new", on_change="restart")
    assert called == [0, 1, 2, 3]
    assert (report.delivered, report.redone, report.already_done, report.by_other_code) == (4, 4, 2, 0)
    assert by(sink) == {"new": 6}
    _, called = await go(sink, "new", on_change="restart")
    assert called == []


async def test_it_says_how_much_of_what_is_done_was_made_by_other_code(sink):
    await go(sink, "old", 4)
    report, _ = await go(sink, "new")
    assert (report.already_done, report.by_other_code) == (4, 4)
    assert "; 4 already done (4 by other code); " in str(report)
    report, _ = await go(sink, "new")
    assert "; 6 already done (4 by other code); " in str(report)
    report, _ = await go(sink, "newer", 7)
    assert (report.already_done, report.by_other_code) == (6, 6)
    report, _ = await go(sink, "new", 7)
    assert (report.already_done, report.by_other_code) == (7, 5)


async def test_code_that_comes_back_made_what_it_had_made(sink):
    """The first code once more: what it did counts as its own, and only what the second has done is done again."""
    await go(sink, "old", 3)
    await go(sink, "new", 6)
    report, called = await go(sink, "old", 6, on_change="restart")
    assert called == [3, 4, 5]
    assert report.already_done == 3
    assert by(sink) == {"old": 6}


async def test_a_restart_after_many_changes_leaves_what_is_of_this_code(sink):
    for count in range(1, 9):
        await go(sink, f"code {count % 3}", count)
    report, called = await go(sink, "code 0", 9, on_change="restart")
    assert called == [0, 1, 3, 4, 6, 7, 8]
    assert (report.already_done, report.by_other_code) == (2, 0)
    assert by(sink) == {"code 0": 9}


async def test_a_restart_is_of_its_own_run_only(sink):
    other = keyed(range(10, 13), key=lambda item: item).map(code("old", abs))
    await other.to(sink, run="another")
    await go(sink, "old")
    await go(sink, "new", on_change="restart")
    assert by(sink) == {"new": 6, "old": 3}
    assert (await other.to(sink, run="another", on_change="restart")).already_done == 3


async def test_without_a_change_restart_does_nothing_again(sink):
    await go(sink, "old", 4)
    report, called = await go(sink, "old", on_change="restart")
    assert called == [4, 5]
    assert report.redone == 0


def test_a_restart_replaces_root_by_root_and_goes_on_when_it_was_killed(sink, tmp_path):
    """What the killed one has done again is not done a third time; what it had not reached has kept its rows."""
    asyncio.run(go(sink, "old", 20))

    def die_at_twelve(item):
        if item == 12:
            wait_until(lambda: by(sink)["new"] == 12)
            kill_this()

    async def restart():
        stream = keyed(range(20), key=lambda item: item).map(code("new", die_at_twelve))
        await stream.to(sink, run="run", on_change="restart")

    assert life(restart) == -9
    assert by(sink) == {"new": 12, "old": 8}
    report, called = asyncio.run(go(sink, "new", 20))  # also without the option: the restart has begun
    assert called == [12, 13, 14, 15, 16, 17, 18, 19]
    assert (report.changed, report.redone, report.already_done) == ((), 8, 12)
    assert by(sink) == {"new": 20}


async def test_dead_roots_are_tried_again_by_a_restart(sink):
    def stream(sign):
        async def fail(item):
            if item == 1 and sign > 0:
                raise ValueError(item)
            return {"item": item}

        return keyed(range(3), key=lambda item: item).map(fail, on_error="collect")

    assert (await stream(1).to(sink, run="run")).dead == 1
    assert (await stream(-1).to(sink, run="run")).dead_before == 1
    report = await stream(-2).to(sink, run="run", on_change="restart")
    assert (report.dead, report.dead_before, report.delivered) == (0, 0, 3)


async def test_refuse_names_the_stages_and_leaves_everything_as_it_was(sink):
    await go(sink, "old", 4)
    before = ask(sink.path, "SELECT * FROM penstock_runs")
    with pytest.raises(StoreError, match=r"out\.db: the code of the run 'run' has changed: map\(embed\); on_change="):
        await go(sink, "new", on_change="refuse")
    assert ask(sink.path, "SELECT * FROM penstock_runs") == before
    _, called = await go(sink, "old", on_change="refuse")
    assert called == [4, 5]


async def test_stages_that_are_new_or_gone_are_changes(sink):
    base = keyed(range(2), key=lambda item: item).map(code("old", abs))
    await base.to(sink, run="run")
    assert (await base.filter(bool).to(sink, run="run")).changed == ("filter(bool) (new)",)
    assert (await base.to(sink, run="run")).changed == ("filter(bool) (gone)",)


async def test_deps_are_part_of_the_code(sink):
    def stream(model):
        return keyed(range(2), key=lambda item: item).map(code("old", abs), deps={"model": model}, name="embed")

    assert (await stream("small").to(sink, run="run")).changed == ()
    assert (await stream("small").to(sink, run="run")).changed == ()
    assert (await stream("large").to(sink, run="run")).changed == ("embed",)


async def test_runs_into_one_sink_have_codes_of_their_own(sink):
    await go(sink, "old")
    report = await keyed(range(2), key=lambda item: item).map(code("new", abs)).to(sink, run="another")
    assert report.changed == ()
    assert (await go(sink, "old"))[0].changed == ()


async def test_an_unknown_word_is_refused(sink):
    with pytest.raises(OptionError, match="on_change must be one of 'continue', 'restart', 'refuse', got 'redo'"):
        await go(sink, "old", on_change="redo")
