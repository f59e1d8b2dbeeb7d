"""Values and exceptions on their way to a worker and back."""

import functools
import logging
import pickle
import sys
import threading
import traceback

import numpy as np
import pytest

import penstock
from penstock import OptionError, PicklingFailed, RemoteError
from penstock.core.errors import MisuseError
from penstock.engines import Call, processes
from penstock.engines.process import crossing, worker_process
from penstock.engines.process.messages import Spare

from . import work
from .work import (
    Awkward,
    Changed,
    Unloadable,
    calling,
    cannot_write,
    double,
    fail_to_load,
    give,
    keep_every_third,
    kept_by_worker,
    lock,
    make_unloadable,
    pid,
    raise_awkward,
    raise_changed,
    raise_hidden_context,
    raise_in_context,
    raise_locked,
    raise_with_cause,
    raises,
    raises_kind,
    until,
    wait_for,
)

pytestmark = [pytest.mark.real_time, pytest.mark.slow]

LARGE = 300_000


@pytest.mark.parametrize(
    "value",
    [
        b"x" * LARGE,
        bytearray(b"x" * LARGE),
        "x" * LARGE,
        ("name", b"x" * LARGE, bytearray(b"y" * LARGE)),
        [b"x" * LARGE] * 3,
        b"",
        None,
        ValueError("a value"),
    ],
    ids=["bytes", "bytearray", "str", "nested", "list", "empty", "None", "exception"],
)
async def test_a_value_comes_back_as_it_is(value):
    """P6: any value is a value."""
    async with calling() as (_, submit):
        (answer,) = await submit((give, value))
    assert type(answer.value) is type(value)
    assert answer.value == value or repr(answer.value) == repr(value)


@pytest.mark.parametrize("size", [10, LARGE])
@pytest.mark.parametrize("order", ["C", "F"])
async def test_an_array_is_writable_where_it_arrives(size, order):
    array = np.asarray(np.arange(size, dtype=np.int64).reshape(2, -1), order=order)
    async with calling() as (_, submit):
        (answer,) = await submit((cannot_write, array))
    assert answer.error is None
    assert (answer.value[0] == 7).all()
    assert (answer.value[1] == array[1]).all()
    assert answer.value.flags.writeable
    answer.value[1, 0] = 3
    assert array[0, 0] == 0


def test_large_buffers_are_sent_without_a_copy():
    """The socket is given the memory of the array, and of the bytes, themselves."""
    array, data = np.zeros(LARGE), bytes(LARGE)
    buffers = []
    pickled = crossing.Crossing(main_is_there=False).dumps((array, crossing.whole(data)), buffers)
    assert len(pickled) < 1_000
    first, second = buffers
    assert np.shares_memory(np.frombuffer(first, dtype=float), array)
    assert np.shares_memory(np.frombuffer(second, dtype=np.uint8), np.frombuffer(data, dtype=np.uint8))


async def test_many_arrays_in_one_group():
    arrays = [np.full(10_000, number) for number in range(100)]
    async with calling() as (_, submit):
        answers = await submit(*((give, array) for array in arrays))
    assert len(answers) >= 10
    assert all((answer.value == array).all() for answer, array in zip(answers, arrays, strict=False))


async def test_memory_is_used_again_only_when_nobody_sees_it_any_more():
    """Of large arguments in the worker, and of large results here; they may be views, and views of views."""
    async with calling() as (_, submit):
        kept = []
        for number in range(12):
            (answer,) = await submit((keep_every_third, np.full(LARGE, number)))
            kept.append(answer.value[1:][::2] if number % 2 else answer.value)
            assert (answer.value == number).all()
            del answer
        assert all((array == number).all() for number, array in enumerate(kept))
        (answer,) = await submit((kept_by_worker,))
        assert answer.value == [[0], [3], [6], [9]]


def test_little_memory_is_kept_to_be_used_again():
    mib = 1 << 20
    spare = Spare(4 * mib)
    first, view = spare.take(mib), memoryview(spare.take(mib))
    first[:] = b"x" * mib
    view[:] = b"y" * mib
    assert bytes(spare.take(mib)[:1]) == b"\0"  # both are seen
    del first
    assert bytes(spare.take(mib)[:1]) == b"x"
    view.release()
    for size, kept in [(3, [1, 3]), (5, [1, 3]), (4, [4]), (1, [1])]:  # the oldest go
        assert len(spare.take(size * mib)) == size * mib
        assert [len(buffer) // mib for buffer in spare._kept] == kept


async def test_small_values_come_back_as_they_are():
    """P6: those that go without a pickle of their own, and those at the edge of that."""
    numbers = [0, -1, 2**63 - 1, 2**63, -(2**63), 10**400, True, False, 0.0, -0.0, float("nan"), float("inf"), None]
    texts = ["", "x", "\ud800", "\0", "x" * 1023, "x" * 1024, b"", b"\0", b"x" * 1023, b"x" * 1024]
    async with processes(1) as engine:
        got = await penstock.stream([*numbers, *texts]).map(give, engine=engine).to_list()
    assert list(map(repr, got)) == list(map(repr, [*numbers, *texts]))


async def test_a_group_comes_back_whole_whatever_its_results_are():
    """Plain results of a group come together, unless they are long or there are others among them."""
    short, long, mixed = (
        list(range(40)),
        ["\u00e9" * 1000] * 40,
        [0, "one", [2], None, True, "x" * 2000, {"a": 7}, 1 << 70],
    )
    async with processes(1) as engine:
        for items in (short, long, mixed, [*short, *mixed, *short]):
            function = engine.prepare(give)
            answers = await engine.submit([Call(function, (item,)) for item in items])
            assert [answer.value for answer in answers] == items
            assert all(answer.seconds > 0 for answer in answers)


async def test_strings_that_a_worker_has_interned_are_not_interned_here():
    """On 3.12 they would never be freed."""
    async with processes(1) as engine:
        (got,) = await penstock.stream(["not there before"]).map(sys.intern, engine=engine).to_list()
    assert sys.intern("not there " + "before"[:]) is not got


async def test_arguments_of_two_calls_are_not_one_object():
    """As if they had gone alone: what one call does to its argument is none of the next one's business."""
    shared = [1]
    async with calling() as (_, submit):
        answers = await submit((list.clear, shared), (give, shared))
    assert answers[1].value == [1]


async def test_a_function_that_holds_a_large_array_has_it_in_the_worker():
    array = np.arange(LARGE)
    async with calling() as (_, submit):
        by_closure, by_partial = await submit((lambda _: array.sum(), None), (functools.partial(np.dot, array), array))
    assert by_partial.value == np.dot(array, array)
    assert by_closure.value == array.sum()


async def test_an_exception_that_holds_a_large_array():
    error = await error_of(raises, ValueError(np.arange(LARGE)))
    assert error.args[0].sum() == np.arange(LARGE).sum()


# What has no name


@pytest.mark.quick
async def test_lambdas_closures_and_classes_without_a_name():
    amount = 3

    class Local(Exception):
        pass

    def fails(text):
        raise Local(text)

    async with calling() as (_, submit):
        first, second, third = await submit(
            (lambda number: number + amount, 1), (functools.partial(lambda a, b: (a, b), 1), 2), (fails, "mine")
        )
    assert first.value == 4
    assert second.value == (1, 2)
    assert type(third.error) is Local
    assert third.error.args == ("mine",)


async def test_a_lambda_as_argument_and_as_result():
    async with calling() as (_, submit):
        (answer,) = await submit((give, lambda: 7))
    assert answer.value() == 7


async def test_without_cloudpickle_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    async with processes(1) as engine:
        with pytest.raises(OptionError, match=r"<lambda>.*of module .*test_crossing.*penstock\[process\]"):
            engine.prepare(lambda: 1)
        assert engine.prepare(double)


# What cannot be pickled is named


async def test_a_function_that_cannot_be_pickled():
    held = threading.Lock()

    def needs_lock(_):
        return held

    async with processes(1) as engine:
        with pytest.raises(
            OptionError, match=r"needs_lock of module .*test_crossing cannot be pickled.*TypeError.*lock"
        ):
            engine.prepare(needs_lock)
    with pytest.raises(OptionError, match=r"initializer: .*needs_lock"):
        processes(1, needs_lock)


async def test_a_function_that_cannot_be_loaded(monkeypatch):
    """A module that only the driver finds."""
    module = type(sys)("only_here")
    exec("def fn(x): return x", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    async with calling() as (_, submit):
        failed, after = await submit((module.fn, 1), (double, 1))
    assert isinstance(failed.error, MisuseError)
    assert "fn cannot be loaded in a worker process: ModuleNotFoundError: No module named 'only_here'" in str(
        failed.error
    )
    assert after.value == 2


async def test_an_argument_that_cannot_be_pickled_or_loaded():
    async with calling() as (_, submit):
        before, unsent, unread, after = await submit(
            (double, 1), (give, threading.Lock()), (give, Unloadable()), (double, 2)
        )
    assert (before.value, after.value) == (2, 4)
    assert isinstance(unsent.error, PicklingFailed)
    assert "argument of give, of type _thread.lock, cannot be pickled: TypeError" in str(unsent.error)
    assert isinstance(unread.error, PicklingFailed)
    assert "argument of give cannot be loaded in a worker process: ValueError: not here" in str(unread.error)


async def test_a_result_that_cannot_be_pickled_or_loaded():
    async with calling() as (_, submit):
        unsent, unread, after = await submit((lock,), (make_unloadable,), (double, 1))
    assert isinstance(unsent.error, PicklingFailed)
    assert "result of lock, of type _thread.lock, cannot be pickled: TypeError" in str(unsent.error)
    assert isinstance(unread.error, PicklingFailed)
    assert "result of make_unloadable cannot be loaded in this process: LookupError: made elsewhere" in str(
        unread.error
    )
    assert after.value == 2


# Exceptions


async def error_of(fn, *arguments):
    async with calling() as (_, submit):
        (answer,) = await submit((fn, *arguments))
    return answer.error


async def test_an_exception_has_the_traceback_of_its_worker():
    error = await error_of(raises_kind, ValueError)
    assert type(error) is ValueError
    printed = "".join(traceback.format_exception(error))
    assert 'raise kind("mine")' in printed
    assert "engines/process/worker.py" not in printed


async def test_an_exception_that_cannot_be_made_again_as_it_was_made_crosses_with_its_attributes():
    """`__init__` takes other arguments than it passes on: `loads` fails, in a ProcessPoolExecutor for all calls."""
    error = await error_of(raise_awkward)
    assert type(error) is Awkward
    assert (error.code, error.place, error.args) == (7, "home", ("code 7 at home",))


async def test_an_exception_that_would_be_another_one_when_made_again():
    error = await error_of(raise_changed)
    assert type(error) is Changed
    assert (error.code, error.args) == (7, ("code 7",))


async def test_cause_context_and_notes():
    error = await error_of(raise_with_cause)
    assert repr(error) == "ValueError('second')"
    assert error.__notes__[0] == "a note"
    assert repr(error.__cause__) == "KeyError('first')"
    assert error.__context__ is error.__cause__
    error = await error_of(raise_in_context)
    assert repr(error.__context__) == "KeyError('first')"
    assert error.__cause__ is None
    assert not error.__suppress_context__
    error = await error_of(raise_hidden_context)
    assert repr(error.__context__) == "KeyError('first')"
    assert error.__suppress_context__


async def test_an_exception_that_cannot_cross_is_a_remote_error_with_its_text():
    error = await error_of(raise_locked)
    assert type(error) is RemoteError
    assert str(error) == "Locked: mine"
    assert "in raise_locked" in error.text
    assert "Locked: mine" in error.text
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.text) == (str(error), error.text)


@pytest.mark.quick
@pytest.mark.parametrize(
    "error",
    [
        OSError(2, "no such file", "a.txt"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        ExceptionGroup("some", [ValueError("a"), KeyError("b")]),
        penstock.AttemptTimeout("late"),
        penstock.RemoteError("Locked: mine", "a text"),
        work.Awkward(7, "home"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_exceptions_of_python_and_ours(error):
    found = await error_of(raises, error) if not isinstance(error, Awkward) else await error_of(raise_awkward)
    assert type(found) is type(error)
    assert str(found) == str(error)
    attributes = {name for name in dir(error) if not name.startswith("__") and not callable(getattr(error, name, len))}
    assert {name: repr(getattr(found, name)) for name in attributes} == {
        name: repr(getattr(error, name)) for name in attributes
    }


# Starts that fail


async def test_an_initializer_that_raises_is_an_error_and_no_endless_loop():
    async with calling(2, fail_to_load) as (_, submit):
        answers = await submit((double, 1), (double, 2))
        for answer in answers:
            assert isinstance(answer.error, MisuseError)
            assert str(answer.error) == "the initializer fail_to_load failed in a worker: ValueError: no model"
            assert isinstance(answer.error.__cause__, ValueError)


async def test_an_initializer_that_does_not_return_is_warned_of(monkeypatch, caplog, tmp_path):
    """A run would wait for it in silence: `timeout=` is for calls, and this is none."""
    monkeypatch.setattr(worker_process, "SLOW_START", 0.05)
    goes_on = tmp_path / "go"
    with caplog.at_level(logging.WARNING, "penstock"):
        async with calling(1, functools.partial(wait_for, goes_on)) as (_, submit):
            answers = submit((pid,))
            await until(lambda: len(caplog.records) == 2)
            goes_on.touch()
            (answer,) = await answers
    first, second, *_ = (record.getMessage() for record in caplog.records)
    where = "it is in the initializer wait_for, or in what is imported before; calls wait for it"
    assert first == f"worker process {answer.value} is not ready after 0.05 s: {where}"
    assert second.startswith(f"worker process {answer.value} is not ready after 0.1 s: ")


async def test_a_worker_that_dies_at_each_start_is_an_error_and_no_endless_loop(capfd):
    async with calling(1, work.exited_at_start) as (_, submit):
        (answer,) = await submit((double, 1))
        assert isinstance(answer.error, MisuseError)
        assert "die as they start: the last of 5 exited with status 3" in str(answer.error)
