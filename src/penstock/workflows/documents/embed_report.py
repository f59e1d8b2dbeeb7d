"""What a run of `embed` did, so far or at its end."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock.core.stats import StageStats

LISTED = 1_000
"""Failures, and files that are gone, that are kept by name; the rest are counted."""


class Listed[T]:
    """Counts what is added, and keeps the newest 1,000."""

    def __init__(self) -> None:
        self.count: int = 0
        self._newest = deque[T](maxlen=LISTED)

    def add(self, item: T) -> None:
        """Count `item`, and keep it."""
        self.count += 1
        self._newest.append(item)

    def __iter__(self) -> Iterator[T]:
        return iter(self._newest)


@dataclass(frozen=True, slots=True)
class Failure:
    """A file or directory that was not indexed, and why; its earlier version stays in the index."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class EmbedReport:
    """What a run did.

    Attributes:
        target: the index.
        files, chunks: stored by this run.
        recalled: chunks whose vectors were kept from an earlier run (`memo`).
        unchanged: files that the index had already in this version.
        failed, failures: files and directories that could not be indexed: their number, and the newest 1,000 by name.
        gone, gone_files: files of the index, under the run's paths and globs, that do not exist any more: their number,
            and the newest 1,000 by name. They stay in the index unless it is pruned.
        removed: files that pruning removed from the index.
        replaced, replaced_characters: files with bytes that were no text, and how many U+FFFD stand for these.
        links, links_out: links to directories, and to files outside of the paths, which are not followed.
        seconds: since the index was opened.
        first_row_seconds: until the first document was committed; None if none was.
        peak_memory: of the process, in bytes; None where the system does not tell.
        interrupted: whether it was stopped; the same call goes on.
        stages: the counters of read, embed and store.
        lost: files whose chunks in the index others have removed, all or some.
    """

    target: str
    files: int
    chunks: int
    recalled: int
    unchanged: int
    failed: int
    failures: tuple[Failure, ...]
    gone: int
    gone_files: tuple[str, ...]
    removed: int
    replaced: int
    replaced_characters: int
    links: int
    links_out: int
    seconds: float
    first_row_seconds: float | None
    peak_memory: int | None
    interrupted: bool
    stages: tuple[StageStats, ...]
    lost: int = 0

    @property
    def files_per_second(self) -> float:
        """Files stored, per second."""
        return self.files / self.seconds if self.seconds else 0.0


def peak_memory() -> int | None:
    """Return the most memory, in bytes, that this process has held (VmHWM); None where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), None)
