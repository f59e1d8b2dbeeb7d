"""Reads which URLs are to be fetched: a row a key, from CSV or lines of JSON."""

import csv
import json
import os
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from io import BufferedReader, RawIOBase
from itertools import chain
from pathlib import Path
from select import select
from threading import Event
from typing import IO, Any, Final, cast, override

from penstock.core import validate
from penstock.core.errors import OptionError, SourceError
from penstock.core.text import named
from penstock.durable.ledger import Identity
from penstock.durable.roots import Key, can_be_key
from penstock.sinks.sqlite_store import lowered
from penstock.sources.read_ahead import Reading, read_ahead
from penstock.streams import Stream

STDIN: Final = "-"
SOURCE: Final = "urls"
"""The name of the source in the journal: the same for every file, so that a file may be moved, or come from a pipe."""

_LOOK: Final = 0.2
"""Seconds between two looks at whether stdin is left."""

_NO_FIELDS: Final[list[str]] = []

LONGEST: Final = 1_000_000
"""Bytes of a line, at most."""


STATUS, BODY, ERROR, VALIDATORS = "status", "body", "error", "validators"
"""What a record has of each endpoint, behind its name; and the column for what the next conditional requests need."""


def columns_of(key: str, endpoints: Iterable[str]) -> list[str]:
    """Return the names of the columns of records: the key, what there is of each endpoint, the validators."""
    return [key, *(f"{name}_{part}" for name in endpoints for part in (STATUS, BODY, ERROR)), VALIDATORS]


@dataclass(frozen=True, slots=True, repr=False)
class FetchRow:
    """A key and the URLs that belong to it, each under the name of its endpoint. Its repr shows no URL.

    Attributes:
        key: by which the record is known.
        urls: what to fetch.
        column: the name of the column of the key.
    """

    key: Key
    urls: Mapping[str, str]
    column: str = "key"

    @override
    def __repr__(self) -> str:
        return f"<key {named(self.key)}: {', '.join(self.urls) or 'no URL'}>"

    @property
    def version(self) -> str:
        """What changes when the URLs do."""
        texts = chain.from_iterable(self.urls.items())
        return blake2b("\0".join(texts).encode(errors="surrogatepass"), digest_size=16).hexdigest()


def fetch_rows(path: str | os.PathLike[str], *, key: str | None = None) -> Stream[FetchRow]:
    """Make a stream over the rows of a file of CSV or of lines of JSON, told apart by the first character.

    Every column but that of the keys is an endpoint, in the rows where it holds a URL of http or https. A single column
    is the key and the URL. A thread reads the file ahead.

    Args:
        path: the file, in UTF-8; `-` is stdin.
        key: the column of the keys, each of which is there once. Default: the first; for stdin it has to be named.

    Raises:
        OptionError: an argument breaks its rule.
        SourceError: in the run, at what cannot be read, with the line.
    """
    return rows_of(UrlFile(path, key))


def rows_of(file: "UrlFile") -> Stream[FetchRow]:
    """Make a stream over the rows of a file."""
    identity = Identity(SOURCE, key=_key_of, version=_version_of)
    return read_ahead(SOURCE, file.read, identity, size=_size_of)


def _key_of(row: FetchRow) -> Key:
    return row.key


def _version_of(row: FetchRow) -> str:
    return row.version


def _size_of(row: FetchRow) -> int:
    return sum(map(len, row.urls.values()))


class UrlFile:
    """The file that `fetch_rows` reads.

    Attributes:
        path: where it is, or `-`.
    """

    def __init__(self, path: str | os.PathLike[str], key: str | None = None) -> None:
        self.path: str = validate.path("path", path)
        self._left = Event()
        self._key = None if key is None else validate.text("key", key)
        if self.path != STDIN and (not Path(self.path).exists() or Path(self.path).is_dir()):
            raise OptionError(f"path must be a file, or - for stdin, got {self.path!r}")
        if self._key is None and not Path(self.path).is_file():
            raise OptionError(f"key must name the column of the keys, as {self.path} can be read only once, got None")

    def leave(self) -> None:
        """Have a thread that waits for more of stdin wait no longer: its reading ends with a `SourceError`."""
        self._left.set()

    def column(self) -> str:
        """Return the name of the column of the keys: as given, or the first of the file."""
        if self._key is not None:
            return self._key
        with self._opened() as file:
            lines, first, rest = _begun(file, self.path)
            if first.startswith("{"):
                return next(iter(_object(lines, first)))
            try:
                header = next(csv.reader(rest, strict=True), _NO_FIELDS)
            except csv.Error as error:
                raise lines.wrong(f"not CSV: {error}") from None
            return header[0] if header else "key"

    def read(self, _: Reading) -> Generator[FetchRow]:
        """Read the rows; runs in a thread."""
        with self._opened() as file:
            lines, first, rest = _begun(file, "stdin" if self.path == STDIN else self.path)
            yield from (self._of_json if first.startswith("{") else self._of_csv)(lines, rest)

    @contextmanager
    def _opened(self) -> Generator[IO[bytes]]:
        if self.path == STDIN:
            with BufferedReader(_Stdin(self._left)) as stdin:
                yield stdin
            return
        try:
            file = Path(self.path).open("rb")  # noqa: SIM115 -- its errors are others than those of reading
        except OSError as error:
            raise SourceError(f"{self.path}: {(error.strerror or str(error)).lower()}") from error
        with file:
            yield file

    def _of_csv(self, lines: "_TextLines", texts: Iterator[str]) -> Generator[FetchRow]:
        records = csv.reader(texts, strict=True)
        try:
            header = next(records, _NO_FIELDS)
            place = self._place_of_key(lines, header)
            for record in records:
                if record:
                    if len(record) != len(header):
                        raise lines.wrong(f"{len(record)} fields, but there are {len(header)} columns")
                    yield _row(lines, place, header, record)
        except csv.Error as error:
            raise lines.wrong(f"not CSV: {error}") from None

    def _place_of_key(self, lines: "_TextLines", names: list[str]) -> int:
        if self._key is None or not names:
            return 0
        if self._key not in names:
            raise lines.wrong(f"no column {self._key!r} (key), there are {', '.join(names)}")
        return names.index(self._key)

    def _of_json(self, lines: "_TextLines", texts: Iterator[str]) -> Generator[FetchRow]:
        for text in texts:
            if text.strip():
                found = _object(lines, text)
                if self._key is None:
                    self._key = next(iter(found))
                names = list(found)
                yield _row(lines, self._place_of_key(lines, names), names, list(found.values()))


def _begun(file: IO[bytes], name: str) -> "tuple[_TextLines, str, Iterator[str]]":
    """Return the lines of a file, the first that is not empty, and an iterator of that one and the rest."""
    lines = _TextLines(file, name)
    first = next((line for line in lines if line.strip()), "")
    return lines, first, chain((first,), lines) if first else iter(())


def _object(lines: "_TextLines", text: str) -> dict[str, Any]:
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise lines.wrong("not JSON") from None
    if not isinstance(found, dict) or not found:
        raise lines.wrong("no JSON object with a key")
    return cast("dict[str, Any]", found)


class _Stdin(RawIOBase):
    """The bytes of stdin, until it is left."""

    def __init__(self, left: Event) -> None:
        self._left = left

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any, /) -> int:
        while not select((sys.stdin,), (), (), _LOOK)[0]:
            if self._left.is_set():
                raise SourceError("stdin: left before its end")
        data = os.read(sys.stdin.fileno(), len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _TextLines:
    """The lines of a file, counted from 1."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        self._name = name
        self._number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        data = self._file.readline(LONGEST + 1)
        if not data:
            raise StopIteration
        self._number += 1
        if len(data) > LONGEST:
            raise self.wrong(f"longer than {LONGEST:,} bytes")
        if b"\0" in data:
            raise self.wrong("a NUL: this is no text")
        try:
            return data.decode("utf-8-sig" if self._number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise self.wrong(f"byte {error.start + 1}: not UTF-8") from None

    def wrong(self, what: str) -> SourceError:
        """Make the error for the line that was read last."""
        return SourceError(f"{self._name}, line {self._number}: {what}")


def _row(lines: _TextLines, place: int, names: Sequence[str], values: Sequence[object]) -> FetchRow:
    """Return the row with the key at that place; a single column is also its URL."""
    key = values[place]
    if key == "" or isinstance(key, bool) or not isinstance(key, str | int):
        raise lines.wrong(f"a key is text or an integer, got {named(key)}")
    if not can_be_key(key):
        raise lines.wrong(f"a key is text in Unicode or an integer of 64 bits, got {named(key)}")
    urls = dict[str, str]()
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        if (number != place or len(names) == 1) and isinstance(value, str) and is_url(value):
            urls[name] = value.strip()
    _refuse_twins(lines, columns_of(names[place], urls))
    return FetchRow(key, urls, names[place])


def is_url(cell: str) -> bool:
    """Whether a cell is meant to be fetched."""
    return cell.lstrip()[:8].lower().startswith(("http://", "https://"))


def _refuse_twins(lines: _TextLines, names: Iterable[str]) -> None:
    """Raise `SourceError` if two names would be the same column of a table."""
    seen = dict[str, str]()
    for name in names:
        if not name or not validate.is_utf8(name):
            raise lines.wrong(f"a column needs a name in Unicode, got {name!r}")
        if lowered(name) in seen:
            raise lines.wrong(f"two columns have one name in a table: {seen[lowered(name)]!r} and {name!r}")
        seen[lowered(name)] = name
