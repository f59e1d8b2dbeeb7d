# ruff: noqa: PTH100, PTH112, PTH116, PTH118 -- strings: a Path for every name takes longer than looking at the file
"""Finds the files of a tree lazily: the names of one directory at a time, sorted.

Links to files are followed if they stay in the tree, or always if asked for. Links to directories are not followed,
unless they are named as a path. So no loop of links can hold the walk, no link gives a file twice, and no list of
visited places is kept.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from errno import ELOOP
from itertools import groupby
from operator import attrgetter, itemgetter
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import NamedTuple

from penstock.core.errors import SourceError
from penstock.core.text import one_line
from penstock.sources.open_file import LEADS_OUT
from penstock.sources.selection import Selection


class PathError(SourceError, OSError):
    """A path that was named cannot be walked."""


class FoundFile(NamedTuple):
    """A file as its directory showed it. Size and mtime, read before the content, are its version."""

    directory: str
    name: str
    size: int
    mtime_ns: int

    @property
    def path(self) -> str:
        """Where the file is."""
        return os.path.join(self.directory, self.name)

    @property
    def version(self) -> tuple[int, int]:
        """What changes when the content does."""
        return self.size, self.mtime_ns


@dataclass(frozen=True, slots=True)
class Roots:
    """The places that were named, each once: real directories, in order, and files as (real directory, name)."""

    directories: Mapping[str, None]
    files: frozenset[tuple[str, str]]

    def hold(self, place: str, selection: Selection) -> bool:
        """Whether the real path `place` lies below one of the directories, with nothing on the way left out."""
        return any(
            place.startswith(os.path.join(root, "")) and selection.reaches(inside(root, place))
            for root in self.directories
        )


@dataclass(slots=True)
class Listing:
    """One directory.

    Attributes:
        directory: its path.
        prefix: the path from the root to it, with a `/` behind it; "" for the root itself.
        files: the wanted files.
        names: every name; None if it was not listed.
        links: links to directories, which were not followed.
        leading_out: links to files outside of the tree, which were not followed.
    """

    directory: str
    prefix: str = ""
    files: list[FoundFile] = field(default_factory=list[FoundFile])
    names: set[str] | None = None
    links: int = 0
    leading_out: int = 0


def roots(paths: Iterable[str]) -> Roots:
    """Resolve the places that `paths` name.

    The directory part is resolved, so that two paths to one place are one. The last part of a file's path is kept, so
    that a link is known by its own name.

    Raises:
        PathError: a path is missing, or is neither a directory nor a file.
    """
    directories: dict[str, None] = {}
    files: set[tuple[str, str]] = set()
    for path in paths:
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            raise PathError(f"{one_line(path)}: {(error.strerror or str(error)).lower()}") from error
        if S_ISDIR(mode):
            directories[os.path.realpath(path)] = None
        elif S_ISREG(mode):
            directory, name = os.path.split(os.path.abspath(path))
            files.add((os.path.realpath(directory), name))
        else:
            raise PathError(f"{one_line(path)}: neither a directory nor a regular file")
    return Roots(directories, frozenset(files))


def walk(places: Roots, selection: Selection, on_error: Callable[[str, OSError], None]) -> Iterator[Listing]:
    """List the named files, then every directory below the roots, each place once.

    A file that is named is taken whatever the selection says. What cannot be listed or examined goes to `on_error`.
    """
    walker = _Walker(places, selection, on_error)
    for directory, named in groupby(sorted(places.files), key=itemgetter(0)):
        yield walker.named(directory, [name for _, name in named])
    for root in places.directories:
        pending = [root]
        while pending:
            listing, below = walker.look(root, pending.pop())
            yield listing
            pending += reversed(below)


def in_order(
    root: str, selection: Selection, on_error: Callable[[str, OSError], None]
) -> Iterator[tuple[str, str, os.stat_result]]:
    """Give the wanted files below the real directory `root`, sorted by relative path: that path, the place, the status.

    It looks at a file when its turn comes. What cannot be listed or examined goes to `on_error`, and so does a link out
    of the tree, unless the selection follows these.
    """
    walker = _Walker(Roots({root: None}, frozenset()), selection, on_error)
    pending = [""]  # paths from the root, the last one next; those of directories end with `/`, and so come in order
    while pending:
        relative = pending.pop()
        if not relative or relative.endswith("/"):
            pending += sorted(walker.names(root, relative), reverse=True)
            continue
        path = os.path.join(root, relative)
        status = walker.status(path)
        if status is not None and S_ISREG(status.st_mode):
            yield relative, path, status


def inside(root: str, path: str) -> str:
    """Return `path` relative to `root`, which holds it, written with `/`; "" for `root` itself."""
    return path[len(root) :].lstrip(os.sep).replace(os.sep, "/")


@dataclass(frozen=True, slots=True)
class _Walker:
    places: Roots
    selection: Selection
    on_error: Callable[[str, OSError], None]

    def named(self, directory: str, names: Iterable[str]) -> Listing:
        """List the files that were named in one directory."""
        listing = Listing(directory)
        for name in names:
            path = os.path.join(directory, name)
            try:
                listing.files.append(_file(directory, name, os.stat(path)))
            except OSError as error:
                self.on_error(path, error)
        return listing

    def look(self, root: str, directory: str) -> tuple[Listing, list[str]]:
        """List one directory; return also the directories in it to walk, in order."""
        listing, below = Listing(directory, inside(root, os.path.join(directory, ""))), list[str]()
        try:
            with os.scandir(directory) as found:
                entries = sorted(found, key=attrgetter("name"))
        except OSError as error:
            self.on_error(directory, error)
            return listing, below
        listing.names = {entry.name for entry in entries}
        for entry in entries:
            relative = listing.prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if self.selection.enters(relative) and entry.path not in self.places.directories:
                    below.append(entry.path)
            elif self.selection.takes(relative):
                self._take(entry, listing)
            elif entry.is_symlink() and os.path.isdir(entry.path):
                listing.links += 1
        return listing, below

    def names(self, root: str, prefix: str) -> list[str]:
        """Return what is wanted of one directory, as paths from the root: files, links, and directories with a `/`."""
        directory = os.path.join(root, prefix.rstrip("/"))
        try:
            with os.scandir(directory) as found:
                return [
                    relative + "/" * is_directory
                    for entry in found
                    for relative, is_directory in [(prefix + entry.name, entry.is_dir(follow_symlinks=False))]
                    if (self.selection.enters if is_directory else self.selection.takes)(relative)
                ]
        except OSError as error:
            self.on_error(directory, error)
            return []

    def status(self, path: str) -> os.stat_result | None:
        """Return what the system says of a file, or None."""
        try:
            status = os.lstat(path)
            if not S_ISLNK(status.st_mode):
                return status
            status = os.stat(path)
            if S_ISREG(status.st_mode) and self._leads_out(path):
                raise OSError(ELOOP, LEADS_OUT)  # noqa: TRY301 -- told as the others
        except OSError as error:
            self.on_error(path, error)
            return None
        return status

    def _leads_out(self, link: str) -> bool:
        return not (self.selection.follows or self.places.hold(os.path.realpath(link), self.selection))

    def _take(self, entry: os.DirEntry[str], listing: Listing) -> None:
        try:
            status = entry.stat()
        except OSError as error:
            self.on_error(entry.path, error)
            return
        if S_ISDIR(status.st_mode):
            listing.links += 1
        elif S_ISREG(status.st_mode) and entry.is_symlink() and self._leads_out(entry.path):
            listing.leading_out += 1
        elif S_ISREG(status.st_mode) and (listing.directory, entry.name) not in self.places.files:
            listing.files.append(_file(listing.directory, entry.name, status))


def _file(directory: str, name: str, status: os.stat_result) -> FoundFile:
    return FoundFile(directory, name, status.st_size, status.st_mtime_ns)
