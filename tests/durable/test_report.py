"""What a durable run says of itself: the report, the log, the progress."""

import asyncio
import logging
from pathlib import Path
from typing import TypeAliasType

import pytest

import penstock
from penstock.durable import retry
from penstock.durable.store_errors import StoreError
from penstock.sinks.callback import Callback
from penstock.sinks.table import SqliteTable

pytestmark = pytest.mark.real_time


@pytest.fixture
def table(tmp_path):
    return SqliteTable(tmp_path / "t.db", "rows")


async def row(number):
    if number == 13:
        raise ValueError(number)
    return {"number": number}


def stream(numbers, version="", **options):
    return penstock.keyed(numbers, key=int, version=lambda _: version, name="numbers").map(row, **options)


async def test_a_report_is_a_line(table):
    report = await stream(range(3)).to(table, run="r")
    parts = str(report).split("; ")
    assert parts[:3] == [f"run 'r' into {table.path}: 3 delivered", "0 already done", "0 dead"]
    assert parts[3].startswith("3 rows, ")
    assert parts[3].endswith(" s, exactly once")
    assert report.commits >= 1
    assert report.seconds > 0


async def test_it_says_what_was_there_before(table):
    await stream(range(20), on_error="collect").to(table, run="r")
    report = await stream(range(5, 25), on_error="collect").to(table, run="r")
    assert (report.delivered, report.already_done, report.dead_before, report.missing) == (5, 14, 1, 5)
    assert "5 delivered; 14 already done; 0 dead (1 from before); 5 missing, kept; 5 rows" in str(report)
    report = await stream([5], version="2").to(table, run="r", on_missing="delete")
    assert (report.redone, report.missing, report.removed) == (1, 24, 24)
    assert ": 1 delivered; 1 begun again (changed or retried); 0 already done; 0 dead;" in str(report)
    assert "24 missing, 24 removed" in str(report)


async def test_a_root_that_is_retried_and_fails_again_was_not_delivered(table):
    await stream([13], on_error="collect").to(table, run="r")
    retry(table.path)
    report = await stream([13], on_error="collect").to(table, run="r")
    assert ": 0 delivered; 1 begun again (changed or retried); 0 already done; 1 dead; 0 rows, 1 commit, " in str(
        report
    )


async def test_it_has_the_statistics_of_every_stage(table):
    report = await stream(range(20), on_error="skip", concurrency=3, name="work").to(table, run="r")
    work = report.stats[-1]
    assert (work.name, work.taken, work.delivered, work.failed, work.peak_running) == ("work", 20, 19, 1, 1)
    assert [failure.root for failure in report.failures] == []
    report = await stream(range(20), version="2", on_error="collect").to(table, run="r")
    assert [(failure.root, str(failure.error)) for failure in report.failures] == [(13, "13")]


async def test_the_log_tells_the_guarantee_at_the_start_and_what_was_done_at_the_end(table, tmp_path, caplog):
    caplog.set_level(logging.INFO, "penstock")
    report = await stream(range(3)).to(table, run="r")
    messages = [each.getMessage() for each in caplog.records]
    assert messages[0] == f"run 'r' into {table.path}: exactly once, durability process"
    assert str(report) in messages
    caplog.clear()
    await stream(range(3)).to(table, run="r", durability="power")
    assert caplog.messages[0] == f"run 'r' into {table.path}: exactly once, durability power, begun 2 times"
    caplog.clear()
    await stream(range(3)).to(Callback(lambda rows: None, journal=tmp_path / "sent.db"), run="r")
    assert caplog.messages[0].endswith("sent.db: at least once, durability process")


async def test_the_log_tells_also_of_a_run_that_fails_and_the_error_how_to_go_on(table, caplog):
    caplog.set_level(logging.INFO, "penstock")
    with pytest.raises(ValueError, match="13") as caught:
        await stream(range(20)).to(table, run="r")
    how = "what was finished is stored; run it again to go on"
    assert f"penstock: run 'r' into {table.path} has failed: {how}" in caught.value.__notes__
    assert any("13 delivered" in each and each.endswith(f"(stopped before its end: {how})") for each in caplog.messages)


async def test_a_run_that_could_not_be_opened_has_no_such_note(table):
    await stream(range(3)).to(table, run="r")
    with pytest.raises(StoreError) as caught:
        await penstock.keyed("abc", key=str, name="letters").to(table, run="r")
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("then", ["removed", "replaced"])
async def test_nobody_is_told_to_go_on_where_the_database_is_gone(table, tmp_path, then):
    """P10: what was finished is gone with it."""

    def gone(number):
        path = Path(table.path)
        if then == "replaced":
            (tmp_path / "copy").write_bytes(path.read_bytes())
            (tmp_path / "copy").replace(path)
        else:
            path.unlink()
        return {"number": number}

    with pytest.raises(StoreError, match="was removed or replaced") as caught:
        await penstock.keyed([1], key=int).map(gone).to(table, run="r")
    assert not hasattr(caught.value, "__notes__")


async def test_progress_is_shown_as_that_of_an_opened_stream(table, capsys):
    await stream(range(3), name="work").to(table, run="r", progress=True)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("0 s: source 3 (+0), ")
    assert line.endswith(", work 3 (+0); 0 failed")
    await stream(range(3)).to(table, run="r")
    assert capsys.readouterr().err == ""


async def test_progress_without_rich_says_what_to_install(table, monkeypatch, tmp_path):
    monkeypatch.setattr("penstock.progress.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="needs rich: pip install"):
        await stream(range(3)).to(table, run="r", progress=True)
    assert list(tmp_path.iterdir()) == []


async def test_bad_options_are_named_and_nothing_is_made(table, tmp_path):
    for options, rule in (
        ({"progress": 1}, "progress must be True or False, got 1"),
        ({"run": ""}, "run must be a non-empty str, got ''"),
        ({"durability": "rock"}, "durability must be one of 'process', 'power', got 'rock'"),
        ({"on_missing": "ask"}, "on_missing must be one of 'keep', 'delete', 'delete_all', got 'ask'"),
    ):
        with pytest.raises(penstock.OptionError, match=rule):
            await stream(range(3)).to(table, **{"run": "r"} | options)
    assert list(tmp_path.iterdir()) == []


async def test_a_failing_sink_ends_work_that_waits(table):
    """Nothing more arrives from the stream, and the sink cannot take what came: nobody must wait for the others."""
    cancelled, all_begun = [], asyncio.Event()

    async def work(number):
        if number == 3:
            all_begun.set()
        if number:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(number)
                raise
        await all_begun.wait()
        return "no mapping"

    with pytest.raises(penstock.OptionError, match="a row must be a mapping of columns to values, got 'no mapping'"):
        await penstock.keyed(range(4), key=int).map(work, concurrency=4).to(table, run="r")
    assert sorted(cancelled) == [1, 2, 3]


def test_the_names_are_public():
    assert penstock.SqliteTable is SqliteTable
    assert penstock.Callback is Callback
    assert penstock.RunReport.__doc__
    assert set(penstock.sinks.__all__) <= set(dir(penstock.sinks))
    for package in (penstock.sinks, penstock.durable):
        values = [getattr(package, name) for name in package.__all__]
        assert all(isinstance(value, TypeAliasType) or value.__doc__ for value in values)
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            package.nothing  # noqa: B018 -- the access is the test
