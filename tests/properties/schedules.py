"""Random schedules: a source, the steps of a pipeline, what their work does with each item, and who leaves when.

A schedule is plain data: Hypothesis draws it, shrinks it and prints it, so one that failed can be pasted into a test.
"""

from dataclasses import dataclass, replace

from hypothesis import strategies as st

ALWAYS = 99
"""Attempts that fail, of work that never succeeds."""

GRACE = 5.0
"""Seconds that a run of a schedule gives to work that ignores its cancellation."""

ON_LOOP = ("map", "filter", "tap", "flat_list", "flat_iterator", "flat_async", "batches")
AT_ONCE = ("inline", "flat_inline")
IN_THREADS = ("thread", "flat_thread", "batches_thread")
WORKING = ON_LOOP + AT_ONCE + IN_THREADS
"""Steps that run a function, whose work may fail."""

STOPPING = ("take", "take_while", "zip")
"""Steps that may have enough before their source has ended."""

JOINING = ("chain", "merge", "zip")
"""Steps with a source of their own."""

PASSING = (
    "batch", "batch_within", "batch_weight", "skip", "skip_while", "distinct", "enumerate", "prefetch", "flatten",
    "through",
)  # fmt: skip
KINDS = WORKING + PASSING + STOPPING + JOINING[:2]

ONE_FOR_ONE = ("map", "filter", "tap", "inline", "thread")
"""Working steps whose items in and out are counted alike."""

RETRIED = ("map", "filter", "tap", "flat_list", "flat_async")
TIMED = ("map", "filter", "tap", "flat_list")


@dataclass(frozen=True)
class Act:
    """What work does with an item: waits (None: it never suspends), fails that many attempts.

    When cancelled it goes on for `stubborn` seconds, then gives in; with `swallows` it returns as if nothing had been.
    """

    delay: float | None = None
    failures: int = 0
    stubborn: float = 0.0
    swallows: bool = False


@dataclass(frozen=True)
class Script:
    """A source: how many items, seconds before each, how it is read, how it stops."""

    count: int = 3
    delay: float | None = None
    kind: str = "async"
    ignore_cancel: float = 0.0
    close_delay: float = 0.0


@dataclass(frozen=True)
class Step:
    """An operator and its options; item number n is met with `acts[n % len(acts)]`."""

    kind: str
    acts: tuple[Act, ...] = (Act(),)
    concurrency: int = 1
    buffer: int = 0
    ordered: bool = True
    on_error: str = "raise"
    attempts: int = 1
    timeout: float | None = None
    size: int = 1
    other: Script | None = None

    def act(self, number):
        return self.acts[number % len(self.acts)]

    @property
    def exact(self):
        """Whether order and grouping of the outputs follow from the inputs alone."""
        return self.kind not in {"merge", "batch_within"} and (self.ordered or self.kind not in WORKING)

    def fails(self, number):
        """Whether work on that item fails for good."""
        act = self.act(number)
        late = self.timeout is not None and act.delay is not None and act.delay > self.timeout
        return late or act.failures >= self.attempts


@dataclass(frozen=True)
class Consumer:
    """Who reads: pauses between items, patience for each `anext`, and how and when it leaves.

    `leave` is None, or ("break" | "error" | "aclose", after so many items), ("timeout", seconds) inside the block,
    ("cancel" | "stop", seconds, passes of the loop after that), ("cancel twice", seconds, passes, seconds until again).
    """

    pauses: tuple[float | None, ...] = (None,)
    patience: float | None = None
    leave: tuple | None = None


@dataclass(frozen=True)
class Schedule:
    source: Script
    steps: tuple[Step, ...] = ()
    consumer: Consumer = Consumer()
    turn: float = 0.0
    """Seconds that pass at each look at the clock by which a run gives others their turn."""


DELAYS = st.sampled_from([None, 0, 0.5, 1, 1, 2, 7])
SOURCE_DELAYS = st.sampled_from([None, None, 0, 0.5, 1, 3])
MOMENTS = st.sampled_from([0, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 14])


@st.composite
def scripts(draw, most):
    kind = draw(st.sampled_from(["async", "async", "async", "plain", "thread"]))
    delay = draw(SOURCE_DELAYS) if kind != "plain" else None
    return Script(
        count=draw(st.sampled_from([0, 1, most // 2]) | st.integers(most // 2, most)),
        delay=delay,
        kind=kind,
        ignore_cancel=draw(st.sampled_from([0, 0, 2])) if kind == "async" else 0.0,
        close_delay=draw(st.sampled_from([0, 0, 1])) if kind != "plain" else 0.0,
    )


@st.composite
def acts(draw, kind, *, failing=False, stubborn=False):
    """What work of that kind can do; threads cannot be stopped, so they take no longer than the grace."""
    delay = draw(DELAYS)
    if kind in AT_ONCE:
        delay = None
    elif kind in IN_THREADS:
        delay = delay and min(delay, 2)
    flaky = (0, 0, 0, 0, 1, 2, ALWAYS) if kind in RETRIED else (0, 0, 0, 0, ALWAYS)
    ignores = draw(st.sampled_from([0, 0, 2, 2, 20])) if stubborn and kind in ON_LOOP else 0
    return Act(
        delay=delay,
        failures=draw(st.sampled_from(flaky)) if failing else 0,
        stubborn=ignores,
        swallows=bool(ignores) and draw(st.booleans()),
    )


@st.composite
def steps(draw, kinds=KINDS, *, on_error=("skip", "collect", "return"), failing=None, stubborn=False):
    kind = draw(st.sampled_from(ON_LOOP) | st.sampled_from(kinds))
    step = Step(kind, size=draw(st.integers(1, 4)))
    if kind in JOINING:
        return replace(step, other=draw(scripts(6)))
    if kind not in WORKING:
        return step
    if failing is None:
        failing = draw(st.booleans())
    raising = on_error == ("raise",)
    least, most = (3, 8) if raising else (1, 5)
    made = draw(st.lists(acts(kind, failing=failing, stubborn=stubborn), min_size=least, max_size=most))
    if raising:
        made[-1] = replace(made[-1], failures=ALWAYS)
    step = replace(
        step,
        acts=tuple(made),
        concurrency=draw(st.integers(1, 5)),
        buffer=draw(st.integers(0, 4)),
        ordered=draw(st.sampled_from([True, True, False])),
        on_error=draw(st.sampled_from(on_error)),
    )
    if kind in RETRIED and failing:
        step = replace(step, attempts=draw(st.integers(1, 3)))
    if kind in TIMED and failing:
        timeout = draw(st.sampled_from([None, None, 1.25]))
        if timeout is not None:  # what it makes of a timeout that it swallows is a result
            step = replace(step, timeout=timeout, acts=tuple(replace(act, swallows=False) for act in step.acts))
    return step


CONSUMERS = st.builds(
    Consumer,
    pauses=st.lists(st.sampled_from([None, None, 0, 0.5, 2, 9]), min_size=1, max_size=4).map(tuple),
    patience=st.sampled_from([None, None, 0.05, 0.3, 1]),
)
TURNS = st.sampled_from([0.0, 0.0, 0.0, 0.0006, 0.001, 0.002])

LEAVES = st.one_of(
    st.tuples(st.sampled_from(["break", "error", "aclose"]), st.integers(0, 8)),
    st.tuples(st.just("timeout"), MOMENTS),
    st.tuples(st.just("cancel"), MOMENTS, st.integers(0, 6)),
    st.tuples(st.just("cancel twice"), MOMENTS, st.integers(0, 6), st.sampled_from([None, 0, 0.5, 1, 3, 8])),
)
STOPS = st.tuples(st.just("stop"), MOMENTS, st.integers(0, 6))


def to_the_end():
    """Schedules whose consumer reads everything; failures are dropped, kept or handed on."""
    return st.builds(Schedule, scripts(14), st.lists(steps(), max_size=4).map(tuple), CONSUMERS, TURNS)


@st.composite
def with_a_failure(draw):
    """Schedules in which one step raises; those around it work, and none has enough before the source has ended."""
    kinds = WORKING + PASSING
    before = draw(st.lists(steps(kinds, failing=False), max_size=2))
    failing = draw(steps(WORKING, on_error=("raise",), failing=True, stubborn=draw(st.booleans())))
    behind = draw(st.lists(steps(kinds, failing=False), max_size=2))
    return Schedule(draw(scripts(14)), (*before, failing, *behind), draw(CONSUMERS), draw(TURNS))


@st.composite
def left_early(draw, leaves=LEAVES):
    """Schedules that are left at some moment, with work that ignores its cancellation, also beyond the grace."""
    made = draw(
        st.lists(
            steps(on_error=("skip", "collect", "return", "raise"), stubborn=draw(st.booleans())),
            min_size=1,
            max_size=4,
        )
    )
    consumer = replace(draw(CONSUMERS), leave=draw(leaves))
    return Schedule(draw(scripts(14)), tuple(made), consumer, draw(TURNS))


@st.composite
def told_to_stop(draw):
    """Schedules whose run is told to take nothing more; what it has taken goes its way."""
    consumer = replace(draw(CONSUMERS), leave=draw(STOPS))
    return Schedule(draw(scripts(14)), tuple(draw(st.lists(steps(), max_size=4))), consumer, draw(TURNS))
