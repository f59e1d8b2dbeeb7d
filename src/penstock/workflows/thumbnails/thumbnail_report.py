"""What a run of `make_thumbnails` did."""

from dataclasses import dataclass

from penstock.core.stats import StageStats


@dataclass(frozen=True, slots=True)
class PictureFailure:
    """A picture that was set aside, and why; small ones of an earlier version of it stay."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class ThumbnailReport:
    """What a run did.

    Attributes:
        target: the directory.
        pictures: originals that were made small by this run.
        thumbnails: files that came of them.
        unchanged: originals that an earlier run had done in this version.
        failed: originals that were set aside.
        failures: the newest 1,000 of them.
        missing: originals of earlier runs that are gone.
        removed: of those, originals whose files were removed (`prune`).
        lost: originals of which others have removed or changed files in the target.
        unread: places that could not be looked at; nothing there counts as gone.
        seconds: since the target was opened.
        first_row_seconds: until the first picture was committed; None if none was.
        interrupted: whether it was stopped; the same call goes on.
        stages: the counters of resizing and storing.
    """

    target: str
    pictures: int
    thumbnails: int
    unchanged: int
    failed: int
    failures: tuple[PictureFailure, ...]
    missing: int
    removed: int
    lost: int
    unread: int
    seconds: float
    first_row_seconds: float | None
    interrupted: bool
    stages: tuple[StageStats, ...]

    @property
    def pictures_per_second(self) -> float:
        """Originals that were made small, per second."""
        return self.pictures / self.seconds if self.seconds else 0.0
