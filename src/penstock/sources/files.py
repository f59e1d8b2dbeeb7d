"""Files of a tree as a source, each with a key and a version."""

import os
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from errno import ELOOP, ENOENT
from hashlib import file_digest
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Final, Literal

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.log import LOG
from penstock.core.text import one_line
from penstock.durable.ledger import Identity
from penstock.sources.open_file import open_found
from penstock.sources.paths import key_of
from penstock.sources.read_ahead import Reading, read_ahead
from penstock.sources.selection import Selection, selection, several
from penstock.sources.walking import PathError, in_order
from penstock.streams import Stream

type FileVersion = Literal["stat", "hash"]
type OnUnreadable = Literal["raise", "skip"]

_NOT_THERE: Final = {ENOENT, ELOOP}
_BESIDE: Final = ("", "-wal", "-shm", "-journal", ".lock")
"""The ends of the names that SQLite and the lock put beside a database."""


@dataclass(frozen=True, slots=True)
class File:
    r"""A file as its tree showed it.

    Attributes:
        path: where it is, absolute.
        key: its path from the root of the tree, with `/`. Bytes of a name that are not UTF-8 stand as `\xe9`; in such a
            name, or one that reads like it, each backslash stands as two.
        version: what changes when the file does, taken before its content is read: a file that changes meanwhile has
            another version in the next run.
        tree: the directory that it must be in when it is read, also through a link; None if it may be anywhere.
    """

    path: str
    key: str
    version: str
    tree: str | None = field(default=None, repr=False, compare=False)

    def read_bytes(self) -> bytes:
        """Return the content.

        Raises:
            PathError: by now a link there leads out of the tree, or it is no regular file.
        """
        with _opened(self.path, self.tree) as content:
            return content.read()

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        r"""Return the content as text, with `\n` at the end of each line; encoding and errors are those of `open`."""
        with TextIOWrapper(_opened(self.path, self.tree), encoding, errors) as content:
            return content.read()


def files(
    root: str | os.PathLike[str],
    glob: str | Iterable[str] = "**/*",
    *,
    exclude: str | Iterable[str] = (),
    version: FileVersion = "stat",
    follow_links: bool = False,
    on_error: OnUnreadable = "raise",
) -> Stream[File]:
    """Make a stream over the files below `root`, in the order of their keys; for `to`, each is a root.

    A thread lists names, one directory at a time, and looks at up to 256 files ahead. Links to files of the tree are
    followed, links to directories are not. Names that begin with a dot are left out, and so is the database of the sink
    that the stream runs into. A file that is gone when its turn comes is passed over, with a warning in the log.

    With `on_missing="delete"` a run removes nothing that lies where it could not look, and nothing at all if `root` is
    empty: a place where nothing is mounted looks like that.

    Args:
        root: the directory; with `glob` it names the source of a durable run.
        glob: patterns of the files to take. A pattern without `/` is about a name, at any depth; one with `/` is about
            the whole path from the root, where `**` stands for any number of directories. Case counts only in a pattern
            that has capitals.
        exclude: patterns of files and directories to leave out.
        version: "stat" takes size and time of modification. "hash" reads the content: slower, but not misled by tools
            that set times, nor by two writes of one size within a tick of the file system's clock (4 ms on Linux).
        follow_links: whether to follow links to files outside of the tree, or to files that are left out: whoever may
            write to the tree then decides what is read. Default: pass them over, with a warning in the log.
        on_error: what to do at a directory or file that cannot be looked at: "raise" (end with a `SourceError`) or
            "skip" (go on, with a warning in the log).

    Example:
        report = await penstock.files("docs", "*.md").map(summarise, concurrency=8).to(table, run="summaries")

    Raises:
        OptionError: an option breaks its rule.
    """
    patterns = [validate.text("glob", pattern) for pattern in several(glob)]
    left = [validate.text("exclude", pattern) for pattern in several(exclude)]
    if not patterns:
        raise OptionError("glob must have at least one pattern, got none")
    tree = _Tree(
        os.path.realpath(validate.path("root", root)),
        selection(patterns, left, follows=validate.flag("follow_links", follow_links)),
        hashed=validate.one_of("version", version, ("stat", "hash")) == "hash",
        skips=validate.one_of("on_error", on_error, ("raise", "skip")) == "skip",
    )
    name = key_of(f"files {', '.join(patterns)} in {tree.root}")
    return read_ahead("files", tree.read, Identity(name, key=_key_of, version=_version_of))


@dataclass(frozen=True, slots=True)
class _Tree:
    """What `files` looks for, and where."""

    root: str
    selection: Selection
    hashed: bool
    skips: bool

    def read(self, reading: Reading) -> Generator[File]:
        """Read the files, in order; runs in a thread."""
        if not Path(self.root).is_dir():
            raise PathError(
                f"{one_line(self.root)}: {'not a directory' if Path(self.root).exists() else 'no such directory'}"
            )
        own = database_files(reading.sink) if reading.sink else frozenset[str]()
        told = self._told(reading)
        some, tree = False, None if self.selection.follows else self.root
        for relative, path, status in in_order(self.root, self.selection, told):
            if path in own:
                continue
            some = True
            try:
                version = _digest(path, tree) if self.hashed else f"{status.st_size}-{status.st_mtime_ns}"
            except OSError as error:
                told(path, error)
            else:
                yield File(path, key_of(relative), version, tree)
        if not some and not os.listdir(self.root):  # noqa: PTH208 -- strings
            LOG.warning("%s: empty: nothing of it counts as missing (is it mounted?)", one_line(self.root))
            reading.unread("")

    def _told(self, reading: Reading) -> Callable[[str, OSError], None]:
        def told(path: str, error: OSError) -> None:
            """Raise, or pass over the file or directory at `path`."""
            reason = (error.strerror or str(error)).lower()
            if error.errno not in _NOT_THERE and not self.skips:
                raise PathError(f"{one_line(path)}: {reason}") from error
            LOG.warning("passed over: %s: %s", one_line(path), reason)
            reading.unread(key_of(path[len(self.root) :].lstrip(os.sep).replace(os.sep, "/")))

        return told


def database_files(path: str) -> frozenset[str]:
    """Return the paths of the database at `path` and of what SQLite and the lock put beside it: no source has these."""
    return frozenset(path + end for end in _BESIDE)


def _digest(path: str, tree: str | None) -> str:
    with _opened(path, tree) as content:
        return file_digest(content, "blake2b").hexdigest()[:32]


def _opened(path: str, tree: str | None) -> BufferedReader:
    below = "" if tree is None else f"{tree.rstrip(os.sep)}{os.sep}"
    try:
        return open_found(path, lambda place: place.startswith(below))
    except OSError as error:
        if error.filename is not None:  # the system's own, which names it
            raise
        raise PathError(f"{one_line(path)}: {error.strerror}") from error


def _key_of(file: File) -> str:
    return file.key


def _version_of(file: File) -> str:
    return file.version
