"""What the core says to people: durations, names of what still runs, where an item failed, advice below the table."""

import pytest

from penstock.core.errors import note, said
from penstock.core.outcome import Failed
from penstock.core.plan import Tolerance
from penstock.core.stage import name_work
from penstock.core.stats import Latency, StageStats, Stats, duration
from penstock.core.text import table


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.0000004, "0 us"),
        (0.000_999, "999 us"),
        (0.001, "1.0 ms"),
        (0.25, "250.0 ms"),
        (1, "1.0 s"),
        (90, "90.0 s"),
    ],
)
def test_a_duration_is_in_the_unit_that_fits(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([7], "stage 'get', item 7"),
        ([9, 2], "stage 'get', items 2, 9"),
        (range(5), "stage 'get', items 0, 1, 2, 3, 4"),
        (range(6), "stage 'get', items 0, 1, 2, 3, 4, ..."),
    ],
)
def test_five_of_the_items_that_still_run_are_named(items, text):
    assert name_work("get", items) == text


@pytest.mark.parametrize(("attempts", "end"), [(1, ""), (2, ", attempt 2")])
def test_a_failure_says_where_and_at_which_attempt(attempts, end):
    failed = Failed(ValueError("no"), 3, "item", "get", attempts)
    assert failed.place == f"stage 'get', item 3{end}"
    assert str(failed) == f"stage 'get', item 3{end}: ValueError('no')"


def stage(name, **measured):
    books = dict.fromkeys(("taken", "delivered", "dropped", "failed", "cancelled", "discarded"), 0)
    return StageStats(name=name, **books, **measured)


@pytest.mark.parametrize(("blocked", "advised"), [(0.99, False), (1.0, True), (5.0, True)])
def test_a_buffer_is_advised_from_a_tenth_of_the_time_on(blocked, advised):
    stats = Stats((stage("source"), stage("get", concurrency=2, blocked_by_head_s=blocked)), 10.0)
    advice = f"; get was blocked by its head {blocked / 10:.0%} of the time: buffer= or ordered=False would help"
    assert str(stats).endswith(f"bottleneck: get{advice if advised else ''}")


def test_the_stage_that_was_blocked_most_is_the_one_of_the_advice():
    stages = [stage(name, concurrency=1, blocked_by_head_s=blocked) for name, blocked in (("a", 2.0), ("b", 4.0))]
    assert "; b was blocked by its head 40% of the time" in str(Stats((stage("source"), *stages), 10.0))


@pytest.mark.parametrize(
    ("upstream", "consumer", "bottleneck"),
    [((8, 1), (1, 1), "source"), ((1, 1), (1, 8), "the consumer"), ((1, 7), (1, 1), "a"), ((1, 1), (7, 2), "b")],
)
def test_the_bottleneck_is_who_was_waited_for(upstream, consumer, bottleneck):
    stages = [
        stage(name, concurrency=1, upstream_wait_s=waits[0], consumer_wait_s=waits[1])
        for name, waits in zip("ab", zip(upstream, consumer, strict=True), strict=True)
    ]
    assert Stats((stage("source"), *stages), 10.0).bottleneck == bottleneck


@pytest.mark.parametrize("name", ["map(<lambda>)", "the consumer", "source"])
def test_stages_of_one_name_are_told_apart(name):
    """The one that held the run up is marked, and no other, whatever they are called."""
    slow = stage(name, concurrency=1, upstream_wait_s=1.0, consumer_wait_s=1.0)
    fast = stage(name, concurrency=1, upstream_wait_s=4.0, consumer_wait_s=5.0)
    for place, order in (1, [slow, fast]), (2, [fast, slow]):
        stats = Stats((stage("source"), *order), 10.0)
        assert stats.bottleneck == name
        marks = [line[0] for line in str(stats).splitlines()[2:-1]]
        assert [number for number, mark in enumerate(marks) if mark == ">"] == [place]


def test_of_several_sources_one_is_marked():
    inputs = [stage("source"), stage("source"), stage("merge")]
    stats = Stats((*inputs, stage("get", concurrency=1, upstream_wait_s=8.0)), 10.0)
    assert [line[0] for line in str(stats).splitlines()[2:-1]] == [">", " ", " ", " "]


def test_a_stage_called_as_the_consumer_is_not_taken_for_it():
    """No row is marked when nothing but the consumer held the run up."""
    stats = Stats((stage("source"), stage("the consumer", concurrency=1, consumer_wait_s=8.0)), 10.0)
    assert stats.bottleneck == "the consumer"
    assert ">" not in str(stats)


def test_every_column_of_the_table_has_its_head():
    counts = dict.fromkeys(("taken", "delivered", "dropped", "failed", "cancelled", "discarded"), 1)
    whole = StageStats(
        name="get",
        **counts,
        retried=1,
        concurrency=1,
        upstream_wait_s=1.0,
        consumer_wait_s=1.0,
        blocked_by_head_s=0.5,
        latency=Latency(0.1, 0.2, 0.3, 4, 0.5),
    )
    head = str(Stats((stage("source"), whole), 10.0)).splitlines()[1]
    assert head.split() == [
        "stage", "taken", "delivered", "dropped", "failed", "cancelled", "discarded", "retried", "running", "(peak)",
        "buffered", "(peak)", "wait", "upstream", "consumer", "head", "p50", "p95", "p99", "timed",
    ]  # fmt: skip


def test_nothing_is_a_bottleneck_before_time_has_passed():
    assert Stats((stage("source"), stage("get", concurrency=1)), 0.0).bottleneck is None
    assert Stats((stage("source"), stage("get", concurrency=1)), 0.001).bottleneck == "get"


def test_a_stage_that_there_is_none_of_is_named_beside_those_that_there_are():
    with pytest.raises(KeyError, match="no stage 'put': there are 'source', 'get'"):
        Stats((stage("source"), stage("get")), 1.0)["put"]


def test_a_table_leaves_out_columns_that_are_empty_or_nought():
    rows = [("a", "1", "", "0"), ("bcd", "20", "", "0")]
    assert table(("stage", "n", "empty", "nought"), rows) == "stage   n\na       1\nbcd    20"


@pytest.mark.parametrize(
    ("tolerance", "failed", "settled", "broken"),
    [
        (Tolerance(most=2), 2, 100, None),
        (Tolerance(most=2), 3, 100, "max_failures=2"),
        (Tolerance(most=0), 1, 1, "max_failures=0"),
        (Tolerance(rate=0.1), 1, 1, None),
        (Tolerance(rate=0.1), 2, 19, "max_failure_rate=0.1"),
        (Tolerance(rate=0.1), 2, 20, None),
        (Tolerance(most=9, rate=0.5), 5, 8, "max_failure_rate=0.5"),
        (Tolerance(), 10**9, 10**9, None),
    ],
)
def test_a_tolerance_is_exceeded_by_one_failure_more(tolerance, failed, settled, broken):
    assert tolerance.exceeded(failed, settled) == broken


class Unspeakable(Exception):
    def __repr__(self):
        return str(1 // 0)


def test_an_error_whose_repr_raises_is_named_by_its_type_with_that_of_what_was_raised():
    assert said(Unspeakable()) == "<Unspeakable, whose repr raised ZeroDivisionError>"


def test_a_note_that_is_there_is_not_added_again():
    """P7: an exception object may be one for the whole module, and be raised by run after run."""
    error = ValueError()
    for _ in range(3):
        for text in ("stage 'get', item 0", "stage 'get', item 1"):
            note(error, text)
    assert error.__notes__ == ["penstock: stage 'get', item 0", "penstock: stage 'get', item 1"]


@pytest.mark.parametrize("notes", [None, 3])
def test_an_error_whose_notes_are_no_list_is_left_as_it_is(notes):
    error = ValueError()
    error.__notes__ = notes
    note(error, "stage 'get', item 0")
    assert error.__notes__ is notes
