"""The job behind `make_thumbnails`: pictures stream through worker processes into a directory."""

import os
from collections.abc import Iterable, Sequence
from glob import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack, cast

from penstock.core import validate
from penstock.core.errors import OptionError, PenstockError
from penstock.core.outcome import Failed
from penstock.core.retry import Seconds
from penstock.core.stats import StageStats
from penstock.durable.again import redo
from penstock.durable.report import RunReport
from penstock.durable.status import runs
from penstock.durable.store_errors import StoreError
from penstock.engines.choosing import EngineOption, chosen
from penstock.engines.process.processes_engine import processors
from penstock.flow.streaming_pipeline import StreamingPipeline
from penstock.sinks.directory import Files
from penstock.sources.files import File, files
from penstock.sources.paths import path_of
from penstock.sources.selection import several
from penstock.sources.walking import PathError
from penstock.streams import Stream
from penstock.workflows.stoppable_job import GRACE, StoppableJob
from penstock.workflows.thumbnails.pictures import (
    MAX_FILE_SIZE,
    MAX_PIXELS,
    MOST_PIXELS,
    SIZES,
    Thumbnail,
    Thumbnailer,
)
from penstock.workflows.thumbnails.thumbnail_report import PictureFailure, ThumbnailReport

GLOB: Final = (
    *("*.jpg", "*.jpeg", "*.jpe", "*.jfif", "*.png", "*.gif", "*.webp", "*.tif", "*.tiff", "*.bmp", "*.avif"),
)
RUN: Final = "thumbnails"
"""The name of the run: one for a target."""

TIMEOUT: Final = 60.0
_AT_ONCE: Final = 4
"""Pictures at once for each processor: so small ones travel together, and the results that wait are few."""

_LARGEST: Final = 65_535
"""Pixels of the longer side, at most: those of a JPEG."""


class ThumbnailOptions(TypedDict, total=False):
    """Options of `make_thumbnails`.

    Attributes:
        sizes: pixels of the longer side of what is made, ints >= 1; default 64, 256 and 1024. Other sizes than those of
            the last run have all pictures done again.
        glob: patterns of the files to take; default those of JPEG, PNG, GIF, WebP, TIFF, BMP and AVIF.
        exclude: patterns of files and directories to leave out; the target is left out anyway.
        concurrency: pictures at once, an int >= 1; default 4 for each processor.
        engine: where they are made small: "inline", "thread", "process" or an engine of `penstock.engines`; default
            "process", where a picture that kills its process or takes too long is set aside, and the others go on.
        timeout: seconds for one picture, > 0; default 60. Not for the engine "inline".
        max_pixels: of an original, an int from 1 to 178,956,970; default 100,000,000. One takes up to 4 bytes.
        max_file_size: bytes of an original, an int >= 1; default 100,000,000.
        prune: whether to remove what was made of pictures that are gone; default False.
    """

    sizes: Iterable[int]
    glob: str | Iterable[str]
    exclude: str | Iterable[str]
    concurrency: int
    engine: EngineOption
    timeout: Seconds
    max_pixels: int
    max_file_size: int
    prune: bool


async def make_thumbnails(
    source: str | os.PathLike[str], target: str | os.PathLike[str], **options: Unpack[ThumbnailOptions]
) -> ThumbnailReport:
    """Make the pictures below the directory `source` small, in several sizes, below the directory `target`.

    `a/b.jpg` becomes `64/a/b.jpg` and so on: see `Thumbnailer`. What a picture became is there whole or not at all:
    killed at any instant and called again, this goes on where it was (P10, P11). A changed picture replaces its files.
    One that fails keeps them, and is tried again by the next call.

    Raises:
        OptionError: an option breaks its rule.
        PathError: `source` is no directory.
        StoreError: `target` cannot be written.
        HeldError: another process is writing to `target`.
    """
    return await ThumbnailJob(source, target, **options).run()


def thumbnail_pipeline(**options: Unpack[ThumbnailOptions]) -> StreamingPipeline[File, Thumbnail]:
    """Return what `make_thumbnails` does as a pipeline from files to pairs of a name and a content.

    With `as_step()` it is a step of a `Pipeline` that gives a list. It takes the options but for `glob`, `exclude` and
    `prune`, which are about the source and the sink.

    Raises:
        OptionError: an option breaks its rule.
    """
    given: dict[str, Any] = _known(dict(options), but={"glob", "exclude", "prune"})
    thumbnailer = Thumbnailer(
        _sizes(given.get("sizes", SIZES)),
        validate.whole("max_pixels", given.get("max_pixels", MAX_PIXELS), least=1),
        validate.whole("max_file_size", given.get("max_file_size", MAX_FILE_SIZE), least=1),
    )
    if thumbnailer.max_pixels > MOST_PIXELS:
        raise OptionError(f"max_pixels must be at most {MOST_PIXELS:,}, got {thumbnailer.max_pixels}")
    engine = given.get("engine", "process")
    places = validate.whole("concurrency", given.get("concurrency", _AT_ONCE * processors()), least=1)
    chosen(engine, "plain", places)
    timeout = validate.seconds("timeout", given.get("timeout", TIMEOUT))
    if engine == "inline" and "timeout" in given:
        raise OptionError(
            f"timeout must not be given with the engine 'inline', got {timeout:g}: it cannot stop a picture"
        )

    def build(pictures: Stream[File]) -> Stream[Thumbnail]:
        made: Stream[list[Thumbnail]] = pictures.map(
            thumbnailer,
            name="resize",
            engine=engine,
            concurrency=places,
            ordered=False,
            timeout=None if engine == "inline" else timeout,
            on_error="collect",
        )
        return made.flatten()

    return StreamingPipeline(RUN, build, takes=File)


class ThumbnailJob(StoppableJob):
    """One call of `make_thumbnails`, which can be watched with `report` and ended early with `stop`."""

    def __init__(
        self, source: str | os.PathLike[str], target: str | os.PathLike[str], **options: Unpack[ThumbnailOptions]
    ) -> None:
        """Check options and places; nothing is written before `run`.

        Raises:
            OptionError: an option breaks its rule.
            PathError: `source` is no directory.
            ModuleNotFoundError: Pillow is missing.
        """
        super().__init__()
        if find_spec("PIL") is None:
            raise ModuleNotFoundError("thumbnails need Pillow: pip install 'penstock[images]'", name="PIL")
        given: dict[str, Any] = _known(dict(options))
        self._source = validate.path("source", source)
        self._target = validate.path("target", target)
        self._sink = Files(self._target)
        self._prune = validate.flag("prune", given.pop("prune", False))
        glob, exclude = given.pop("glob", GLOB), given.pop("exclude", ())
        self._pipeline = thumbnail_pipeline(**given)
        if not Path(self._source).is_dir():
            what = "not a directory" if Path(self._source).exists() else "no such directory"
            raise PathError(f"{self._source}: {what}")
        own = _own(self._source, self._target, _sizes(given.get("sizes", SIZES)))
        left = cast("list[str]", several(exclude))
        self._files = files(self._source, glob, exclude=[*left, *own], on_error="skip")

    async def run(self) -> ThumbnailReport:
        """Do it, once; `make_thumbnails` says what it raises."""
        if not self._stopped:
            await self._make()
        return self.report()

    def report(self) -> ThumbnailReport:
        """Return what was done so far; may be called at any time, from any thread."""
        durable = self._durable
        done = None if durable is None else durable.report()
        failures = () if durable is None else durable.failures
        return ThumbnailReport(
            target=self._target,
            pictures=done.delivered if done else 0,
            thumbnails=done.rows if done else 0,
            unchanged=done.already_done if done else 0,
            failed=done.dead if done else 0,
            failures=tuple(_failure(self._source, each) for each in failures if each.root is not None),
            missing=done.missing if done else 0,
            removed=done.removed if done else 0,
            lost=done.lost if done else 0,
            unread=done.unread if done else 0,
            seconds=done.seconds if done else 0.0,
            first_row_seconds=durable.first_row_s if durable else None,
            interrupted=self._stopped,
            stages=_stages(done) if done else (),
        )

    async def _make(self) -> None:
        self._try_again()
        run = self._pipeline.over(self._files).deliver(
            self._sink,
            run=RUN,
            on_missing="delete" if self._prune else "keep",
            on_change="restart",  # other sizes, or other code that makes them
            on_error="collect",
            grace=GRACE,
        )
        await self._finish(run)

    def _try_again(self) -> None:
        """Have pictures done again that were set aside: it may have been for want of time or memory."""
        if not Path(self._sink.path).exists():
            return
        try:
            found = next((each for each in runs(self._sink) if each.name == RUN), None)
        except StoreError:  # there is no journal that can be read: opening it says so
            return
        if found is not None and found.dead:
            redo(self._sink, run=RUN, which="dead")


def _known(given: dict[str, Any], but: Iterable[str] = ()) -> dict[str, Any]:
    known = sorted(ThumbnailOptions.__optional_keys__.difference(but))
    if unknown := sorted(given.keys() - known):
        raise OptionError(f"thumbnails have no option {unknown[0]!r}: there are {', '.join(known)}")
    return given


def _sizes(given: Any) -> tuple[int, ...]:
    """Return the sizes, the largest first."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise OptionError(f"sizes must be several numbers, got {given!r}")
    sizes = [validate.whole("sizes", each, least=1) for each in cast("Iterable[object]", given)]
    if not sizes or max(sizes) > _LARGEST or len(set(sizes)) < len(sizes):
        raise OptionError(f"sizes must be different numbers from 1 to {_LARGEST:,}, got {sizes!r}")
    return tuple(sorted(sizes, reverse=True))


def _own(source: str, target: str, sizes: Sequence[int]) -> list[str]:
    """Return patterns of what is made, where that lies below the source; refuse a source that it would lie in."""
    origin, place = os.path.realpath(source), os.path.realpath(target)
    below = f"{origin.rstrip('/')}/"
    if origin == place or any(below.startswith(f"{place.rstrip('/')}/{size}/") for size in sizes):
        raise OptionError(f"target must be a directory of its own, got {target!r}: the pictures are there")
    return [f"{escape(place[len(below) :])}/**"] if place.startswith(below) else []


def _failure(source: str, failed: Failed) -> PictureFailure:
    """Describe the failure for a reader."""
    error = failed.error
    reason = str(error) if isinstance(error, PenstockError) else f"{type(error).__name__}: {error}"
    return PictureFailure(os.path.join(source, path_of(str(failed.root))), reason)  # noqa: PTH118 -- strings


def _stages(done: RunReport) -> tuple[StageStats, ...]:
    """Return the stages for a reader: pictures that are made small, pictures that are stored."""
    if not done.stats.stages:
        return ()
    ends = StageStats("store", done.delivered + done.dead, done.delivered, 0, done.dead, 0, 0)
    return (done.stats["resize"], ends)
