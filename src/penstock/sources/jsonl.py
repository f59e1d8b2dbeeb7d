"""Lines of JSON as a source; the key of a line is its place in the file."""

import json
import os
from collections.abc import Generator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, cast

from penstock.core import validate
from penstock.core.errors import SourceError
from penstock.core.log import LOG
from penstock.core.plan import OUT_OF_BAND, OutOfBand
from penstock.durable.ledger import Identity
from penstock.sources.paths import key_of
from penstock.sources.read_ahead import Reading, read_ahead
from penstock.streams import Stream

MAX_LINE: Final = 100_000_000
_BOM: Final = b"\xef\xbb\xbf"


def jsonl(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    growing: bool = True,
    on_error: OutOfBand = "raise",
    max_line: int = MAX_LINE,
) -> Stream[Any]:
    """Make a stream over the values in a file of JSON lines, in UTF-8; for `to`, each line is a root.

    The key of a line is the byte at which it begins; its version is a digest of it. So lines that are appended are new,
    and a line that was edited is done again, as are all lines behind one whose length has changed. The rows under the
    old keys stay beside the new ones unless the run has `on_missing="delete"`: give it wherever lines are edited, not
    only appended. `memo=True` spares the calls. Empty lines are passed over. A thread reads the file, up to 256 lines
    or 4 MB ahead.

    Args:
        path: the file.
        key: a name in the objects of the lines, whose text or integer says by what a line is known from run to run.
            Default: the byte at which it begins, as said; that of a line without the name, too.
        growing: whether the file may still be written to. True leaves a last line without a newline for the next run,
            with a warning in the log, as it may be half written; no line from there on counts as missing. False takes
            the file as it stands.
        on_error: what to do at a line that is no JSON, as for operators. The `SourceError` names file, line and column.
        max_line: bytes that a line may have, an int >= 1; a longer line ends the run with a `SourceError`.

    Example:
        report = await penstock.jsonl("events.jsonl").map(enrich, concurrency=32).to(table, run="events")

    Raises:
        OptionError: an option breaks its rule.
    """
    lines = _Lines(
        os.path.realpath(validate.path("path", path)),
        growing=validate.flag("growing", growing),
        longest=validate.whole("max_line", max_line, least=1),
    )
    if key is None:
        identity = Identity(f"jsonl {key_of(lines.path)}", key=_offset, version=_digest)
    else:
        name = validate.text("key", key)
        identity = Identity(
            f"jsonl {key_of(lines.path)} by {key!r}", key=lambda line: _key_in(line, name), version=_digest
        )
    return read_ahead("jsonl", lines.read, identity, size=_size).map(
        _value, name="json", on_error=validate.one_of("on_error", on_error, OUT_OF_BAND)
    )


@dataclass(frozen=True, slots=True, repr=False)
class _Line:
    """A line of a file; lines are counted from 1."""

    path: str
    number: int
    offset: int
    data: bytes

    def __repr__(self) -> str:
        return f"{self.path}, line {self.number}"


@dataclass(frozen=True, slots=True)
class _Lines:
    """The file that `jsonl` reads."""

    path: str
    growing: bool
    longest: int

    def read(self, reading: Reading) -> Generator[_Line]:
        """Read the lines that are not empty; runs in a thread."""
        try:
            file = Path(self.path).open("rb")  # noqa: SIM115 -- its errors are others than those of reading
        except OSError as error:
            raise SourceError(f"{self.path}: {(error.strerror or str(error)).lower()}") from error
        with file:
            number = offset = 0
            while data := file.readline(self.longest + 1):
                number += 1
                if not data.endswith(b"\n"):
                    if len(data) > self.longest:
                        raise SourceError(f"{self.path}, line {number}: longer than {self.longest:,} bytes (max_line)")
                    if b"\r" in data.rstrip() and _is_value(data.partition(b"\r")[0]):
                        raise SourceError(
                            f"{self.path}, line {number}: lines end with a carriage return alone; write a line feed "
                            "behind each, as tr '\\r' '\\n' does"
                        )
                    if self.growing:
                        LOG.warning("%s, line %s: has no newline yet: left for the next run", self.path, number)
                        reading.unread(offset)
                        return
                line = data.rstrip()
                if not offset:
                    line = line.removeprefix(_BOM)
                if line:
                    yield _Line(self.path, number, offset, line)
                offset += len(data)


def _is_value(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _value(line: _Line) -> Any:
    try:
        return json.loads(line.data.decode())
    except UnicodeDecodeError as error:
        reason = f"column {error.start + 1}: not UTF-8"
    except json.JSONDecodeError as error:
        reason = f"column {error.colno}: not JSON: {error.msg[:1].lower()}{error.msg[1:]}"
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:  # a number of too many digits
        reason = str(error)
    raise SourceError(f"{line!r}, {reason}")


def _key_in(line: _Line, name: str) -> str | int:
    """Return the key that the object of a line has; the place of a line that has none."""
    try:
        value = _value(line)
    except SourceError:
        return line.offset
    found: object = cast("dict[str, object]", value).get(name) if isinstance(value, dict) else None
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise SourceError(
            f"{line!r}: key must be the name of text or an int in every line, got {name!r}, there is {found!r}"
        )
    return found


def _offset(line: _Line) -> int:
    return line.offset


def _digest(line: _Line) -> str:
    return blake2b(line.data, digest_size=16).hexdigest()


def _size(line: _Line) -> int:
    return len(line.data)
