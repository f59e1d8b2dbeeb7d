"""Records of a CSV file as a source; one column, or the place in the file, is the key."""

import codecs
import csv as standard
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from io import BufferedReader
from pathlib import Path
from threading import Lock
from typing import Any, Final, cast

from penstock.core import validate
from penstock.core.errors import OptionError, SourceError
from penstock.core.log import LOG
from penstock.core.plan import OUT_OF_BAND, OutOfBand
from penstock.durable.ledger import Identity
from penstock.sources.paths import key_of
from penstock.sources.read_ahead import Reading, read_ahead
from penstock.streams import Stream

MAX_RECORD: Final = 10_000_000
_BOM: Final = codecs.BOM_UTF8
_OTHER_BOMS: Final = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}  # UTF-32 begins like UTF-16
_UNCLOSED: Final = "unexpected end of data"
_RETURN: Final = "new-line character seen"

type RecordKey = str | Callable[[dict[str, str]], str | int]


def csv(
    path: str | os.PathLike[str],
    *,
    key: RecordKey | None = None,
    columns: Sequence[str] | None = None,
    delimiter: str = ",",
    encoding: str = "utf-8",
    growing: bool = False,
    on_error: OutOfBand = "raise",
    max_record: int = MAX_RECORD,
) -> Stream[dict[str, str]]:
    """Make a stream over the records of a CSV file, as dicts of text; for `to`, each record is a root.

    Quotes are those of RFC 4180: a field in `"` may hold delimiters, newlines, and quotes that are doubled. The first
    record names the columns. A record has the version of its text and of those names: it is done again when it is
    edited. Empty lines are passed over. A thread reads the file, up to 256 records or 4 MB ahead.

    Args:
        path: the file.
        key: by what a record is known from run to run: the name of a column, or a plain function of the record that
            gives a str or an int. Default: the byte at which it begins; then records that are appended are new, and all
            behind one whose length has changed. A record that cannot be read is known by that byte, too.
        columns: the names of the columns of a file that does not begin with them.
        delimiter: the character between fields.
        encoding: one in which a newline is one byte: UTF-8 (also with a byte-order mark), cp1252 and the like.
        growing: whether the file is still written to. True leaves a last line without a newline, and a quote that is
            not closed yet, for the next run, with a warning in the log; then nothing that may stand behind it counts as
            missing. False takes the file as it stands.
        on_error: what to do at a record that cannot be read, as for operators. The `SourceError` names file and line.
        max_record: bytes that a record may have, an int >= 1; a longer one ends the run with a `SourceError`, as a
            quote that is never closed would take the whole file.

    Example:
        report = await penstock.csv("users.csv", key="id").map(enrich, concurrency=32).to(table, run="users")

    Raises:
        OptionError: an option breaks its rule.
    """
    if key is not None and not isinstance(key, str):
        validate.plain_function("key", key)
    form = _Csv(
        os.path.realpath(validate.path("path", path)),
        key,
        None if columns is None else _names(columns),
        _delimiter(delimiter),
        _encoding(encoding),
        growing=validate.flag("growing", growing),
        longest=validate.whole("max_record", max_record, least=1),
    )
    by = f" by {key!r}" if isinstance(key, str) else ""
    identity = Identity(f"csv {key_of(form.path)}{by}", key=form.key_of, version=_version)
    validate.one_of("on_error", on_error, OUT_OF_BAND)
    return read_ahead("csv", form.read, identity, size=_size).map(_fields, name="csv", on_error=on_error)


@dataclass(frozen=True, slots=True, repr=False)
class _CsvRecord:
    """A record of a file, and the line in which it begins, counted from 1; or why it cannot be read."""

    path: str
    line: int
    offset: int
    version: str
    size: int
    fields: dict[str, str]
    refusal: str

    def __repr__(self) -> str:
        return f"{self.path}, line {self.line}"


@dataclass(frozen=True, slots=True)
class _Csv:
    """The file that `csv` reads, and how."""

    path: str
    key: RecordKey | None
    columns: tuple[str, ...] | None
    delimiter: str
    encoding: str
    growing: bool
    longest: int

    def key_of(self, record: _CsvRecord) -> str | int:
        """Return the key of a record; the place of one that cannot be read."""
        if self.key is None or record.refusal:
            return record.offset
        return record.fields[self.key] if isinstance(self.key, str) else self.key(record.fields)

    def read(self, reading: Reading) -> Generator[_CsvRecord]:
        """Read the records; runs in a thread."""
        try:
            file = Path(self.path).open("rb")  # noqa: SIM115 -- its errors are others than those of reading
        except OSError as error:
            raise SourceError(f"{self.path}: {(error.strerror or str(error)).lower()}") from error
        with file:
            lines = _RecordReader(file, self)
            names = self.columns if self.columns is not None else self._header(lines, reading)
            if names is None:
                return
            if isinstance(self.key, str) and self.key not in names:
                raise SourceError(
                    f"{self.path}: key must name a column, got {self.key!r}: it has {', '.join(map(repr, names))}"
                )
            of_all = blake2b(repr((names, self.delimiter, self.encoding)).encode(), digest_size=16)
            while (values := lines.record()) is not None:
                if lines.unfinished:
                    self._leave(lines, reading)
                    return
                if values or lines.refusal:
                    yield self._record(lines, names, values, of_all)

    def _header(self, lines: "_RecordReader", reading: Reading) -> tuple[str, ...] | None:
        """Return the names of the columns; None of a file that has none yet."""
        names = lines.record()
        while names == [] and not lines.refusal:
            names = lines.record()
        if names is None:
            return None
        if lines.unfinished:
            self._leave(lines, reading)
            return None
        if lines.refusal:
            raise SourceError(f"{self.path}, line {lines.begin}: {lines.refusal}")
        if twice := _twice(names):
            raise SourceError(
                f"{self.path}, line {lines.begin}: columns {twice[0]} and {twice[1]} both have the name "
                f"{names[twice[0] - 1]!r}"
            )
        return tuple(names)

    def _leave(self, lines: "_RecordReader", reading: Reading) -> None:
        LOG.warning("%s, line %s: is not complete yet: left for the next run", self.path, lines.begin)
        reading.unread(lines.offset if self.key is None else "")

    def _record(self, lines: "_RecordReader", names: tuple[str, ...], values: list[str], of_all: Any) -> _CsvRecord:
        refusal = lines.refusal
        if not refusal and len(values) != len(names):
            refusal = f"{_count(len(values), 'field')}, but there are {_count(len(names), 'column')}"
        digest = of_all.copy()
        digest.update(lines.text)
        fields = {} if refusal else dict(zip(names, values, strict=True))
        return _CsvRecord(self.path, lines.begin, lines.offset, digest.hexdigest(), len(lines.text), fields, refusal)


@dataclass(slots=True)
class _RecordReader:
    """The lines of a file, which its reader asks for one by one.

    Attributes:
        begin, offset: the line in which the last record begins, and its byte.
        text: the bytes of the last record, without the newline at its end.
        refusal: why it cannot be read, or "".
        unfinished: whether it may still be written to.
    """

    file: BufferedReader
    form: _Csv
    begin: int = 0
    offset: int = 0
    text: bytes = b""
    refusal: str = ""
    unfinished: bool = False
    _number: int = 0
    _place: int = 0
    _parts: list[bytes] = field(default_factory=list[bytes])
    _size: int = 0
    _has_room: bool = False
    _reader: Iterator[list[str]] = field(init=False)

    def __post_init__(self) -> None:
        """Make the reader of records: it takes a line when it needs it, so each record begins where the last ended."""
        self._reader = standard.reader(self, delimiter=self.form.delimiter, strict=True)

    def record(self) -> list[str] | None:
        """Read the next record: its fields, none of an empty line or if there is a `refusal`; None at the end."""
        self.begin, self.offset, self.refusal, self.unfinished = self._number + 1, self._place, "", False
        self._parts, self._size = [], 0
        values: list[str] | None
        try:
            values = next(self._reader, None)
        except UnicodeDecodeError as error:
            values, self.refusal = [], f"{self._where()}byte {error.start + 1}: not {self.form.encoding}"
        except standard.Error as error:
            values, self.refusal = [], self._said(str(error))
        finally:
            if self._has_room:
                self._has_room = False
                _ROOM.give_back()
        if not self._parts:
            return None
        self.text = b"".join(self._parts)
        self.unfinished = self.form.growing and (not self.text.endswith(b"\n") or self.refusal == _NOT_CLOSED)
        if b"\0" in self.text:
            values, self.refusal = [], self.refusal or "a NUL: this is no text"
        self.text = self.text.rstrip(b"\r\n")
        return values

    def __iter__(self) -> "_RecordReader":
        return self

    def __next__(self) -> str:
        """Give the next line of the record, with its newline."""
        form = self.form
        data = self.file.readline(form.longest + 1 - self._size)
        if not data:
            raise StopIteration
        if not self._place:
            self._refuse_other_encoding(data)
        self._number += 1
        self._place += len(data)
        self._size += len(data)
        self._parts.append(data)
        if self._size > form.longest:
            raise SourceError(
                f"{form.path}, line {self.begin}: longer than {form.longest:,} bytes (max_record): "
                "is a quote not closed?"
            )
        if not self._has_room and _ROOM.is_needed(self._size):
            _ROOM.take(form.longest)
            self._has_room = True
        if self._number == 1 and form.encoding == "utf-8":
            data = data.removeprefix(_BOM)
        return data.decode(form.encoding)

    def _refuse_other_encoding(self, data: bytes) -> None:
        if name := _OTHER_BOMS.get(data[:2]):
            raise SourceError(
                f"{self.form.path}: it is in {name}, in which a newline is more than one byte: "
                f"bring it to UTF-8 (iconv -f {name} -t UTF-8)"
            )

    def _where(self) -> str:
        return f"to line {self._number}, " if self._number > self.begin else ""

    def _said(self, message: str) -> str:
        if message == _UNCLOSED:
            return _NOT_CLOSED
        if message.startswith(_RETURN):
            return "a carriage return within a line: lines end with LF or CRLF"
        return f"{self._where()}no CSV: {message}"


_NOT_CLOSED: Final = "a quote is not closed before the end of the file"


class _Room:
    """The limit of the standard library for a field, which is one for the process: raised while a long record is read.

    Several threads may do so; the last one puts it back, unless others have changed it meanwhile.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._before = self._raised = 0

    def is_needed(self, size: int) -> bool:
        """Whether a record of that size may have a field above the limit, as it is when nobody has raised it."""
        return size > min(_LIMIT, standard.field_size_limit())

    def take(self, size: int) -> None:
        """Raise the limit."""
        with self._lock:
            if not self._inside:
                self._before = self._raised = standard.field_size_limit()
            self._inside += 1
            if size > self._raised:
                standard.field_size_limit(size)
                self._raised = size

    def give_back(self) -> None:
        """Need it no more."""
        with self._lock:
            self._inside -= 1
            if not self._inside and standard.field_size_limit() == self._raised:
                standard.field_size_limit(self._before)


_ROOM: Final = _Room()
_LIMIT: Final = 131_072


def _fields(record: _CsvRecord) -> dict[str, str]:
    if record.refusal:
        raise SourceError(f"{record!r}: {record.refusal}")
    return record.fields


def _version(record: _CsvRecord) -> str:
    return record.version


def _size(record: _CsvRecord) -> int:
    return record.size


def _twice(names: Sequence[str]) -> tuple[int, int] | None:
    """Return the places, from 1, of two columns with one name."""
    for place, name in enumerate(names, 1):
        if (first := names.index(name) + 1) < place:
            return first, place
    return None


def _names(columns: object) -> tuple[str, ...]:
    if isinstance(columns, str) or not isinstance(columns, Sequence) or not columns:
        raise OptionError(f"columns must be the names of columns, got {columns!r}")
    names = tuple(validate.text("columns", name) for name in cast("Sequence[object]", columns))
    if twice := _twice(names):
        raise OptionError(f"columns must differ, got {names[twice[0] - 1]!r} twice")
    return names


def _delimiter(value: object) -> str:
    if not isinstance(value, str) or len(value) != 1 or value in '"\r\n\0':
        raise OptionError(f"delimiter must be one character, and no quote or newline, got {value!r}")
    return value


def _encoding(value: object) -> str:
    """Return the name of an encoding in which lines can be found without reading the text."""
    name = validate.text("encoding", value)
    try:
        known = codecs.lookup(name).name
        plain = "utf-8" if known == "utf-8-sig" else known
        fits = all(f"{char}a".encode(plain) == char.encode("ascii") + b"a" for char in '\n\r",')
    except (LookupError, UnicodeError) as error:
        raise OptionError(f"encoding must be the name of an encoding, got {value!r}") from error
    if not fits:
        raise OptionError(f"encoding must be one in which a newline is one byte, got {value!r}")
    return plain


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
