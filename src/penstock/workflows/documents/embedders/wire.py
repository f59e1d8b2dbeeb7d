"""The wire format of `/v1/embeddings`: requests, responses, and what a refusal means."""

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, cast

import numpy as np

from penstock.core.text import one_line
from penstock.retry_after import retry_after as asked_wait
from penstock.workflows.documents.embedders import (
    EmbedderAccountError,
    EmbedderUnavailableError,
    EmbedError,
    Vectors,
)
from penstock.workflows.secret import Secret

LONGEST_WAIT = 60.0
"""Seconds; a server that asks for more is asked again after these."""

_AGAIN = {408, 425, 429, 500, 502, 503, 504, 529}
_THESE_TEXTS = {400, 408, 413, 422, 425}
"""Codes that concern these texts. Other codes below 500 concern any text: a wrong key, no such model, no quota."""

_OF_ACCOUNT = {401, 402, 403}

_QUOTED = 200

_ERROR = 1 << 16
"""Bytes that are read of the body of a refusal."""

_FRAME, _UNKNOWN, _NUMBER = 1 << 16, 1 << 20, 64
"""Bytes that an answer may have: for itself, for a vector of unknown length, and for each number of other vectors."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there are no vectors, as a value: an exception raised where it was found would carry what was sent."""

    reason: str
    transient: bool = False
    unavailable: bool = False
    of_account: bool = False
    retry_after: float | None = None

    def error(self, url: str, key: Secret | None) -> EmbedError:
        """Make the error that tells it in one line, without the key, even if the server repeats the key."""
        kind = EmbedderUnavailableError if self.unavailable else EmbedError
        if self.of_account:
            kind = EmbedderAccountError
        reason = self.reason if key is None else key.hidden_in(self.reason)
        return kind(f"{url}: {_shortened(reason)}", transient=self.transient, retry_after=self.retry_after)


_MALFORMED = Refusal("the answer holds embeddings of another form, size or index than it should")


def request(model: str, texts: Sequence[str], dimensions: int | None, encoding: str) -> bytes:
    """Return the body of a request; half characters, which JSON cannot carry, become question marks."""
    body: dict[str, Any] = {
        "model": model,
        "input": [text.encode(errors="replace").decode() for text in texts],
        "encoding_format": encoding,
    }
    if dimensions is not None:
        body["dimensions"] = dimensions
    return json.dumps(body).encode()


def most(status: int, count: int, dimensions: int | None) -> int:
    """Return the bytes that a response may have that holds `count` vectors, or a refusal."""
    if status != HTTPStatus.OK:
        return _ERROR
    return _FRAME + count * (_UNKNOWN if dimensions is None else _FRAME + dimensions * _NUMBER)


def answer(
    status: int, headers: Mapping[str, str], content: bytes | Refusal, count: int, limit: int
) -> Vectors | Refusal:
    """Return the `count` vectors of a response, in the order of the texts, or why there are none."""
    if status != HTTPStatus.OK:
        return refusal(status, headers, b"" if isinstance(content, Refusal) else content)
    if isinstance(content, Refusal):
        return content
    return vectors(content, count) if len(content) <= limit else Refusal(f"the answer is longer than {limit:,} bytes")


def vectors(content: bytes, count: int) -> Vectors | Refusal:
    """Return the vectors in the body of a response that claims to have them."""
    rows = _rows(content, count)
    if isinstance(rows, Refusal):
        return rows
    try:
        with np.errstate(over="ignore"):
            placed = np.stack([_row(row["embedding"]) for row in _in_order(rows)])
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return _MALFORMED
    if placed.ndim != 2 or not placed.size:  # noqa: PLR2004 -- a row per text
        return _MALFORMED
    if not np.isfinite(placed).all():
        return Refusal("the answer holds embeddings with numbers that are not finite")
    return placed


def _rows(content: bytes, count: int) -> list[Any] | Refusal:
    """Return the entries of `data`, as they came."""
    try:
        reply: Any = json.loads(content)
    except (ValueError, RecursionError):
        body = content.strip()
        if not body or (body.startswith(b"{") and not body.endswith(b"}")):
            return Refusal(f"the answer was cut off after {len(content):,} bytes", transient=True)
        return Refusal(f"the answer is no JSON: {_text(content)}")
    rows = cast("dict[str, Any]", reply).get("data") if isinstance(reply, dict) else None
    if not isinstance(rows, list):
        return Refusal(f"the answer has no embeddings: {_words(content)}")
    found = cast("list[Any]", rows)
    return found if len(found) == count else Refusal(f"{len(found)} embeddings came back for {count} texts")


def _in_order(rows: list[Any]) -> list[Any]:
    """Sort the rows by their `index`; leave them as they came if none has one."""
    if all(row.get("index") is None for row in rows):
        return rows
    by_index = {row["index"]: row for row in rows if type(row["index"]) is int}
    return [by_index[index] for index in range(len(rows))]


def _row(embedding: Any) -> Vectors:
    if isinstance(embedding, str):
        return np.frombuffer(b64decode(embedding, validate=True), "<f4").astype(np.float32)
    if not set(map(type, embedding)) <= {int, float}:  # numpy takes texts for the numbers that they spell
        raise TypeError
    return np.array(embedding, np.float32)


def refusal(status: int, headers: Mapping[str, str], content: bytes) -> Refusal:
    """Say what a status other than 200 means."""
    try:
        said = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        said = str(status)
    words = _words(content)
    no_credit = b"insufficient_quota" in content
    return Refusal(
        f"{said}: {words}" if words else said,
        transient=status in _AGAIN and not no_credit,
        of_account=status in _OF_ACCOUNT or no_credit,
        unavailable=status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _THESE_TEXTS,
        retry_after=retry_after(headers, datetime.now(UTC)),
    )


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that a server asks to wait, 60 at most; None if it does not say any."""
    seconds = asked_wait(headers, now)
    return None if seconds is None else min(seconds, LONGEST_WAIT)


def _words(content: bytes) -> str:
    """Return the message of the server, wherever it is: `error.message`, `error`, `message`, `detail`, or the body."""
    try:
        reply: Any = json.loads(content)
    except (ValueError, RecursionError):
        return _text(content)
    for name in ("error", "message", "detail"):
        if isinstance(reply, dict) and cast("dict[str, Any]", reply).get(name):
            reply = cast("dict[str, Any]", reply)[name]
    return reply if isinstance(reply, str) else _text(content)


def _text(content: bytes) -> str:
    return content.decode(errors="replace")


def _shortened(text: str) -> str:
    """Return `text` on one line, cut after 200 characters, with single white space."""
    return one_line(" ".join(text.split()), _QUOTED)
