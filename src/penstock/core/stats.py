"""What a run counts, as it stands at one moment."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.core.stage import Stage


@dataclass(frozen=True, slots=True)
class StageStats:
    """The counters of one stage: `taken` is always the sum of the outcomes and `in_flight` (P5).

    `in_flight` counts items that run, or have finished and wait to be handed on; `retried` counts attempts after the
    first; `peak_running` is the most calls that ran at once.
    """

    name: str
    taken: int
    delivered: int
    dropped: int
    failed: int
    cancelled: int
    discarded: int
    in_flight: int
    retried: int
    peak_running: int


@dataclass(frozen=True, slots=True)
class Stats:
    """The stages of a run, from the source down; look one up by position or by name."""

    stages: tuple[StageStats, ...] = ()

    def __iter__(self) -> Iterator[StageStats]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def __getitem__(self, key: int | str) -> StageStats:
        if isinstance(key, int):
            return self.stages[key]
        for stage in self.stages:
            if stage.name == key:
                return stage
        raise KeyError(f"no stage {key!r}: there are {', '.join(repr(stage.name) for stage in self.stages)}")


def stats_of(stages: "Sequence[Stage[Any]]") -> Stats:
    """The counters of `stages` now."""
    return Stats(tuple(_stage_stats(stage) for stage in stages))


def _stage_stats(stage: "Stage[Any]") -> StageStats:
    settled = stage.delivered + stage.dropped + stage.failed + stage.cancelled + stage.discarded
    return StageStats(
        name=stage.name,
        taken=stage.taken,
        delivered=stage.delivered,
        dropped=stage.dropped,
        failed=stage.failed,
        cancelled=stage.cancelled,
        discarded=stage.discarded,
        in_flight=stage.taken - settled,
        retried=stage.retried,
        peak_running=stage.peak_running,
    )
