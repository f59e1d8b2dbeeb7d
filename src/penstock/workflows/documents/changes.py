# ruff: noqa: PTH112, PTH118 -- paths are strings, as in penstock.sources.files
"""What is new since the last run: the files of a walk that the index has not, or in another version."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from penstock.sources.files import File, Listing, Roots, inside, walk
from penstock.sources.selection import Selection
from penstock.workflows.documents.report import Listed
from penstock.workflows.documents.store import Store

_TURN = 256
"""Unchanged files between two turns for the loop: about 2 ms."""


@dataclass(slots=True)
class Changes:
    """Walks the places, once; counts what it passes over."""

    store: Store
    places: Roots
    selection: Selection
    on_error: Callable[[str, OSError], None]
    unchanged: int = 0
    links: int = 0
    gone: Listed[str] = field(default_factory=Listed[str])

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
            self._note_gone(listing, known)
            await asyncio.sleep(0)
        self._note_gone_directories()

    def _note_gone(self, listing: Listing, known: dict[str, tuple[int, int]]) -> None:
        if listing.names is None or known.keys() <= listing.names:
            return
        for name in sorted(known.keys() - listing.names):
            if self.selection.takes(listing.prefix + name):
                self.gone.add(os.path.join(listing.directory, name))

    def _note_gone_directories(self) -> None:
        for root in self.places.directories:
            for directory in self.store.directories(root):
                if os.path.isdir(directory):
                    continue
                for name in self.store.known(directory):
                    path = os.path.join(directory, name)
                    if self.selection.covers(inside(root, path)):
                        self.gone.add(path)
