"""Schedules as penstock's pipelines: their sources, and work that does what its script says."""

import asyncio
from contextlib import suppress

import penstock
from penstock.testing import Scripted

from .list_code import HEAVIEST, copies, is_even, is_low, kept, number_of, numbers, rest, weight


class Boom(Exception):
    """Raised by work."""


class Work:
    """The work of one step, seen from inside its function: it knows nothing of the run.

    `running` counts calls in progress, `begun` items in the order in which their first attempts began, `settled` those
    of which it knows that nothing will be handed on, `done` the positions in `begun` whose work has returned.
    """

    def __init__(self, step, name, witness):
        self.step, self.name, self.witness = step, name, witness
        self.running = self.peak = self.settled = 0
        self.begun = []
        self.done = set()
        self.ended_at = None
        self.first_failure = None
        self.done_before_failure = None

    def __enter__(self):
        self.running += 1
        self.peak = max(self.peak, self.running)
        self.witness.on_start(self)

    def __exit__(self, *_):
        self.running -= 1
        self.ended_at = self.witness.clock.now

    def begin(self, item, attempt):
        """The position of an item, noted at its first attempt."""
        if attempt == 1:
            self.begun.append(item)
        return len(self.begun) - 1

    def fail(self, item, position):
        error = Boom(self.name, item, position)
        if self.first_failure is None:
            self.first_failure = error
            self.done_before_failure = frozenset(self.done)
        self.settled += 1
        raise error

    def returned(self, position):
        self.done.add(position)


def attempts_of(work):
    """Attempt number and position of an item, by the task that has it from its first attempt to its last."""
    known = {}

    def look(item):
        task = asyncio.current_task()
        attempt, position = known.pop(task, (0, None))
        attempt += 1
        if position is None:
            position = work.begin(item, attempt)
        known[task] = attempt, position
        return attempt, position

    return look


async def wait(act):
    """Wait as the act says, and take a cancellation as it says."""
    if act.delay is None:
        return
    try:
        await asyncio.sleep(act.delay)
    except asyncio.CancelledError:
        now = asyncio.get_running_loop().time
        end = now() + act.stubborn
        while now() < end:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(end - now())
        if not act.swallows:
            raise


def on_loop(work, result):
    """An async function that does its acts and returns `result(item)`."""
    step, look = work.step, attempts_of(work)

    async def call(item):
        attempt, position = look(item)
        act = step.act(number_of(item))
        with work:
            try:
                await wait(act)
            except asyncio.CancelledError:
                if attempt == step.attempts:
                    work.settled += 1
                raise
            if attempt <= act.failures:
                if attempt == step.attempts:
                    work.fail(item, position)
                raise Boom(work.name, item, position)
            output = result(item)
            work.settled += step.kind == "filter" and not output
            work.returned(position)
            return output

    return call


def generating(work):
    """An async generator function: gives its outputs after its delay each; fails first, or last if it is tried once."""
    step, look = work.step, attempts_of(work)

    async def outputs(item):
        attempt, position = look(item)
        act = step.act(number_of(item))
        with work:
            if attempt <= act.failures and step.attempts > 1:
                if attempt == step.attempts:
                    work.fail(item, position)
                raise Boom(work.name, item, position)
            for each in copies(item):
                await wait(act)
                yield each
            if attempt <= act.failures:
                work.fail(item, position)

    return outputs


def iterating(work):
    """An async function that gives an iterator, which may fail at its end."""
    step = work.step

    async def call(item):
        act = step.act(number_of(item))
        position = work.begin(item, 1)
        with work:
            await wait(act)

        def outputs():
            yield from copies(item)
            if act.failures:
                work.fail(item, position)

        return outputs()

    return call


def at_once(work, result):
    """A plain function for the loop or, where its acts wait, for threads."""
    step, loop = work.step, asyncio.get_running_loop()

    def call(item):
        position = work.begin(item, 1)
        act = step.act(number_of(item))
        with work:
            if act.delay is not None:
                loop.clock.sleep(act.delay)
            if act.failures:
                work.fail(item, position)
            output = result(item)
            work.returned(position)
            return output

    return call


def reading(work):
    """A generator function for threads, which may fail at its end."""
    step, loop = work.step, asyncio.get_running_loop()

    def outputs(item):
        act = step.act(number_of(item))
        for each in copies(item):
            with work:
                if act.delay is not None:
                    loop.clock.sleep(act.delay)
            yield each
        if act.failures:
            work.fail(item, None)

    return outputs


def of_lists(work, *, plain):
    """A function of lists: waits as its first item says, fails if one of the items does."""
    step, loop = work.step, asyncio.get_running_loop()

    def judge(items):
        bad = [item for item in items if step.act(number_of(item)).failures]
        if bad and len(items) > 1:
            raise Boom(work.name, items, None)
        if bad:
            work.fail(items[0], None)
        return list(items)

    def call(items):
        act = step.act(number_of(items[0]))
        with work:
            if act.delay is not None:
                loop.clock.sleep(act.delay)
            return judge(items)

    async def async_call(items):
        with work:
            await wait(step.act(number_of(items[0])))
            return judge(items)

    return call if plain else async_call


def itself(item):
    return item


def mapped(item):
    return item, "mapped"


def nothing(_):
    return None


WORKED = {
    "map": lambda items, work, options: items.map(on_loop(work, mapped), **options),
    "filter": lambda items, work, options: items.filter(on_loop(work, kept), **options),
    "tap": lambda items, work, options: items.tap(on_loop(work, nothing), **options),
    "flat_list": lambda items, work, options: items.flat_map(on_loop(work, copies), **options),
    "flat_iterator": lambda items, work, options: items.flat_map(iterating(work), **options),
    "flat_async": lambda items, work, options: items.flat_map(generating(work), **options),
    "batches": lambda items, work, options: items.map_batches(
        of_lists(work, plain=False), work.step.size, within=work.step.act(0).delay or None, **options
    ),
    "inline": lambda items, work, options: items.map(at_once(work, itself), engine="inline", **options),
    "flat_inline": lambda items, work, options: items.flat_map(at_once(work, copies), engine="inline", **options),
    "thread": lambda items, work, options: items.map(at_once(work, itself), engine="thread", **options),
    "flat_thread": lambda items, work, options: items.flat_map(reading(work), engine="thread", **options),
    "batches_thread": lambda items, work, options: items.map_batches(
        of_lists(work, plain=True), work.step.size, engine="thread", **options
    ),
}

OTHERS = {
    "batch": lambda items, step: items.batch(step.size),
    "batch_within": lambda items, step: items.batch(step.size, within=0.75),
    "batch_weight": lambda items, step: items.batch(step.size, weight=weight, max_weight=HEAVIEST),
    "take": lambda items, step: items.take(step.size * 2 - 2),
    "skip": lambda items, step: items.skip(step.size),
    "take_while": lambda items, step: items.take_while(is_low),
    "skip_while": lambda items, step: items.skip_while(is_even),
    "distinct": lambda items, step: items.distinct(key=rest),
    "enumerate": lambda items, step: items.enumerate(),
    "prefetch": lambda items, step: items.prefetch(step.size),
    "flatten": lambda items, step: items.batch(step.size).flatten(),
    "through": lambda items, step: items.through(lambda stream: stream.filter(lambda item: kept(item))),
}


def options_of(step, name):
    options = {
        "concurrency": step.concurrency, "buffer": step.buffer, "ordered": step.ordered, "on_error": step.on_error,
        "timeout": step.timeout, "name": name,
    }  # fmt: skip
    if step.attempts > 1:
        options["retry"] = penstock.Retry(on=Exception, attempts=step.attempts, initial=0.3, jitter=0)
    return options


def source_of(script, place=-1):
    """A script's source, and the stream that reads it."""
    items, clock = numbers(script, place), asyncio.get_running_loop().clock
    if script.kind == "plain":
        source = Scripted(items)
        return source, penstock.stream(source.sync())
    source = Scripted(items, delay=script.delay, ignore_cancel=script.ignore_cancel, close_delay=script.close_delay)
    if script.kind == "thread":
        return source, penstock.stream(source.sync(clock), engine="thread")
    return source, penstock.stream(source)


def build(schedule, witness):
    """The stream of a schedule, with `witness` told of every source, every function and every item handed on."""
    source, stream = source_of(schedule.source)
    before = witness.watch_source(schedule.source, source)
    stream = before.attach(stream)
    for place, step in enumerate(schedule.steps):
        name = f"{step.kind} {place}"
        inputs, work = [before], None
        if step.kind in WORKED:
            work = Work(step, name, witness)
            stream = WORKED[step.kind](stream, work, options_of(step, name))
        elif step.other is None:
            stream = OTHERS[step.kind](stream, step)
        else:
            source, other = source_of(step.other, place)
            beside = witness.watch_source(step.other, source)
            inputs.append(beside)
            stream = getattr(stream, step.kind)(beside.attach(other))
        before = witness.watch_step(step, work, inputs)
        stream = before.attach(stream)
    return stream
