"""Read a file into a document: its text as it was at one moment, in chunks."""

import codecs
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from stat import S_ISREG

from penstock.core.errors import PenstockError
from penstock.sources.walking import Entry
from penstock.workflows.documents.chunking import split
from penstock.workflows.documents.chunking.pieces import Chunk

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(rb"(?:coding|charset)[:=]\s*[\"']?([-\w.]+)")
_TRIES = 2

type Opener = Callable[[str, int], int]


class DocumentError(PenstockError):
    """A document cannot be indexed; `path` says which, `reason` why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Document:
    """A file with its chunks; `replaced` says that some of its bytes were no text and stand as U+FFFD."""

    file: Entry
    chunks: tuple[Chunk, ...]
    replaced: bool = False

    def pieces(self) -> "list[Piece]":
        """Its chunks, each with what it is known by."""
        stem = os.fsencode(PurePath(self.file.name).stem).decode(errors="replace")
        return [
            Piece(self, position, chunk, f"{stem} {chunk.heading}".strip())
            for position, chunk in enumerate(self.chunks)
        ]


@dataclass(frozen=True, slots=True, repr=False)
class Piece:
    """A chunk of a document, by its position; the title is the name of the file without the suffix, and the heading."""

    document: Document
    position: int
    chunk: Chunk
    title: str

    def __repr__(self) -> str:
        return f"lines {self.chunk.first_line} to {self.chunk.last_line} of {self.document.file.path}"

    @property
    def embedded_text(self) -> str:
        """What is embedded of it: its text under its title."""
        return f"{self.title}\n{self.chunk.text}"


def read(file: Entry, *, max_size: int, opener: Opener | None = None) -> Document:
    """The document in `file`, whose version is that of the moment it was read; `DocumentError` if it has none.

    `opener` opens the file, as that of `open`.
    """
    try:
        return _document(file, max_size, opener)
    except FileNotFoundError:
        reason = "gone since its directory was listed"
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    except ValueError as error:
        reason = str(error)
    raise DocumentError(file.path, reason)  # out here, so that no traceback keeps the content of a file that failed


def _document(file: Entry, max_size: int, opener: Opener | None) -> Document:
    current, content = _content(file, max_size, opener)
    text, replaced = decode(content)
    return Document(current, tuple(split(file.name, text)), replaced)


def decode(data: bytes) -> tuple[str, bool]:
    """The text of `data`, and whether some bytes had to be replaced; `ValueError` for what is no text.

    UTF-8, or what a byte order mark says; what is neither is read as the encoding that it declares (a coding line, a
    `charset`), and failing that as UTF-8 with U+FFFD for every byte that is none.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if encoding is None and (at := data.find(b"\0")) >= 0:
        raise ValueError(f"not text: a NUL byte at {at}")
    declared = _DECLARED.search(data, 0, 1024)
    for name in (encoding or "utf-8", declared[1].decode("ascii") if declared else ""):
        try:
            text = data.decode(name)
            text.encode()  # some codecs give half characters, which nobody can store
        except (UnicodeError, LookupError):
            continue
        return text, False
    return data.decode(encoding or "utf-8", "replace"), True


def _content(file: Entry, max_size: int, opener: Opener | None) -> tuple[Entry, bytes]:
    """The bytes of the file and the version that they belong to: the same before and after they were read."""
    path = Path(file.path)
    for _ in range(_TRIES):
        before = path.stat()
        if not S_ISREG(before.st_mode):
            raise ValueError("no longer a regular file")
        if before.st_size > max_size:
            raise ValueError(f"{before.st_size:,} bytes, more than the limit of {max_size:,}")
        with open(path, "rb", opener=opener) as stream:
            data = stream.read(before.st_size + 1)
        if len(data) == before.st_size and _moment(path.stat()) == _moment(before):
            return Entry(file.directory, file.name, before.st_size, before.st_mtime_ns), data
    raise ValueError("changes while it is read; run again when it is at rest")


def _moment(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns
