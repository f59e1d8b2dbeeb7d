"""Reads a file into a document: its text at one moment, in chunks."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from stat import S_ISREG
from typing import Any

from penstock.core.errors import PenstockError
from penstock.core.text import escaped, one_line
from penstock.sources.open_file import NOT_REGULAR, Opener, anywhere, open_found
from penstock.sources.walking import FoundFile
from penstock.workflows.documents.chunking import split
from penstock.workflows.documents.chunking.pieces import Checkpoint, Chunk, unchecked
from penstock.workflows.documents.encodings import decode

_TRIES = 2


class DocumentError(PenstockError):
    """A document cannot be indexed; `path` says which, `reason` why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{one_line(path)}: {one_line(reason)}")
        self.path = path
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Document:
    """A file with its chunks; `replaced` counts how many times bytes were no text and stand as U+FFFD."""

    file: FoundFile
    chunks: tuple[Chunk, ...]
    replaced: int = 0

    def pieces(self) -> "list[Piece]":
        """Return its chunks, each with its place in the document."""
        stem = escaped(os.fsencode(PurePath(self.file.name).stem).decode(errors="replace"))
        return [
            Piece(self, position, chunk, f"{stem} {chunk.heading}".strip())
            for position, chunk in enumerate(self.chunks)
        ]


@dataclass(frozen=True, slots=True, repr=False)
class Piece:
    """A chunk of a document, by its position.

    Its title is the name of the file, without the suffix, and the heading.
    """

    document: Document
    position: int
    chunk: Chunk
    title: str

    def __repr__(self) -> str:
        return f"lines {self.chunk.first_line} to {self.chunk.last_line} of {one_line(self.document.file.path)}"

    @property
    def embedded_text(self) -> str:
        """The text to embed: that of the chunk under its title."""
        return f"{self.title}\n{self.chunk.text}"

    def row(self, vector: Any) -> dict[str, Any]:
        """Return the row of the index, with its vector."""
        chunk = self.chunk
        return {
            "vector": vector,
            "title": self.title,
            "text": chunk.text,
            "heading": chunk.heading,
            "first_line": chunk.first_line,
            "last_line": chunk.last_line,
            "position": self.position,
        }


def read(
    file: FoundFile,
    *,
    max_size: int,
    allows: Callable[[str], bool] = anywhere,
    opener: Opener = os.open,
    check: Checkpoint = unchecked,
) -> Document:
    """Read the document in `file`, in the version of the moment at which it is read.

    `allows` says whether a link may lead to a place; `opener` opens the file, as that of `open` does. `check` is called
    now and then; what it raises ends the reading.

    Raises:
        DocumentError: the file has no document.
    """
    try:
        return _document(file, max_size, allows, opener, check)
    except FileNotFoundError:
        reason = "gone since its directory was listed"
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    except ValueError as error:
        reason = str(error)
    raise DocumentError(file.path, reason)  # out here, so that no traceback keeps the content of a file that failed


def _document(
    file: FoundFile, max_size: int, allows: Callable[[str], bool], opener: Opener, check: Checkpoint
) -> Document:
    current, content = _content(file, max_size, allows, opener)
    text, replaced = decode(content, file.name)
    check()
    return Document(current, tuple(split(file.name, text, check)), replaced)


def _content(file: FoundFile, max_size: int, allows: Callable[[str], bool], opener: Opener) -> tuple[FoundFile, bytes]:
    """Return the bytes of the file and their version, which was the same before and after they were read."""
    path = Path(file.path)
    for _ in range(_TRIES):
        before = path.stat()
        if not S_ISREG(before.st_mode):
            raise ValueError(NOT_REGULAR)
        if before.st_size > max_size:
            raise ValueError(f"{before.st_size:,} bytes, more than the limit of {max_size:,}")
        with open_found(file.path, allows, opener) as stream:
            data = stream.read(before.st_size + 1)
        if len(data) == before.st_size and _moment(path.stat()) == _moment(before):
            return FoundFile(file.directory, file.name, before.st_size, before.st_mtime_ns), data
    raise ValueError("changes while it is read; run again when it is at rest")


def _moment(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns
