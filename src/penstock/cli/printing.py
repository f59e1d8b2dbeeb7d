"""The texts that commands print."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from penstock.core.text import escaped as shown

if TYPE_CHECKING:
    from penstock.workflows import EmbedReport, FetchReport, Hit, ThumbnailReport

_LISTED = 50


def counted(number: int, noun: str) -> str:
    """Write a number and its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def place(path: str) -> str:
    """Shorten `path` to a relative one if it lies below the current directory."""
    return shown(path.removeprefix(f"{Path.cwd()}/"))


def summary(report: "EmbedReport", *, pruned: bool = False) -> Iterator[str]:
    """Tell in lines what a run did."""
    rate = f" ({report.files_per_second:,.0f} files/s)" if report.files else ""
    yield (
        f"{shown(report.target)}: {counted(report.files, 'file')} and {counted(report.chunks, 'chunk')} stored in "
        f"{report.seconds:.1f} s{rate}"
    )
    if report.unchanged:
        yield f"  {counted(report.unchanged, 'file')} unchanged, skipped"
    if report.lost:
        command = f"penstock redo {shown(quote(report.target))} --missing-rows"
        yield f"  {counted(report.lost, 'file')} without all of their chunks, which others have removed: {command}"
    if report.recalled:
        yield f"  {counted(report.recalled, 'chunk')} not embedded again: their vectors were kept"
    if report.replaced:
        yield (
            f"  {counted(report.replaced, 'file')} with bytes that are no text in their encoding, replaced by "
            f"{report.replaced_characters:,} U+FFFD"
        )
    if report.links:
        yield f"  {counted(report.links, 'link')} to directories, not followed"
    if report.links_out:
        yield f"  {counted(report.links_out, 'link')} out of the paths, not followed (--follow-links)"
    if report.gone:
        left = f"{report.removed:,} removed from the index" if pruned else "still in the index (--prune removes them)"
        yield f"  {counted(report.gone, 'file')} gone since, {left}:"
        yield from _listed((place(path) for path in report.gone_files), report.gone)
    if report.failed:
        yield f"  {counted(report.failed, 'file')} failed:"
        yield from _listed((f"{place(f.path)}: {shown(f.reason)}" for f in report.failures), report.failed)
    if report.peak_memory is not None:
        yield f"  peak memory {report.peak_memory / 1e6:,.0f} MB"


def fetched(report: "FetchReport") -> Iterator[str]:
    """Tell in lines what a run of `fetch` did."""
    done = f"{counted(report.records, 'record')} stored with {counted(report.requests, 'request')}"
    yield f"{shown(report.target)}: {done} in {report.seconds:.1f} s"
    if report.already_done:
        yield f"  {counted(report.already_done, 'record')} fetched before, skipped"
    if report.unchanged:
        yield f"  {counted(report.unchanged, 'record')} with nothing new"
    if report.missing:
        left = "removed" if report.removed else "still in the table (--prune removes them)"
        yield f"  {counted(report.missing, 'key')} gone since, {left}"
    if report.incomplete:
        yield f"  {counted(report.incomplete, 'record')} incomplete: what failed keeps its former body"
    if report.failed:
        yield f"  {counted(report.failed, 'key')} set aside; what they had before stays"
    if report.incomplete or report.failed:
        lines = (f"{shown(str(f.key))}: {shown(f.reason)}" for f in report.failures)
        yield from _listed(lines, report.incomplete + report.failed)


def made_small(report: "ThumbnailReport") -> Iterator[str]:
    """Tell in lines what a run of `thumbnails` did."""
    rate = f" ({report.pictures_per_second:,.0f} pictures/s)" if report.pictures else ""
    made = f"{counted(report.thumbnails, 'thumbnail')} of {counted(report.pictures, 'picture')}"
    yield f"{shown(report.target)}: {made} in {report.seconds:.1f} s{rate}"
    if report.unchanged:
        yield f"  {counted(report.unchanged, 'picture')} unchanged, skipped"
    if report.lost:
        command = f"penstock redo {shown(quote(report.target))} --missing-rows"
        yield f"  {counted(report.lost, 'picture')} with thumbnails that others have removed or changed: {command}"
    if report.missing:
        left = "removed" if report.removed else "still there (--prune removes them)"
        yield f"  {counted(report.missing, 'picture')} gone since, their thumbnails {left}"
    if report.unread:
        yield f"  {counted(report.unread, 'place')} that could not be looked at"
    if report.failed:
        yield f"  {counted(report.failed, 'picture')} failed:"
        yield from _listed((f"{place(f.path)}: {shown(f.reason)}" for f in report.failures), report.failed)


def hits(found: Iterable["Hit"]) -> Iterator[str]:
    """List hits, best first."""
    for number, hit in enumerate(found, 1):
        heading = f"  {shown(hit.heading)}" if hit.heading else ""
        yield f"{number}. {place(hit.path)}:{hit.first_line}{heading}  ({hit.score:.4f})"
        yield f"   {shown(hit.snippet)}"


def _listed(lines: Iterable[str], count: int) -> Iterator[str]:
    kept = list(lines)[-_LISTED:]
    if count > len(kept):
        yield f"    ... {count - len(kept):,} more, then"
    for line in kept:
        yield f"    {line}"
