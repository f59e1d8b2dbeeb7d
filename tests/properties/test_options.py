"""Options of `map` in random company, with work that fails and waits, against a model of what comes out."""

import asyncio
from collections import Counter, defaultdict
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import penstock
from penstock import Adaptive, Failed, Limiter, Ok, RateLimit, Retry
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

CASES = st.fixed_dictionaries(
    {
        "options": OPTIONS,
        "concurrency": st.sampled_from([1, 2, 3, 8, "adaptive"]),
        "function": st.sampled_from(["async", "lambda", "plain", "thread"]),
        "source": st.sampled_from(["list", "async", "slow", "thread", "failing"]),
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
    """A stream of one `map`, whose work watches the bounds at each start."""

    def __init__(self, case, clock):
        self.clock = clock
        self.acts, self.function, self.source_kind = case["acts"], case["function"], case["source"]
        self.leave, self.pause = case["leave"], case["pause"]
        self.options = dict(case["options"])
        self.concurrency = case["concurrency"]
        if self.function == "plain" and self.concurrency == 1:
            self.options.pop("timeout", None)  # it cannot be interrupted
        self.in_threads = self.function == "thread" or (self.function == "plain" and self.concurrency != 1)
        self.most = MOST if self.concurrency == "adaptive" else self.concurrency
        self.keys, self.keep = self.options.get("keys"), self.options.get("keep", False)
        self.limits = {"calls": Limiter(3), "starts": RateLimit(20, 1), "by key": Limiter(2, key=lambda item: item % 2)}
        self.running, self.began, self.attempts, self.faults = set(), defaultdict(list), Counter(), []
        self.source = Scripted(
            range(len(self.acts)),
            delay=0.5 if self.source_kind == "slow" else None,
            fail_at=len(self.acts) // 2 if self.source_kind == "failing" else None,
            error=Boom("the source"),
        )

    def stream(self):
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
        if self.function == "thread":
            options["engine"] = "thread"
        function = {"async": self.call, "lambda": lambda item: self.call(item)}.get(self.function, self.plain)
        return self.read().map(function, name="map", **options)

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

    def begin(self, item):
        self.attempts[item] += 1
        running = {*self.running, item}
        self.running.add(item)
        limits = self.options.get("limits", ())
        if len(running) > min(self.most, 3 if "calls" in limits else 99):
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
        late = "timeout" in self.options and (delay or 0) > self.options["timeout"]
        return late or failures >= self.options.get("attempts", 1)

    def expected(self):
        """What comes out of all items, in order, as `plain_form` shows it."""
        taken = self.source_kind == "failing" and len(self.acts) // 2
        for item in range(len(self.acts) if taken is False else taken):
            if not self.fails(item):
                yield item, (item, f"result {item}") if self.keep else f"result {item}"
            elif self.options.get("on_error") == "return":
                yield item, "failed"

    def plain_form(self, result):
        if isinstance(result, Failed):
            assert (result.item, result.attempts) == (result.index, self.options.get("attempts", 1))
            return result.index, "failed"
        if isinstance(result, Ok):
            result = result.value
        item = result[0] if self.keep else int(result.removeprefix("result "))
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
        run, given = self.stream().open(), []
        reading = asyncio.ensure_future(self.read_all(run, given))
        if self.leave and self.leave[0] != "break":
            await asyncio.sleep(self.leave[1] / 2)
            reading.cancel() if self.leave[0] == "cancel" else run.stop()
        with suppress(asyncio.CancelledError):
            await asyncio.wait([reading])
        error = None if reading.cancelled() else reading.exception()
        return run.stats()["map"], given, error

    def check(self, stats, given, error):
        """P1, P3, P4, P5."""
        assert self.faults == []
        assert not self.running
        assert all(items == sorted(items) for items in self.began.values())
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
            assert fatal or sorted(given) == wanted


@pytest.mark.grid
@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(case=CASES)
async def test_options_mean_the_same_in_any_company(case):
    """P1, P3, P4, P5: bounds at each start, what comes out and in which order, the books, and nothing left behind."""
    made = Case(case, asyncio.get_running_loop().clock)
    made.check(*await made.drive())
