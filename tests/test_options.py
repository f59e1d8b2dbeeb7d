"""Options: each has a rule, a default, and a message that names option, rule and value when the stream is built."""

import asyncio
import math
from datetime import timedelta

import pytest

import penstock
from penstock import OptionError
from penstock.core.plan import ON_ERROR

NUMBERS = penstock.stream(range(3))
NOT_INTS = [True, False, 1.0, 2.5, math.nan, math.inf, "4", None, [1]]
NOT_SECONDS = [True, -1, -0.5, math.nan, math.inf, -math.inf, "1", [1], timedelta(seconds=-1)]


async def work(number):
    return number


def seconds(option, *, zero=False):
    rule = f"{option} must be a finite number of seconds {'>= 0' if zero else '> 0'} or a timedelta"
    values = NOT_SECONDS if zero else [*NOT_SECONDS, 0, 0.0, timedelta(0)]
    return [(option, value, f"{rule}, got {value!r}") for value in values]


def whole(option, least, *, none=True):
    values = [value for value in NOT_INTS if none or value is not None]
    return [(option, value, f"{option} must be an int >= {least}, got {value!r}") for value in [*values, least - 1, -5]]


SHARED = [
    *whole("concurrency", 1, none=False),
    *whole("buffer", 0),
    *(
        (
            "engine",
            value,
            f"engine must be None, 'inline', 'thread', 'process' or an engine of penstock.engines, got {value!r}",
        )
        for value in ("threads", "", True, ["thread"])
    ),
    *(("ordered", value, f"ordered must be True or False, got {value!r}") for value in (0, 1, "yes")),
    *(("name", value, f"name must be a non-empty str, got {value!r}") for value in ("", 1, b"name", True)),
    *seconds("timeout"),
    *(("retry", value, f"retry must be a Retry, got {value!r}") for value in (3, True, ValueError, {"attempts": 3})),
    *(
        ("on_error", value, f"on_error must be one of {', '.join(map(repr, ON_ERROR))}, got {value!r}")
        for value in ("ignore", "RAISE", None, True, ["raise"])
    ),
]


@pytest.mark.parametrize("operator", ["map", "filter", "tap", "flat_map"])
@pytest.mark.parametrize(("option", "value", "message"), SHARED)
def test_a_bad_option_raises_when_the_stream_is_built(operator, option, value, message):
    with pytest.raises(OptionError) as raised:
        getattr(NUMBERS, operator)(work, **{option: value})
    assert str(raised.value) == message


@pytest.mark.parametrize(("option", "value", "message"), SHARED)
async def test_for_each_has_the_options_of_map(option, value, message):
    with pytest.raises(OptionError) as raised:
        await NUMBERS.for_each(work, **{option: value})
    assert str(raised.value) == message.replace(", 'return'", "")


@pytest.mark.parametrize(
    "build",
    [
        lambda: penstock.jsonl("x.jsonl", on_error="return"),
        lambda: penstock.csv("x.csv", on_error="return"),
        lambda: asyncio.run(NUMBERS.for_each(work, on_error="return")),
    ],
)
def test_failures_are_results_only_where_somebody_gets_them(build):
    """`for_each` would lose them, and sources give rows."""
    with pytest.raises(OptionError, match=r"^on_error must be one of 'raise', 'skip', 'collect', got 'return'$"):
        build()


def test_concurrency_of_flat_map_does_not_adapt():
    with pytest.raises(OptionError, match=r"^concurrency must be an int >= 1 for flat_map, got Adaptive\("):
        NUMBERS.flat_map(work, concurrency=penstock.Adaptive())


@pytest.mark.parametrize("function", [penstock.parallel_map, penstock.parallel_filter])
@pytest.mark.parametrize(("option", "value", "message"), SHARED)
def test_functions_have_the_options_of_their_operators(function, option, value, message):
    with pytest.raises(OptionError) as raised:
        function([1], work, **({"concurrency": 2} | {option: value}))
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        *whole("attempts", 1),
        *seconds("initial", zero=True),
        *seconds("max", zero=True),
        *seconds("deadline"),
        *(
            ("factor", value, f"factor must be a finite number >= 1, got {value!r}")
            for value in (0.5, 0, -1, True, math.nan, math.inf, "2", None)
        ),
        *(
            ("jitter", value, f"jitter must be a number from 0 to 1, got {value!r}")
            for value in (-0.1, 1.1, True, math.nan, "0.2", None)
        ),
        *(("wait", value, f"wait must be callable, got {value!r}") for value in (1.0, "soon", True)),
        *(
            ("on", value, f"on must be an exception type, a tuple of them or a predicate, got {value!r}")
            for value in (None, 1, "ValueError", (), int, (ValueError, 1), (ValueError, int), [ValueError], True)
        ),
    ],
)
def test_a_bad_option_of_retry(option, value, message):
    with pytest.raises(OptionError) as raised:
        penstock.Retry(**({"on": ValueError} | {option: value}))
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("build", "message"),
    [
        *((lambda value=value: NUMBERS.take(value), message) for _, value, message in whole("count", 0)),
        *((lambda value=value: NUMBERS.batch(value), message) for _, value, message in whole("size", 1)),
        *((lambda value=value: NUMBERS.batch(2, within=value), message) for _, value, message in seconds("within")),
        *(
            (lambda value=value: NUMBERS.open(grace=value), message)
            for _, value, message in seconds("grace", zero=True)
        ),
    ],
)
def test_a_bad_argument_of_an_operator(build, message):
    with pytest.raises(OptionError) as raised:
        build()
    assert str(raised.value) == message


@pytest.mark.parametrize("value", [10**400, -(10**400)], ids=["huge", "-huge"])
@pytest.mark.parametrize(
    "build",
    [
        lambda value: NUMBERS.map(work, timeout=value),
        lambda value: penstock.Retry(on=ValueError, factor=value),
        lambda value: penstock.Retry(on=ValueError, jitter=value),
    ],
)
def test_a_number_beyond_all_floats_breaks_the_rule(build, value):
    with pytest.raises(OptionError, match="must be a"):
        build(value)


@pytest.mark.parametrize("operator", ["map", "filter", "tap", "flat_map"])
@pytest.mark.parametrize("value", [None, 1, "work", [work]])
def test_a_function_must_be_callable(operator, value):
    with pytest.raises(OptionError) as raised:
        getattr(NUMBERS, operator)(value)
    assert str(raised.value) == f"the function of {operator} must be callable, got {value!r}"


@pytest.mark.parametrize("value", [None, 1, "add"])
async def test_the_function_of_reduce_must_be_callable(value):
    with pytest.raises(OptionError, match=r"^fn must be callable, got "):
        await NUMBERS.reduce(value, 0)


@pytest.mark.parametrize("value", [None, 1, 2.5, object(), work])
def test_a_source_must_be_iterable(value):
    with pytest.raises(OptionError) as raised:
        penstock.stream(value)
    assert str(raised.value) == (
        f"source must be an iterable, an async iterable or a function that returns one, got {value!r}"
    )


def test_an_option_error_is_a_value_error_and_a_type_error():
    assert issubclass(OptionError, ValueError)
    assert issubclass(OptionError, TypeError)
    assert issubclass(OptionError, penstock.PenstockError)


@pytest.mark.parametrize("operator", ["map", "filter", "tap", "flat_map"])
@pytest.mark.parametrize("option", ["concurency", "workers", "batch_size", "shape", "operator", "fn", "plain"])
def test_an_unknown_option_raises(operator, option):
    """Names of our own internals are no options either."""
    with pytest.raises(TypeError, match=option):
        getattr(NUMBERS, operator)(work, **{option: None})


def test_options_are_keyword_only():
    for build in (
        lambda: NUMBERS.map(work, 4),
        lambda: NUMBERS.batch(2, 1.0),
        lambda: NUMBERS.open(5),
        lambda: penstock.parallel_map([1], work, 4),
        lambda: penstock.Retry(3),
    ):
        with pytest.raises(TypeError, match="positional argument"):
            build()


def test_retry_needs_to_know_what_to_retry():
    with pytest.raises(TypeError, match="on"):
        penstock.Retry()


@pytest.mark.parametrize("operator", ["map", "filter", "tap", "flat_map"])
def test_a_plain_function_inline_takes_no_timeout(operator):
    def plain(number):
        return number

    with pytest.raises(OptionError, match=r"^timeout must be None for a plain function that runs inline, got 5: "):
        getattr(NUMBERS, operator)(plain, timeout=5)
    getattr(NUMBERS, operator)(plain, timeout=5, concurrency=2)
    getattr(NUMBERS, operator)(lambda number: number, timeout=5)


async def test_defaults():
    """One call at a time, in order, nothing buffered, no limit of time, no retry, and the first failure is raised."""
    running = peak = 0

    async def slow(number):
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(10_000)
        running -= 1
        if number == 2:
            raise ValueError(number)
        return number

    async with NUMBERS.map(slow).open() as items:
        assert [await anext(items), await anext(items)] == [0, 1]
        with pytest.raises(ValueError, match="2"):
            await anext(items)
    assert peak == 1
    assert items.stats()["map(slow)"].retried == 0
    assert items.failures == ()


def test_defaults_of_retry():
    retry = penstock.Retry(on=ValueError)
    assert (retry.attempts, retry.initial, retry.factor, retry.max, retry.jitter) == (3, 0.1, 2.0, 30.0, 0.2)
    assert retry.wait is None
    assert retry.deadline is None


@pytest.mark.parametrize("value", [5, 5.0, timedelta(seconds=5)], ids=repr)
async def test_durations_are_seconds_or_a_timedelta(clock, value):
    with pytest.raises(penstock.AttemptTimeout, match="timed out after 5 s"):
        await penstock.stream([60]).map(asyncio.sleep, timeout=value).to_list()
    assert clock.now == 5.0
    assert await penstock.stream(range(2)).batch(9, within=value).to_list() == [[0, 1]]


@pytest.mark.parametrize("grace", [0, 2.5, timedelta(seconds=2.5)], ids=repr)
async def test_grace(clock, grace):
    """P4: `grace` says how long leaving waits for work that ignores its cancellation; 0 is not at all."""
    gate = asyncio.Event()

    async def stubborn(_):
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    run = penstock.stream([1]).map(stubborn).open(grace=grace)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(run), 1)
    with pytest.warns(penstock.UnstoppedWorkWarning):
        await run.aclose()
    assert clock.now == (1.0 if grace == 0 else 3.5)
    gate.set()
    await asyncio.sleep(1)


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (work, "map(work)"),
        (lambda number: number, "map(<lambda>)"),
        (str, "map(str)"),
        (asyncio.sleep, "map(sleep)"),
        ([].append, "map(append)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_stage_is_named_after_operator_and_function(fn, name):
    async with NUMBERS.map(fn).open() as items:
        await anext(items)
        assert [stage.name for stage in items.stats()] == ["source", name]


async def test_stages_are_named():
    chain = (
        NUMBERS.map(work, name="fetch")
        .filter(work)
        .tap(work)
        .flat_map(lambda number: [number])
        .batch(2)
        .flatten()
        .merge(NUMBERS)
        .take(2)
    )
    async with chain.open() as items:
        assert [stage.name for stage in items.stats()] == [
            "source",
            "fetch",
            "filter(work)",
            "tap(work)",
            "flat_map(<lambda>)",
            "batch(2)",
            "flatten",
            "source",
            "merge",
            "take(2)",
        ]


async def test_the_name_stands_in_errors():
    async def fails(_):
        raise ValueError

    async with NUMBERS.map(fails, name="fetch", on_error="collect").open() as items:
        assert [item async for item in items] == []
    assert [(failed.stage, failed.index, failed.item, failed.attempts) for failed in items.failures] == [
        ("fetch", 0, 0, 1),
        ("fetch", 1, 1, 1),
        ("fetch", 2, 2, 1),
    ]


@pytest.mark.parametrize("operator", ["map", "filter", "tap", "flat_map", "map_batches"])
def test_an_unknown_option(operator):
    size = (2,) if operator == "map_batches" else ()
    with pytest.raises(OptionError) as raised:
        getattr(NUMBERS, operator)(work, *size, retries=3)
    assert str(raised.value).startswith(
        f"{operator} has no option 'retries': there are buffer, buffer_bytes, concurrency, "
    )
    assert "on_error" in str(raised.value)


@pytest.mark.parametrize(
    ("option", "build"),
    [
        ("key", lambda fn: NUMBERS.distinct(key=fn)),
        ("weight", lambda fn: NUMBERS.batch(2, weight=fn, max_weight=1)),
        ("wait", lambda fn: penstock.Retry(on=ValueError, wait=fn)),
        ("on", lambda fn: penstock.Retry(on=fn)),
        ("fn", NUMBERS.through),
    ],
)
def test_where_nothing_is_awaited_an_async_function_is_refused(option, build):
    """Its coroutine would be true, whatever it comes to."""
    with pytest.raises(OptionError) as raised:
        build(work)
    assert str(raised.value) == f"{option} must be a plain function, got the async {work!r}"


async def test_reduce_takes_no_async_function():
    with pytest.raises(OptionError, match="fn must be a plain function, got the async"):
        await NUMBERS.reduce(work, 0)


@pytest.mark.parametrize("operator", ["chain", "zip", "merge"])
@pytest.mark.parametrize("other", [[2], iter("ab"), None, penstock.stream])
def test_what_is_no_stream_is_not_combined(operator, other):
    """`penstock.merge` makes streams of plain sources; the operators take streams only, and say so when built."""
    with pytest.raises(OptionError) as raised:
        getattr(NUMBERS, operator)(NUMBERS, other)
    assert str(raised.value) == f"others must be streams (see penstock.stream), got {other!r}"


@pytest.mark.parametrize("made", [None, [1], NUMBERS.open])
def test_through_gives_a_stream(made):
    with pytest.raises(OptionError) as raised:
        NUMBERS.through(lambda _: made)
    assert str(raised.value) == f"fn(stream) must be a Stream, got {made!r}"


class Awkward:
    """A value whose own code fails whatever it is asked."""

    def __repr__(self):
        raise ZeroDivisionError

    def __eq__(self, other):
        raise ZeroDivisionError

    __hash__ = None


@pytest.mark.parametrize(
    "option", ["concurrency", "on_error", "engine", "ordered", "name", "timeout", "retry", "limit"]
)
def test_a_value_whose_own_code_fails_is_refused_by_name(option):
    with pytest.raises(OptionError, match=f"^{option} .*Awkward"):
        penstock.stream([1]).map(str, **{option: Awkward()})


ASYNC = lambda *given: work(*given[:1])  # noqa: E731 -- a lambda is the trap: nothing tells that it is async


async def fails(number):
    raise ValueError(number)


@pytest.mark.parametrize(
    ("option", "ends"),
    [
        ("key", lambda: NUMBERS.distinct(key=ASYNC).to_list()),
        ("key", lambda: NUMBERS.group_by(ASYNC).to_list()),
        ("key", lambda: NUMBERS.map(work, key=ASYNC, concurrency=2).to_list()),
        ("key", lambda: NUMBERS.map(work, limit=penstock.Limiter(1, key=ASYNC)).to_list()),
        ("key", lambda: penstock.RateLimit(1, 1, key=ASYNC).acquire(1, "item")),
        ("fn", lambda: NUMBERS.scan(ASYNC, 0).to_list()),
        ("fn", lambda: NUMBERS.reduce(ASYNC, 0)),
        ("fold", lambda: NUMBERS.checkpoint("sum", fold=ASYNC, initial=0).drain()),
        ("on", lambda: NUMBERS.map(fails, retry=penstock.Retry(on=ASYNC)).drain()),
        ("refused", lambda: NUMBERS.map(fails, concurrency=penstock.Adaptive(refused=ASYNC)).drain()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_plain_function_that_gives_a_coroutine_is_told(option, ends):
    """Trap: nobody awaits it. Each item had a key of its own, each failure was worth a retry, a sum was a coroutine."""
    with pytest.raises(OptionError, match=f"^{option} must be a plain function, it gave a coroutine to be awaited"):
        await ends()
