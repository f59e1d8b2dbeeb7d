"""Dead roots and the standing of runs, as a program sees them; `tests/cli/test_runs.py` has what the command prints."""

import asyncio
import os

import pytest

import penstock
from penstock import durable
from penstock.durable.letters import Letters
from penstock.durable.writer import Writer
from penstock.sinks.table import SqliteTable

pytestmark = pytest.mark.real_time


async def texts(root):
    """Rows of a root: as many as it has letters; one that is called `bad` fails in its third."""
    if root == "bad":
        raise ValueError(root)
    return [{"root": root, "letter": letter} for letter in root]


def stream(roots, version="1", **options):
    source = penstock.keyed(roots, key=str, version=lambda _: version)
    return source.map(texts, on_error="collect", **options).flatten()


@pytest.fixture
def table(tmp_path):
    return SqliteTable(tmp_path / "t.db", "letters")


async def test_the_report_counts_the_dead_and_holds_what_failed(table):
    report = await stream(["ab", "bad"]).to(table, run="r")
    assert (report.delivered, report.dead, report.dead_before, report.rows) == (1, 1, 0, 2)
    (failed,) = report.failures
    assert (failed.root, failed.item, str(failed.error)) == ("bad", "bad", "bad")
    assert [stage.failed for stage in report.stats] == [0, 0, 1, 0]
    again = await stream(["ab", "bad"]).to(table, run="r")
    assert (again.dead, again.dead_before, again.failures) == (0, 1, ())


async def test_a_letter_says_where_why_and_what_it_was(table):
    retry = penstock.Retry(on=ValueError, attempts=2, initial=0)
    await stream(["bad"], retry=retry, name="read").to(table, run="r")
    (root,) = durable.dead_roots(table.path)
    assert (root.run, root.key, root.version) == ("r", "bad", "1")
    (letter,) = root.letters
    assert (letter.stage, letter.attempts, letter.error, letter.item) == ("read", 2, "ValueError: bad", "'bad'")
    assert "raise ValueError(root)" in letter.traceback
    assert "src/penstock" not in letter.traceback


class Detached:
    """An item that cannot be shown."""

    def __repr__(self):
        raise RuntimeError("no session")


class UnsayableError(Exception):
    def __str__(self):
        return self.args[5]


@pytest.mark.parametrize(
    ("item", "error", "shown"),
    [
        ("caf\udce9", ValueError("caf\udce9"), ("ValueError: caf\\udce9", "'caf\\udce9'")),
        (Detached(), ValueError("no"), ("ValueError: no", "<Detached, whose repr raised RuntimeError>")),
        (
            "a",
            UnsayableError("no"),
            ("UnsayableError: <UnsayableError, whose str raised IndexError>", "'a'"),
        ),
        ("a" * 64_100, ValueError("b" * 100_000), ("b... (36,000 more)", "a... (102 more)")),
    ],
    ids=["surrogates", "repr raises", "str raises", "long"],
)
async def test_whatever_fails_is_set_aside_with_what_can_be_said_of_it(table, item, error, shown):
    """Else one letter that cannot be written would end the run each time."""

    def fail(_):
        raise error

    roots = penstock.keyed([1, 2], key=int).map(lambda _: item)
    report = await roots.map(fail, name="fail", on_error="collect").to(table, run="r")
    assert (report.dead, report.complete) == (2, True)
    (letter,) = durable.dead_roots(table.path, keys=[1])[0].letters
    assert (letter.error.endswith(shown[0]), letter.item.endswith(shown[1])) == (True, True)
    assert "in fail" in letter.traceback


async def test_several_things_that_fail_of_one_root_are_one_dead_root(table):
    async def fail(row):
        if row["letter"] != "b":
            raise ValueError(row["letter"])
        return row

    report = await stream(["abc", "b"]).map(fail, on_error="collect").to(table, run="r")
    assert (report.dead, report.delivered, report.rows) == (1, 1, 1)
    (root,) = durable.dead_roots(table.path)
    assert [letter.error for letter in root.letters] == ["ValueError: a", "ValueError: c"]


@pytest.mark.parametrize(("on_dead", "kept"), [("keep", 2), ("remove", 0)])
async def test_a_root_that_dies_in_a_new_version_keeps_its_rows_unless_told(table, on_dead, kept):
    async def fail(row):
        raise ValueError(row)

    await stream(["ab"]).to(table, run="r")
    assert len(list(table.rows())) == 2
    await stream(["ab"], version="2").map(fail, on_error="collect").to(table, run="r", on_dead=on_dead)
    assert len(list(table.rows())) == kept
    assert durable.runs(table.path)[0].rows == kept
    report = await stream(["ab"], version="3").to(table, run="r")
    assert (report.delivered, report.redone) == (1, 1)
    assert durable.dead_roots(table.path) == []


async def test_a_retried_root_keeps_its_place_in_the_table(table):
    """Rows are found by the number of their root: that of a root that is done again must not become another's."""
    await stream(["ab", "bad"]).to(table, run="r")
    durable.retry(table.path)
    (status,) = durable.runs(table.path)
    assert (status.done, status.dead, status.retried, status.rows) == (1, 0, 1, 2)
    report = await stream(["new", "ab", "bad"]).to(table, run="r")
    assert (report.delivered, report.already_done, report.dead) == (1, 1, 1)
    durable.discard(table.path)
    assert [row["root"] for row in table.rows()] == ["ab", "ab", "new", "new", "new"]


async def test_a_retried_root_that_is_gone_from_the_source_is_missing(table):
    await stream(["ab", "bad"]).to(table, run="r")
    durable.retry(table.path)
    report = await stream(["ab"]).to(table, run="r", on_missing="delete")
    assert (report.missing, report.removed) == (1, 1)
    (status,) = durable.runs(table.path)
    assert (status.done, status.dead, status.retried) == (1, 0, 0)


async def test_a_discarded_root_is_done_in_its_version_only(table):
    await stream(["bad"]).to(table, run="r")
    durable.discard(table.path)
    assert (await stream(["bad"]).to(table, run="r")).already_done == 1
    assert (await stream(["bad"], version="2").to(table, run="r")).dead == 1


async def test_skipped_items_make_no_root_dead(table):
    source = penstock.keyed(["ab", "bad"], key=str).map(texts, on_error="skip").flatten()
    report = await source.to(table, run="r")
    assert (report.delivered, report.dead, report.rows) == (2, 0, 2)
    assert durable.dead_roots(table.path) == []


async def test_how_a_run_stands(table):
    seen = None

    async def look(row):
        nonlocal seen
        (seen,) = durable.runs(table.path)
        return row

    await stream(["a"]).map(look).to(table, run="r")
    assert (seen.state, seen.owner) == ("running", f"process {os.getpid()} on {os.uname().nodename}")
    (status,) = durable.runs(table.path)
    assert (status.state, status.times, status.source) == ("complete", 1, "keyed")

    async def fail(_):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await penstock.keyed(["a", "b"], key=str).map(fail).to(table, run="s")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await penstock.keyed(["a"], key=str).map(lambda _: asyncio.Event().wait()).to(table, run="t")
    assert [(status.name, status.state) for status in durable.runs(table.path)] == [
        ("t", "stopped"),
        ("s", "stopped"),
        ("r", "complete"),
    ]


@pytest.mark.parametrize("change", [durable.retry, durable.discard])
async def test_nothing_is_changed_while_a_run_writes(table, change):
    async def meddle(row):
        with pytest.raises(durable.HeldError, match=f"process {os.getpid()} on .* is writing to it, since 20"):
            change(table.path)
        return row

    assert (await stream(["a"]).map(meddle).to(table, run="r")).rows == 1


async def test_of_a_root_that_fails_in_a_million_places_the_first_letters_are_kept(table):
    """They are held until the root is finished, and written together."""

    def fail(number):
        raise ValueError(number)

    many = penstock.keyed(["root"], key=str).flat_map(lambda _: range(3_000))
    report = await many.map(fail, on_error="collect").to(table, run="r")
    assert (report.dead, report.causes[0].count) == (1, 1)
    (root,) = durable.dead_roots(table.path)
    *kept, last = root.letters
    assert [letter.item for letter in kept] == [str(number) for number in range(len(kept))]
    assert last.error == f"MoreFailures: {3_000 - len(kept):,} more items of this root failed, and are not kept"


def test_letters_of_a_root_are_bounded_in_number_and_in_length():
    """However long texts are, a root in memory is small; what is kept holds no item and no traceback."""
    short, long = Letters(), Letters()
    for number in range(20_000):
        short.add("map", 1, ValueError(number), number)
        long.add("map", 1, ValueError("x" * 100_000), "y" * 100_000)
    assert len(list(short)) == 1_001
    assert len(list(long)) < 10
    assert 1_000 < long.weight < 1_500


async def test_letters_that_wait_to_be_written_weigh_what_they_hold(tmp_path, monkeypatch):
    """Else twenty thousand roots with letters of 100 kB each would wait in memory."""
    weights = []
    enter = Writer._enter
    monkeypatch.setattr(Writer, "_enter", lambda self, entry: (weights.append(entry[2]), enter(self, entry)))

    def fail(number):
        raise ValueError("x" * 50_000)

    table = SqliteTable(tmp_path / "t.db", "letters")
    await penstock.keyed(range(3), key=int).map(fail, on_error="collect").to(table, run="r")
    assert min(weights) > 50
