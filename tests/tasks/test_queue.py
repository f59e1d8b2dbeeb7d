"""`TaskQueue`: high priority first, stable among equals, and with ageing nothing waits for ever."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import OptionError
from penstock.tasks.queue import TaskQueue


def filled(*items, **options):
    """A queue of `(item, priority)` pairs."""
    queue = TaskQueue(**options)
    for item, priority in items:
        queue.enqueue(item, priority=priority)
    return queue


def emptied(queue):
    return [queue.dequeue() for _ in range(queue.size())]


def test_high_priority_comes_first():
    assert emptied(filled(("low", -1), ("high", 2.5), ("usual", 0))) == ["high", "usual", "low"]


def test_equals_come_in_the_order_in_which_they_were_put_in():
    assert emptied(filled(*((number, number % 2) for number in range(100)))) == [*range(1, 100, 2), *range(0, 100, 2)]


@given(st.lists(st.integers(-3, 3) | st.floats(-3, 3) | st.none()))
def test_it_equals_a_stable_sort(steps):
    """Whatever is put in and taken out (None): always the first of those with the highest priority."""
    queue, model = TaskQueue(), []
    for number, priority in enumerate(steps):
        if priority is not None:
            queue.enqueue(number, priority=priority)
            model.append((number, priority))
        elif model:
            first = max(model, key=lambda pair: pair[1])  # max() gives the first of equals
            model.remove(first)
            assert queue.peek() == queue.dequeue() == first[0]
        assert len(queue) == queue.size() == len(model)
        assert bool(queue) is bool(model) is not queue.is_empty()


def test_items_need_not_be_comparable():
    items = [{}, None, object(), 1j]
    assert emptied(filled(*((item, 0) for item in items))) == items


def test_peek_leaves_the_item_where_it_is():
    queue = filled(("only", 0))
    assert queue.peek() == queue.peek() == "only"
    assert queue.size() == 1


def test_an_empty_queue_has_no_first_item():
    """P6: None may be an item, so that it is no answer."""
    queue = TaskQueue()
    with pytest.raises(IndexError, match="dequeue from an empty TaskQueue"):
        queue.dequeue()
    with pytest.raises(IndexError, match="peek into an empty TaskQueue"):
        queue.peek()


def test_clear_drops_all_and_the_queue_goes_on():
    queue = filled(("a", 1), ("b", 2))
    queue.clear()
    assert queue.is_empty()
    queue.enqueue("c")
    assert emptied(queue) == ["c"]


@pytest.mark.parametrize("priority", [True, float("nan"), float("inf"), -float("inf"), "1", None, 10**400])
def test_a_priority_is_a_finite_number(priority):
    queue = TaskQueue()
    with pytest.raises(OptionError, match="priority must be a finite number, got"):
        queue.enqueue("item", priority=priority)
    assert queue.is_empty()


def test_great_ints_are_told_apart():
    assert emptied(filled(("low", 10**17), ("high", 10**17 + 1))) == ["high", "low"]


@pytest.mark.parametrize("ageing", [0, -1, float("nan"), "1", True])
def test_ageing_is_a_duration(ageing):
    with pytest.raises(OptionError, match="ageing must be a finite number of seconds > 0 or a timedelta, got"):
        TaskQueue(ageing=ageing)


def test_a_clock_is_a_function():
    with pytest.raises(OptionError, match="clock must be callable"):
        TaskQueue(clock=0.0)


@pytest.mark.parametrize("ageing", [5e-324, 1e-300, 0.9e-6])
def test_ageing_is_not_so_fast_that_priorities_vanish_beside_the_clock(ageing):
    """The quotient of the two was infinite for every item: they came in any order but that of their priorities."""
    with pytest.raises(OptionError, match=f"ageing must be a finite number >= 1e-06, got {ageing!r}"):
        TaskQueue(ageing=ageing)


def test_the_fastest_ageing_leaves_priorities_apart():
    a_century = 3.2e9
    queue = filled(("low", 1), ("high", 2), ageing=timedelta(microseconds=1), clock=lambda: a_century)
    assert emptied(queue) == ["high", "low"]


@pytest.mark.parametrize(("waited", "first"), [(49, "new"), (50, "old"), (51, "old")])
def test_an_item_gains_a_point_of_priority_for_every_ageing_seconds(waited, first):
    """Five points are made up for in fifty seconds; then it is an equal, and was there first."""
    now = 1_000.0
    queue = TaskQueue(ageing=timedelta(seconds=10), clock=lambda: now)
    queue.enqueue("old", priority=0)
    now += waited
    queue.enqueue("new", priority=5)
    assert queue.dequeue() == first


def test_without_ageing_low_priority_waits_for_ever():
    """What ageing is for: the same feeding starves the low item without it, and not with it."""
    served = {}
    for ageing in (None, 10):
        now = 0.0
        queue = TaskQueue(ageing=ageing, clock=lambda: now)  # noqa: B023 -- called in this round only
        queue.enqueue("low", priority=0)
        served[ageing] = None
        for second in range(1_000):
            now = float(second)
            queue.enqueue("high", priority=5)
            if queue.dequeue() == "low":
                served[ageing] = second
                break
    assert served == {None: None, 10: 50}


def test_ageing_keeps_equals_in_their_order():
    now = 0.0
    queue = TaskQueue(ageing=1, clock=lambda: now)
    for number in range(10):
        queue.enqueue(number, priority=7)
        now += number % 2
    assert emptied(queue) == list(range(10))
