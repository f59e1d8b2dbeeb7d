"""What a server has answered, as a record holds it."""

import codecs
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, NoReturn

type Content = str | bytes | None
"""JSON and other text as text, anything else as bytes; None for an empty one."""

_LONGEST_VALIDATOR: Final = 1_000

_CHARSET: Final = re.compile(r"""charset\s*=\s*["']?([A-Za-z0-9_.:-]{1,40})""")
_TEXTS: Final = re.compile(
    r"text/.*|.*\+(xml|yaml)|application/(xml|javascript|ecmascript|yaml|x-yaml|toml|sql|graphql)"
)
_JSONS: Final = re.compile(r"(application|text)/json|.*\+json")
_LINES_OF_JSON: Final = re.compile(r"application/(x-)?(ndjson|jsonl|json-lines|jsonlines|json-seq)")

_READABLE: Final = frozenset(
    (
        *("ascii", "utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "gb2312", "gbk"),
        *("gb18030", "big5", "big5hkscs", "shift_jis", "cp932", "euc_jp", "euc_kr", "cp949", "koi8-r", "koi8-u"),
        *("iso2022_jp", "mac-roman", "cp866", "tis-620", "cp874"),
        *(f"iso8859-{number}" for number in range(1, 17)),
        *(f"cp125{number}" for number in range(9)),
    )
)
"""Encodings that are read, by Python's names. Others of Python's compress, or take time that grows with the square."""


@dataclass(frozen=True, slots=True)
class Validators:
    """What a conditional request asks with.

    Attributes:
        at: the digest of the URL that they are of, behind redirects.
        etag, modified: as the server said them.
    """

    at: str
    etag: str = ""
    modified: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a request that asks only for what is new."""
        named = {"If-None-Match": self.etag, "If-Modified-Since": self.modified}
        return {name: value for name, value in named.items() if value}


@dataclass(frozen=True, slots=True)
class Fetched:
    """What has come of a request.

    Attributes:
        status: of the answer; None if there was none.
        error: why there is no new body; None if there is one, or the one that is known is still good.
        body: the new one.
        validators: what the next conditional request asks with.
        is_new: whether `body` is to be taken; otherwise the one that is known stays.
        again: whether a further request may do better.
        retry_after: the seconds that the server asks to wait before that.
    """

    status: int | None = None
    error: str | None = None
    body: Content = None
    validators: Validators | None = None
    is_new: bool = False
    again: bool = False
    retry_after: float | None = None

    @property
    def is_the_same(self) -> bool:
        """Whether the server says that the body that is known is still good."""
        return self.error is None and not self.is_new


def phrase(status: int) -> str:
    """Return a status with its name."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def validators(headers: Mapping[str, str], at: str) -> Validators | None:
    """Return what the headers of an answer say for conditional requests; None if they say nothing."""
    return as_validators(headers.get("etag", ""), headers.get("last-modified", ""), at)


def as_validators(etag: str, modified: str, at: str) -> Validators | None:
    """Return validators of texts that a request can carry; None if there are none."""
    found = Validators(at, _validator(etag), _validator(modified))
    return found if found.etag or found.modified else None


def _validator(value: str) -> str:
    return value if len(value) <= _LONGEST_VALIDATOR and value.isascii() and value.isprintable() else ""


def answer(status: int, content: bytes, content_type: str, known: Validators | None) -> Fetched:
    """Return the answer with a body that has come whole."""
    try:
        return Fetched(status, None, _body(content, content_type.lower()), known, is_new=True)
    except ValueError as error:
        return Fetched(status, str(error))


def _body(content: bytes, content_type: str) -> Content:
    """Return a body by its type; without one, what is UTF-8 is text.

    Raises:
        ValueError: its type says JSON, and it is none.
    """
    if not content:
        return None
    kind = content_type.partition(";")[0].strip()
    if _JSONS.fullmatch(kind):
        return _json(content)
    if _TEXTS.fullmatch(kind) or _LINES_OF_JSON.fullmatch(kind):
        return _text(content, content_type)
    if kind:
        return content
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content


def _text(content: bytes, content_type: str) -> str:
    """Return text, in the encoding that its mark or its type says, or in UTF-8; U+FFFD stands for what is none."""
    if content.startswith(codecs.BOM_UTF8):
        return content.decode("utf-8-sig", "replace")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    said = _CHARSET.search(content_type)
    try:
        name = codecs.lookup(said[1]).name if said else "utf-8"
    except LookupError:
        name = "utf-8"
    return content.decode(name if name in _READABLE else "utf-8", "replace")


def _json(content: bytes) -> str:
    """Return JSON as the text that it is, once it is known to be JSON that SQLite reads, too."""
    try:
        text = content.decode(json.detect_encoding(content))
        json.loads(text, parse_int=len, parse_float=len, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise ValueError("the body is not JSON, as its type says") from None
    return text


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)
