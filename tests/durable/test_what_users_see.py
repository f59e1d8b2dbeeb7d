"""What a user's functions are given in a durable run is what they are given in a plain one: never the wrapped item."""

import asyncio
import logging
import random
import re
from itertools import count

import pytest

from penstock import Limiter, RateLimit, Retry, keyed
from penstock.sinks.table import SqliteTable

pytestmark = pytest.mark.slow

ITEMS = tuple(f"item {number}" for number in range(12))
FAILS_ONCE = {"item 2", "item 7"}
FAILS = {"item 5", "item 10"}


class Fault(Exception):
    """What work raises; it knows the item."""


class Seen:
    """Everything that the functions of a user were given in one run."""

    def __init__(self, failing):
        self.given = []
        self.failing = failing
        self.tries = {}

    def note(self, what, value):
        self.given.append((what, repr(value)))

    def try_it(self, item):
        """Fail for good, or the first time, or not."""
        self.tries[item] = self.tries.get(item, 0) + 1
        if item in self.failing or (item in FAILS_ONCE and self.tries[item] == 1):
            raise Fault(item)

    def on(self, error):
        self.note("on", error)
        return isinstance(error, Fault)

    def wait(self, error):
        self.note("wait", error)
        return 0

    def cost(self, item):
        self.note("cost", item)
        return 1

    def key(self, item):
        self.note("key", item)
        return item

    def version(self, item):
        self.note("version", item)
        return ""


# The operators: each with functions of every kind that it takes


def one(seen, kind, give):
    """A function of an item."""

    def plain(item):
        seen.note("work", item)
        seen.try_it(item)
        return give(item)

    async def on_loop(item):
        await asyncio.sleep(0)
        return plain(item)

    return {"plain": plain, "async": on_loop, "lambda": lambda item: on_loop(item)}[kind]


def many(seen, kind):
    """A function of a list."""

    def plain(items):
        seen.note("work", items)
        for item in items:
            seen.try_it(item)
        return [item.upper() for item in items]

    async def on_loop(items):
        await asyncio.sleep(0)
        return plain(items)

    return {"plain": plain, "async": on_loop, "lambda": lambda items: on_loop(items)}[kind]


def fan(seen, kind):
    """A function of an item that gives several."""

    def plain(item):
        seen.note("work", item)
        yield f"{item}a"
        seen.try_it(item)
        yield f"{item}b"

    def listed(item):
        return list(plain(item))

    async def generated(item):
        for output in plain(item):
            yield output

    return {"plain": listed, "async": generated, "lambda": lambda item: plain(item)}[kind]


OPERATORS = {
    "map": lambda base, seen, kind, options: base.map(one(seen, kind, str.upper), **options),
    "filter": lambda base, seen, kind, options: base.filter(one(seen, kind, lambda item: item[-1] != "1"), **options),
    "tap": lambda base, seen, kind, options: base.tap(one(seen, kind, str.upper), **options),
    "flat_map": lambda base, seen, kind, options: base.flat_map(fan(seen, kind), **options),
    "map_batches": lambda base, seen, kind, options: base.map_batches(many(seen, kind), 4, **options),
    "flatten": lambda base, seen, kind, options: base.map(
        one(seen, kind, lambda item: [item, item[::-1]]), **options
    ).flatten(),
    "prefetch": lambda base, seen, kind, options: base.prefetch(3).map(one(seen, kind, str.upper), **options),
    "through": lambda base, seen, kind, options: base.through(
        lambda inner: inner.map(one(seen, kind, str.upper), **options)
    ),
    "merge": lambda base, seen, kind, options: base.map(one(seen, kind, str.upper), **options).merge(
        keyed(["other"], key=seen.key).map(one(seen, kind, str.upper), **options)
    ),
}

NUMBERS = count()

OPTIONS = {
    "nothing": lambda seen: {},
    "concurrency": lambda seen: {"concurrency": 3},
    "ordered": lambda seen: {"ordered": False},
    "buffer": lambda seen: {"buffer": 2},
    "engine": lambda seen: {"engine": "thread"},
    "name": lambda seen: {"name": "a name"},
    "retry": lambda seen: {"retry": Retry(attempts=2, on=seen.on, wait=seen.wait)},
    "deadline": lambda seen: {"retry": Retry(attempts=2, on=seen.on, initial=0, deadline=60)},
    "timeout": lambda seen: {"timeout": 60},
    "limit": lambda seen: {"limit": Limiter(2, cost=seen.cost)},
    "rate": lambda seen: {"limit": RateLimit(1e9, 1, cost=seen.cost)},
    "both": lambda seen: {"limit": [Limiter(2, cost=seen.cost), RateLimit(1e9, 1, cost=seen.cost)]},
    "collect": lambda seen: {"on_error": "collect"},
    "skip": lambda seen: {"on_error": "skip"},
    "max_failures": lambda seen: {"on_error": "collect", "max_failures": 1},
    "max_failure_rate": lambda seen: {"on_error": "skip", "max_failure_rate": 0.9},
    "memo": lambda seen: {"memo": True, "deps": next(NUMBERS)},
    "deps": lambda seen: {"deps": "a model"},
}


def without(operator, kind, options):
    """The options without those that the operator refuses for such a function."""
    plain = kind == "plain"
    drop = {
        "engine": not plain,
        "timeout": plain and options.get("engine") != "thread" and options.get("concurrency", 1) == 1,
        "memo": operator == "tap",
    }
    return {name: value for name, value in options.items() if not drop.get(name)}


def bare(text):
    """A text without the keys of roots, which only durable runs know."""
    return re.sub(r", root '[^']*'", "", text)


class Outcome:
    """What came of one run."""

    def __init__(self, caplog, run, seen):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="penstock"):
            self.rows, failures, self.raised = asyncio.run(run())
        self.given = sorted(each for each in seen.given if each[0] not in {"key", "version"})
        self.keys = {value for what, value in seen.given if what in {"key", "version"}}
        self.failures = sorted((repr(f.error), f.index, repr(f.item), f.stage, f.attempts) for f in failures)
        self.logged = sorted(bare(r.getMessage()) for r in caplog.records if re.match("skipped|stage", r.msg))
        self.all_logged = caplog.text

    def of(self, *names):
        return {name: getattr(self, name) for name in names}


def told(error):
    """What an error says; the place of the run among its notes is that of durable ones."""
    notes = [bare(text) for text in getattr(error, "__notes__", ()) if not text.startswith("penstock: run ")]
    return repr(error), notes


def both(caplog, folder, operator, kind, names, failing=FAILS):
    """The outcome of a plain run and of a durable one with the same options."""

    def made(seen, *, is_plain):
        options = {}
        for name in names:
            options |= OPTIONS[name](seen)
        options = without(operator, kind, options)
        if is_plain:
            options.pop("memo", None)
        base = keyed(ITEMS, key=seen.key, version=seen.version)
        return OPERATORS[operator](base, seen, kind, options).map(lambda text: {"text": text})

    seen = Seen(failing)

    async def plain():
        rows = []
        try:
            async with made(seen, is_plain=True).open() as items:
                async for row in items:
                    rows.append(row["text"])  # noqa: PERF401 -- what was there before an error counts
        except Fault as error:
            return sorted(rows), items.failures, told(error)
        return sorted(rows), items.failures, None

    first = Outcome(caplog, plain, seen)
    durably = Seen(failing)

    async def durable():
        sink = SqliteTable(folder / f"{next(NUMBERS)}.db", "rows")
        error = None
        failures = ()
        try:
            report = await made(durably, is_plain=False).to(sink, run="run")
            failures = report.failures
        except Fault as fault:
            error = told(fault)
        return sorted(row["text"] for row in sink.rows()), failures, error

    return first, Outcome(caplog, durable, durably)


def compare(plain, durable, names):
    assert "Tracked" not in durable.all_logged
    assert "of root" not in durable.all_logged
    raising = plain.raised is not None
    ordered = not {"concurrency", "ordered", "buffer", "engine"} & set(names)
    if raising and not ordered:  # which calls were begun by then is a matter of turns
        assert (durable.raised is None) == (plain.raised is None)
        assert {what for what, _ in durable.given} == {what for what, _ in plain.given}
        return
    same = ("given", "raised", "logged")
    if not raising:  # what stands on its own: with a failure, a root is not delivered by halves
        same = (*same, "failures")
    assert durable.of(*same) == plain.of(*same)


@pytest.mark.parametrize("kind", ["plain", "async", "lambda"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_functions_are_given_what_they_are_given_in_a_plain_run(memory, caplog, operator, kind):
    """Every option alone, with failures raised and set aside; then ten mixtures of them."""
    chances = random.Random(f"{operator} {kind}")
    singles = [[name] for name in OPTIONS]
    collected = [[name, "collect"] for name in OPTIONS if name not in {"max_failures", "max_failure_rate", "skip"}]
    mixtures = [chances.sample(sorted(OPTIONS), 4) for _ in range(10)]
    for names in singles + collected + mixtures:
        names.sort(key=lambda name: name == "collect")  # it is last: `max_failures` brings one
        if {"max_failures", "max_failure_rate"} <= set(names):
            names.remove("max_failures")
        plain, durable = both(caplog, memory, operator, kind, names)
        compare(plain, durable, names)


@pytest.mark.parametrize("operator", OPERATORS)
def test_results_are_those_of_a_plain_run(memory, caplog, operator):
    """Where nothing fails for good, the rows are the same, whatever the options."""
    kind = "plain" if operator == "flat_map" else "async"  # a generator is not tried again once it has given something
    for name in OPTIONS:
        plain, durable = both(caplog, memory, operator, kind, [name, "retry"], failing=())
        assert plain.raised is None
        assert durable.rows == plain.rows, name


def test_the_cost_of_batches_is_that_of_a_list_of_items(tmp_path):
    """The list itself may be changed: it is no list of the run."""
    seen = []

    def cost(items):
        seen.append(list(items))
        return len(items)

    stream = keyed(range(5), key=int).map_batches(list, 2, limit=RateLimit(1e9, 1, burst=10, cost=cost))
    asyncio.run(stream.map(lambda n: {"n": n}).to(SqliteTable(tmp_path / "out.db", "rows"), run="run"))
    assert seen == [[0, 1], [2, 3], [4]]


def test_a_failure_of_closing_what_a_function_gave_shows_the_item(tmp_path):
    """The road of cleanup is another one than that of failures."""

    class Sticky:
        def __init__(self):
            self.left = [1, 2, 3]

        def __iter__(self):
            return self

        def __next__(self):
            return {"n": self.left.pop()}

        def close(self):
            raise Fault("closing")

    failed = []

    async def main():
        stream = keyed(["a", "b"], key=str).flat_map(lambda _: Sticky()).tap(fail_at_once)
        try:
            await stream.to(SqliteTable(tmp_path / "out.db", "rows"), run="run")
        except ValueError as error:
            failed.append(error)

    def fail_at_once(row):
        raise ValueError(row)

    asyncio.run(main())
    told = "\n".join(failed[0].__notes__)
    assert "closing" in told
    assert "of root" not in told
