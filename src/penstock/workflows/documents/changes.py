# ruff: noqa: PTH116, PTH118 -- paths are strings, as in penstock.sources.files
"""What is new since the last run: the files of a walk that the index has not, or in another version."""

import asyncio
import os
from array import array
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from errno import ENOENT
from stat import S_ISDIR

from penstock.sources.files import File, Listing, Roots, inside, walk
from penstock.sources.selection import Selection
from penstock.workflows.documents.report import Listed
from penstock.workflows.documents.store import Store

_EMPTY = "empty, while the index has files of it: nothing of them is removed (is it mounted?)"
_TURN = 256
"""Unchanged files between two turns for the loop: about 2 ms."""


@dataclass(slots=True)
class Changes:
    """Walks the places, once; counts what it passes over.

    With `prune` it also gathers in `doomed` the numbers (`Store.ids`) of the files that are gone. A place is gone if
    the system says that it is not there: not if it cannot be read, and not if the whole root is empty, which is how a
    place looks where nothing is mounted.
    """

    store: Store
    places: Roots
    selection: Selection
    on_error: Callable[[str, OSError], None]
    prune: bool = False
    unchanged: int = 0
    links: int = 0
    gone: Listed[str] = field(default_factory=Listed[str])
    doomed: "array[int]" = field(default_factory=lambda: array("q"))
    _empty: list[str] = field(default_factory=list[str])

    async def files(self) -> AsyncIterator[File]:
        """The files to be indexed; one look into the index for a directory."""
        for listing in walk(self.places, self.selection, self.on_error):
            known = self.store.known(listing.directory)
            self.links += listing.links
            for file in listing.files:
                if known.get(file.name) == file.version:
                    self.unchanged += 1
                    if self.unchanged % _TURN == 0:
                        await asyncio.sleep(0)
                elif not file.path.startswith(self.store.place):  # the index and what SQLite and the lock put beside it
                    yield file
            if self.prune and not listing.prefix and listing.names == set():
                self._note_empty(listing.directory)
            else:
                self._note_gone(listing, known)
            await asyncio.sleep(0)
        self._note_gone_directories()

    def _note_gone(self, listing: Listing, known: dict[str, tuple[int, int]]) -> None:
        if listing.names is None or known.keys() <= listing.names:
            return
        gone = sorted(known.keys() - listing.names)
        self._add(listing.directory, [name for name in gone if self.selection.takes(listing.prefix + name)])

    def _note_gone_directories(self) -> None:
        for root in self.places.directories:
            for directory in self.store.directories(root):
                if _is_there(directory) or any(_is_below(directory, empty) for empty in self._empty):
                    continue
                relative = inside(root, os.path.join(directory, ""))
                self._add(
                    directory,
                    [name for name in self.store.known(directory) if self.selection.covers(relative + name)],
                )

    def _note_empty(self, root: str) -> None:
        if any(True for _ in self.store.directories(root)):
            self._empty.append(root)
            self.on_error(root, OSError(ENOENT, _EMPTY))

    def _add(self, directory: str, names: Iterable[str]) -> None:
        for name in names:
            self.gone.add(os.path.join(directory, name))
        if self.prune:
            self.doomed.extend(self.store.ids(directory, names))


def _is_there(directory: str) -> bool:
    """Whether `directory` is one, or may be: what cannot be examined is not gone."""
    try:
        return S_ISDIR(os.stat(directory).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _is_below(directory: str, root: str) -> bool:
    return directory == root or directory.startswith(f"{root.rstrip(os.sep)}{os.sep}")
