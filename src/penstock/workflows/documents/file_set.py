"""The files of a run of `embed`: finds them, gives them keys and versions, and tells which are gone."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from errno import ENOENT

from penstock.core.source import SourceSpec
from penstock.durable.fingerprint import StageCode
from penstock.durable.ledger import Identity
from penstock.durable.root_source import RootSource
from penstock.durable.roots import Key
from penstock.sources.files import database_files
from penstock.sources.keyed import with_identity
from penstock.sources.paths import key_of, path_of
from penstock.sources.selection import Selection
from penstock.sources.walking import FoundFile, Roots, inside, walk
from penstock.streams import Stream
from penstock.workflows.documents.embed_report import Listed

_EMPTY = "empty, while the index has files of it: nothing of them is removed (is it mounted?)"


class FileSet:
    """Walks the places, once; counts what it passes over.

    A file is gone if the system says that it is not there. It is not gone if it or its directory cannot be examined,
    nor, with `prune`, if the whole place is empty: a place where nothing is mounted looks like that.

    Attributes:
        links, links_out: links to directories, and to files outside of the places, which are not followed.
        gone: the files for which `is_gone` was true.
    """

    def __init__(
        self,
        places: Roots,
        selection: Selection,
        on_error: Callable[[str, OSError], None],
        *,
        target: str,
        knows: Callable[[str], bool] | None,
    ) -> None:
        """Take what to walk.

        `target` is the index: neither it nor the files beside it are indexed. `knows` tells whether the index has files
        below a directory, if those of an empty place are to be spared.
        """
        self.links: int = 0
        self.links_out: int = 0
        self.gone: Listed[str] = Listed()
        self._places = places
        self._selection = selection
        self._on_error = on_error
        self._knows = knows
        self._unlisted: set[str] = set()
        self._own = database_files(os.path.realpath(target))

    def stream(self, code: StageCode) -> Stream[FoundFile]:
        """Return the files, as roots of a durable run, which goes by that code alone.

        A file that fails is tried again by the next run.
        """

        def in_run(source: RootSource) -> RootSource:
            return replace(source, stages=(code,), retries_dead=True, is_missing=self.is_gone)

        identity = Identity("files", _key_of, _version_of)
        return with_identity(SourceSpec(self._found, name="files"), identity, "files", in_run)

    def is_gone(self, key: Key) -> bool:
        """Whether a file of the index that was not found belongs to these places and does not exist any more."""
        path = path_of(str(key))
        if not any(self._covers(root, path) for root in self._places.directories):
            return False
        if any(_is_below(path, directory) for directory in self._unlisted):
            return False
        if _may_be_there(path):
            return False
        self.gone.add(path)
        return True

    def _found(self) -> Iterator[FoundFile]:
        for listing in walk(self._places, self._selection, self._failed):
            self.links += listing.links
            self.links_out += listing.leading_out
            if self._knows is not None and not listing.prefix and listing.names == set():
                self._note_empty(listing.directory, self._knows)
            yield from (file for file in listing.files if file.path not in self._own)

    def _failed(self, path: str, error: OSError) -> None:
        self._unlisted.add(path)
        self._on_error(path, error)

    def _note_empty(self, root: str, knows: Callable[[str], bool]) -> None:
        if knows(root):
            self._failed(root, OSError(ENOENT, _EMPTY))

    def _covers(self, root: str, path: str) -> bool:
        return _is_below(path, root) and self._selection.covers(inside(root, path))


def _key_of(file: FoundFile) -> str:
    return key_of(file.path)


def _version_of(file: FoundFile) -> str:
    return f"{file.size}-{file.mtime_ns}"


def _may_be_there(path: str) -> bool:
    """Whether there is something, or may be: what cannot be examined is not gone."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory.rstrip(os.sep)}{os.sep}")
