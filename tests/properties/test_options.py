"""Options in random company, with work of every kind that fails and waits, against a model of what comes out."""

import asyncio
import functools
import operator
from collections import Counter, defaultdict
from contextlib import nullcontext, suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.test_tracing import Traces

import penstock
from penstock import Adaptive, Failed, Limiter, Ok, RateLimit, Record, Retry
from penstock.core import one_place
from penstock.engines import Threads
from penstock.flow import step
from penstock.testing import Scripted

MOST = 4
"""Calls at once of `Adaptive`, and of limiters."""

VALUES = {
    "ordered": st.sampled_from([True, False, None]),
    "buffer": st.sampled_from([1, 3, 20]),
    "attempts": st.sampled_from([1, 2, 3]),
    "timeout": st.just(1.25),
    "on_error": st.sampled_from(["skip", "collect", "return"]),
    "limits": st.lists(st.sampled_from(["calls", "starts", "by key"]), min_size=1, unique=True),
    "keys": st.sampled_from([1, 3, 99]),
    "keep": st.just(True),
    "buffer_bytes": st.sampled_from([1, 4]),
}
OPTIONS = st.sets(st.sampled_from(sorted(VALUES)), max_size=4).flatmap(
    lambda names: st.fixed_dictionaries({name: VALUES[name] for name in sorted(names)})
)
"""Few at a time: what one option does alone may be another thing in company."""


class Called:
    """A callable object."""

    def __init__(self, fn):
        self.fn = fn

    def __call__(self, item):
        return self.fn(item)


class Awaited(Called):
    """One whose call is async."""

    async def __call__(self, item):
        return await self.fn(item)


FUNCTIONS = {
    "async": lambda case: case.call,
    "lambda": lambda case: lambda item: case.call(item),
    "partial of async": lambda case: functools.partial(case.call),
    "async object": lambda case: Awaited(case.call),
    "task": lambda case: lambda item: asyncio.ensure_future(case.call(item)),
    "plain": lambda case: case.plain,
    "object": lambda case: Called(case.plain),
    "coroutine": lambda case: case.begun,
    "C": lambda case: functools.partial(operator.call, case.plain),
}
ON_LOOP = ("async", "lambda", "partial of async", "async object", "task")
"""What gives an awaitable on the loop; "coroutine" may give it in a thread, "C" gives none and cannot wait."""

CASES = st.fixed_dictionaries(
    {
        "options": OPTIONS,
        "operator": st.sampled_from(["map", "map", "filter", "tap", "add"]),
        "concurrency": st.sampled_from([1, 1, 2, 3, 8, "adaptive"]),
        "function": st.sampled_from(sorted(FUNCTIONS)),
        "engine": st.sampled_from([None, None, "inline", "thread", "shared"]),
        "source": st.sampled_from(["list", "async", "slow", "thread", "failing"]),
        "below": st.sampled_from([None, None, None, "with_metadata", "checkpoint", "prefetch"]),
        "reader": st.sampled_from(["for", "for", "to_list"]),
        "traced": st.sampled_from([None, None, None, None, 0, 1]),
        "trust": st.sampled_from([0, 2, 64]),
        "acts": st.lists(
            st.tuples(st.sampled_from([None, 0, 0.5, 1, 2]), st.sampled_from([0] * 6 + [1, 2, 99])),
            min_size=1,
            max_size=24,
        ),
        "leave": st.none() | st.tuples(st.sampled_from(["break", "cancel", "stop"]), st.integers(0, 9)),
        "pause": st.sampled_from([None, None, 0, 0.5]),
    }
)


class Boom(Exception):
    """Raised by work, and by a source."""


class Case:
    """A stream of one stage, whose work watches the bounds at each start."""

    def __init__(self, case, clock):
        self.clock = clock
        self.acts, self.function, self.source_kind = case["acts"], case["function"], case["source"]
        self.operator, self.below, self.reader, self.traced = (
            case[name] for name in ("operator", "below", "reader", "traced")
        )
        self.leave, self.pause, self.trust = case["leave"], case["pause"], case["trust"]
        self.options = dict(case["options"])
        self.concurrency, self.engine = case["concurrency"], None if self.function in ON_LOOP else case["engine"]
        self._leave_out_what_it_has_not()
        self.keys, self.keep = self.options.get("keys"), self.options.get("keep", False)
        self.most = MOST if self.concurrency == "adaptive" else self.concurrency
        self.in_threads = self.engine in {"thread", "shared"} or (
            self.engine is None
            and self.function in {"plain", "object", "coroutine"}
            and (self.most > 1 or self.operator == "add")
        )
        if self.function in {"plain", "object", "coroutine"} and not self.in_threads:
            self.options.pop("timeout", None)  # it cannot be interrupted
        self.waits = self.in_threads or self.function in ON_LOOP or self.function == "coroutine"
        self.limits = {"calls": Limiter(3), "starts": RateLimit(20, 1), "by key": Limiter(2, key=lambda item: item % 2)}
        self.running, self.began, self.attempts, self.faults = set(), defaultdict(list), Counter(), []
        self.source = Scripted(
            range(len(self.acts)),
            delay=0.5 if self.source_kind == "slow" else None,
            fail_at=len(self.acts) // 2 if self.source_kind == "failing" else None,
            error=Boom("the source"),
        )

    def _leave_out_what_it_has_not(self):
        """Not every operator has every option."""
        if self.operator != "map":
            self.options.pop("keep", None)
        if self.operator == "add":
            self.options.pop("keys", None)
            self.options.pop("buffer_bytes", None)
            if self.options.get("ordered", True) is None:
                del self.options["ordered"]
            if self.concurrency == "adaptive":
                self.concurrency = MOST

    def stream(self, engine):
        options = {name: value for name, value in self.options.items() if name not in {"attempts", "limits", "keys"}}
        options["concurrency"] = Adaptive(most=MOST) if self.concurrency == "adaptive" else self.concurrency
        if attempts := self.options.get("attempts"):
            options["retry"] = Retry(on=Exception, attempts=attempts, initial=0.25, jitter=0)
        if limits := self.options.get("limits"):
            options["limit"] = [self.limits[name] for name in limits]
        if self.keys:
            options["key"] = self.key
        if "buffer_bytes" in options:
            options["size_of"] = lambda _: 1
        if self.engine is not None:
            options["engine"] = engine if self.engine == "shared" else self.engine
        function = FUNCTIONS[self.function](self)
        if self.operator == "add":
            own = {name: options.pop(name) for name in ("retry", "timeout", "limit", "engine") if name in options}
            results = self.read().add(step("work", function, **own), **options)
        else:
            results = getattr(self.read(), self.operator)(function, name="work", **options)
        if self.below is None:
            return results
        return getattr(results, self.below)(*{"checkpoint": ["last"], "prefetch": [2]}.get(self.below, []))

    def read(self):
        if self.source_kind == "list":
            return penstock.stream(list(range(len(self.acts))))
        if self.source_kind == "thread":
            return penstock.stream(self.source.sync(self.clock), engine="thread")
        return penstock.stream(self.source)

    def key(self, item):
        return item % self.keys

    async def call(self, item):
        delay, failures = self.begin(item)
        try:
            if delay is not None:
                await asyncio.sleep(delay)
            return self.end(item, failures)
        finally:
            self.running.discard(item)

    def plain(self, item):
        delay, failures = self.begin(item)
        try:
            if delay and self.in_threads:
                self.clock.sleep(delay)
            return self.end(item, failures)
        finally:
            self.running.discard(item)

    def begun(self, item):
        """Give the coroutine of a call that waits on the loop."""
        return self.call(item)

    def begin(self, item):
        self.attempts[item] += 1
        running = {*self.running, item}
        self.running.add(item)
        limits = self.options.get("limits", ())
        if len(running) > min(self.most, 3 if "calls" in limits or self.engine == "shared" else 99):
            self.faults.append(f"{running} run at once")
        if "by key" in limits and max(Counter(each % 2 for each in running).values()) > 2:
            self.faults.append(f"more than two of a parity: {running}")
        if self.keys:
            if max(Counter(map(self.key, running)).values()) > 1:
                self.faults.append(f"two of a key: {running}")
            if self.attempts[item] == 1:
                self.began[self.key(item)].append(item)
        return self.acts[item]

    def end(self, item, failures):
        if self.attempts[item] <= failures:
            raise Boom(item)
        return f"result {item}"

    # The model

    def fails(self, item):
        delay, failures = self.acts[item]
        late = self.waits and "timeout" in self.options and (delay or 0) > self.options["timeout"]
        return late or failures >= self.options.get("attempts", 1)

    def tries(self, item):
        """How often it is called."""
        delay, failures = self.acts[item]
        late = self.waits and "timeout" in self.options and (delay or 0) > self.options["timeout"]
        attempts = self.options.get("attempts", 1)
        return attempts if late else min(failures + 1, attempts)

    def expected(self):
        """What comes out of all items, in order, as `plain_form` shows it."""
        taken = self.source_kind == "failing" and len(self.acts) // 2
        for item in range(len(self.acts) if taken is False else taken):
            if not self.fails(item):
                yield item, self.output(item)
            elif self.options.get("on_error") == "return":
                yield item, "failed"

    def output(self, item):
        if self.operator in {"filter", "tap"}:
            return item
        return (item, f"result {item}") if self.keep else f"result {item}"

    def plain_form(self, result):
        record = result if isinstance(result, Record) else None
        if record is not None:
            result = record.value
        if isinstance(result, Failed):
            assert (result.item, result.attempts) == (result.index, self.options.get("attempts", 1))
            return result.index, "failed"
        if isinstance(result, Ok):
            result = result.value
        item = result[0] if self.keep else int(str(result).removeprefix("result "))
        assert record is None or (record.index, record.attempts) == (item, self.attempts[item])
        return item, result

    async def read_all(self, run, given):
        async with run:
            async for result in run:
                given.append(self.plain_form(result))
                if self.leave and self.leave[0] == "break" and len(given) >= self.leave[1]:
                    return
                if self.pause is not None:
                    await asyncio.sleep(self.pause)

    async def drive(self):
        async with Threads(3) as engine:
            with (
                pytest.MonkeyPatch.context() as patch,
                nullcontext() if self.traced is None else penstock.traced(Traces().tracer, items=self.traced),
            ):
                patch.setattr(one_place, "TRUST", self.trust)
                return await self.drive_on(self.stream(engine))

    async def drive_on(self, stream):
        if self.reader == "to_list" and self.leave is None:
            try:
                return None, list(map(self.plain_form, await stream.to_list())), None
            except (Boom, penstock.AttemptTimeout) as error:
                return None, [], error
        run, given = stream.open(), []
        reading = asyncio.ensure_future(self.read_all(run, given))
        if self.leave and self.leave[0] != "break":
            await asyncio.sleep(self.leave[1] / 2)
            reading.cancel() if self.leave[0] == "cancel" else run.stop()
        with suppress(asyncio.CancelledError):
            await asyncio.wait([reading])
        error = None if reading.cancelled() else reading.exception()
        return run.stats()["work"], given, error

    def check(self, stats, given, error):
        """P1, P3, P4, P5."""
        assert self.faults == []
        assert not self.running
        assert all(items == sorted(items) for items in self.began.values())
        if stats is not None:
            outcomes = stats.delivered + stats.dropped + stats.failed + stats.cancelled + stats.discarded
            assert (stats.taken, stats.in_flight, stats.running, stats.buffered) == (outcomes, 0, 0, 0)
            assert stats.peak_in_flight <= self.most + self.options.get("buffer", 0)
        assert all(
            (limit.in_use, limit.waiting) == (0, 0) for limit in self.limits.values() if hasattr(limit, "in_use")
        )
        wanted = list(self.expected())
        in_order = self.options.get("ordered") is not False
        assert len(set(given)) == len(given)
        assert set(given) <= set(wanted)
        assert not in_order or given == sorted(given)
        fatal = "on_error" not in self.options and any(map(self.fails, range(len(self.acts))))
        assert error is None or isinstance(error, Boom | penstock.AttemptTimeout)
        if self.leave is None:
            assert (error is not None) == (fatal or self.source_kind == "failing")
            assert fatal or (stats is None and error is not None) or sorted(given) == wanted
        if self.leave is None and error is None:
            assert [self.attempts[item] for item in range(len(self.acts))] == list(
                map(self.tries, range(len(self.acts)))
            )


@pytest.mark.grid
@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(case=CASES)
async def test_options_mean_the_same_in_any_company(case):
    """P1, P3, P4, P5: bounds at each start, what comes out and in which order, the books, and nothing left behind."""
    made = Case(case, asyncio.get_running_loop().clock)
    made.check(*await made.drive())
