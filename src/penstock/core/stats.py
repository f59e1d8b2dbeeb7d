"""What a run counts and measures, at one moment."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload, override

from penstock.core.text import line, table


@dataclass(frozen=True, slots=True)
class Latency:
    """Quantiles of how long calls took that returned, in seconds, within 2 %.

    `samples` calls were timed, a `share` of all (0 to 1): every call while they take 10 ms or more, and 0.1 ms for each
    call that may run at once; else one in 16 of the first 1,024 and one in 64 after,
    or fewer; every call with `open(timing=True)`.
    """

    p50: float
    p95: float
    p99: float
    samples: int
    share: float


@dataclass(frozen=True, slots=True, repr=False)
class StageStats:
    """The counters and measurements of one stage.

    Counters are exact: `taken` is always the sum of the outcomes and `in_flight` (P5). A stage that runs no function
    has 0 or None where there is nothing to measure. Times are in seconds.

    Attributes:
        name: of the stage.
        taken: items that came in.
        delivered, dropped, failed, cancelled, discarded: their outcomes.
        in_flight, peak_in_flight: items without an outcome yet: they run, or have finished and wait to be handed on.
        started, succeeded: items whose work has begun, has returned.
        retried: attempts after the first.
        miscounted: calls of `map_batches` that gave a wrong number of results; the first is in the log.
        running, peak_running: calls in progress.
        aside, peak_aside: calls that wait for the key of a `limit=`: they are in flight, hold no place, and do not run.
        buffered, peak_buffered: results that wait to be handed on.
        buffered_bytes, peak_buffered_bytes: their sizes together, of a stage with `buffer_bytes=`.
        upstream_wait_s: time in which a place was free and there was no item for it.
        consumer_wait_s: time in which a place was free but not usable, because the next result was not taken.
        blocked_by_head_s: time in which a place was free but not usable, because results waited for an earlier one that
            still ran; `buffer=` or `ordered=False` make it less.
        limit_wait_s: time in which one call or more waited for a `limit=`.
        blocked_loop_s: time in which a lambda or another callable kept the event loop, summed over timed calls of 0.1 s
            or more; `engine="thread"` makes it 0.
        first_result_s: time from the opening of the run to the first result.
        latency: of one attempt of the work function; None before the first call has returned.
        concurrency: the option of that name, or where `Adaptive` stands.
        total: how many items to expect, if the source knows.
    """

    name: str
    taken: int
    delivered: int
    dropped: int
    failed: int
    cancelled: int
    discarded: int
    started: int = 0
    succeeded: int = 0
    retried: int = 0
    miscounted: int = 0
    running: int = 0
    peak_running: int = 0
    aside: int = 0
    peak_aside: int = 0
    peak_in_flight: int = 0
    buffered: int = 0
    peak_buffered: int = 0
    buffered_bytes: int = 0
    peak_buffered_bytes: int = 0
    upstream_wait_s: float = 0.0
    consumer_wait_s: float = 0.0
    blocked_by_head_s: float = 0.0
    limit_wait_s: float = 0.0
    blocked_loop_s: float = 0.0
    first_result_s: float | None = None
    latency: Latency | None = None
    concurrency: int | None = None
    total: int | None = None

    @override
    def __repr__(self) -> str:
        return f"<StageStats {self.in_words()}>"

    def in_words(self) -> str:
        """Write the counters that are not 0 in a line: "map(fetch): 9 taken, 7 delivered, 2 in flight"."""
        rest = ("delivered", "dropped", "failed", "cancelled", "discarded", "retried", "in_flight")
        counts = {word: getattr(self, word) for word in rest}
        said = [
            f"{self.taken:,} taken",
            *(f"{each:,} {word.replace('_', ' ')}" for word, each in counts.items() if each),
        ]
        return f"{line(self.name, 60)}: {', '.join(said)}"

    @property
    def in_flight(self) -> int:
        """Items that were taken and have no outcome yet."""
        return self.taken - self.delivered - self.dropped - self.failed - self.cancelled - self.discarded


@dataclass(frozen=True, slots=True, repr=False)
class Stats(Sequence[StageStats]):
    """The stages of a run, from the source down. Look one up by position or by name; `str()` gives a table.

    If several stages share a name, as two lambdas or two sources do, the name finds the first; `name=` tells them
    apart. `seconds` is the time since the run was opened, until it was closed.
    """

    stages: tuple[StageStats, ...] = ()
    seconds: float = 0.0

    @override
    def __repr__(self) -> str:
        return line(f"<Stats {self.seconds:.1f} s; {'; '.join(stage.in_words() for stage in self.stages)}>", 400)

    def __iter__(self) -> Iterator[StageStats]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    @overload
    def __getitem__(self, key: int | str) -> StageStats: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[StageStats, ...]: ...
    def __getitem__(self, key: int | str | slice) -> StageStats | tuple[StageStats, ...]:
        if not isinstance(key, str):
            return self.stages[key]
        for stage in self.stages:
            if stage.name == key:
                return stage
        raise KeyError(f"no stage {key!r}: there are {', '.join(repr(stage.name) for stage in self.stages)}")

    @property
    def bottleneck(self) -> str | None:
        """What held the run up most: the name of a stage, "the consumer", or None if nothing ran.

        A stage holds the run up while its places are in use: it waits neither for items nor for its results to be
        taken. The source holds it up while the first stage waits for it, the consumer while the last stage waits for
        it.
        """
        place = self._bottleneck()
        if place is None:
            return None
        return self.stages[place].name if place < len(self.stages) else "the consumer"

    def _bottleneck(self) -> int | None:
        """Return the position of the bottleneck (names may repeat).

        One behind the last stage stands for the consumer.
        """
        working = [place for place, stage in enumerate(self.stages) if stage.concurrency is not None]
        if not working or self.seconds <= 0:
            return None
        first, last = self.stages[working[0]], self.stages[working[-1]]
        held = {0: first.upstream_wait_s, len(self.stages): last.consumer_wait_s}
        for place in working:
            held[place] = self.seconds - self.stages[place].upstream_wait_s - self.stages[place].consumer_wait_s
        return max(held, key=lambda place: held[place])

    def __str__(self) -> str:
        if not self.stages:
            return "nothing has run"
        slowest = self._bottleneck()
        rows = [_row(stage, "> " if place == slowest else "  ") for place, stage in enumerate(self.stages)]
        lines = [f"{self.seconds:.1f} s", table(_HEAD, rows)]
        if slowest is not None:
            lines.append(f"bottleneck: {self.bottleneck}{self._advice()}")
        lines += [
            f"{s.name} gave a wrong number of results in {s.miscounted} calls" for s in self.stages if s.miscounted
        ]
        return "\n".join(lines)

    def _advice(self) -> str:
        keeping = max(self.stages, key=lambda stage: stage.blocked_loop_s)
        if keeping.blocked_loop_s:
            return f'; {keeping.name} kept the event loop for {duration(keeping.blocked_loop_s)}: give engine="thread"'
        blocked = max(self.stages, key=lambda stage: stage.blocked_by_head_s)
        limited = max(self.stages, key=lambda stage: stage.limit_wait_s)
        if max(blocked.blocked_by_head_s, limited.limit_wait_s) < self.seconds / 10:
            return ""
        if limited.limit_wait_s >= blocked.blocked_by_head_s:
            share = limited.limit_wait_s / self.seconds
            return f"; calls of {limited.name} waited for its limit {share:.0%} of the time"
        share = blocked.blocked_by_head_s / self.seconds
        return f"; {blocked.name} was blocked by its head {share:.0%} of the time: buffer= or ordered=False would help"


_HEAD = (
    "stage", "taken", "delivered", "dropped", "failed", "cancelled", "discarded", "retried",
    "running (peak)", "buffered (peak)", "wait upstream", "consumer", "head", "limit", "p50", "p95", "p99", "timed",
)  # fmt: skip


def _row(stage: StageStats, mark: str) -> tuple[str, ...]:
    counts = (
        stage.taken, stage.delivered, stage.dropped, stage.failed, stage.cancelled, stage.discarded, stage.retried
    )  # fmt: skip
    name = mark + stage.name
    if stage.concurrency is None:
        return (name, *(f"{count:,}" for count in counts), *[""] * 10)
    waits = (stage.upstream_wait_s, stage.consumer_wait_s, stage.blocked_by_head_s)
    latency = stage.latency
    return (
        name,
        *(f"{count:,}" for count in counts),
        f"{stage.running:,} ({stage.peak_running:,})",
        f"{stage.buffered:,} ({stage.peak_buffered:,})",
        *map(duration, waits),
        duration(stage.limit_wait_s) if stage.limit_wait_s else "",
        *(["", "", "", ""] if latency is None else _latency(latency)),
    )


def _latency(latency: Latency) -> list[str]:
    return [*map(duration, (latency.p50, latency.p95, latency.p99)), f"{latency.share:.0%}"]


def duration(seconds: float) -> str:
    """Write a time in the unit that gives one to three digits before the point."""
    if seconds >= 1 or seconds == 0:
        return f"{seconds:.1f} s"
    milliseconds = seconds * 1e3
    return f"{milliseconds:.1f} ms" if milliseconds >= 1 else f"{milliseconds * 1e3:.0f} us"
