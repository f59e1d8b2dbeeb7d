"""The wire format of `/v1/embeddings`: what is sent, what comes back, and what a refusal means."""

import json
import math
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, cast

import numpy as np

from penstock.workflows.documents.embedders import EmbedderUnavailableError, EmbedError, Vectors
from penstock.workflows.secret import Secret

LONGEST_WAIT = 60.0
"""Seconds; a server that asks for more is asked again after these."""

_AGAIN = {408, 425, 429, 500, 502, 503, 504, 529}
_THESE_TEXTS = {400, 408, 413, 422, 425}
"""Other codes below 500 say the same of any texts: a wrong key, no such model, no quota left."""

_QUOTED = 200


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there are no vectors, as a value: raised at the place where it was found, it would carry what was sent."""

    reason: str
    transient: bool = False
    unavailable: bool = False
    retry_after: float | None = None

    def error(self, url: str, key: Secret | None) -> EmbedError:
        """The error that tells it, without the key, also where the server repeats it."""
        kind = EmbedderUnavailableError if self.unavailable else EmbedError
        reason = self.reason if key is None else key.hidden_in(self.reason)
        return kind(f"{url}: {_shortened(reason)}", transient=self.transient, retry_after=self.retry_after)


_MALFORMED = Refusal("the answer holds embeddings of another form, size or index than it should")


def request(model: str, texts: Sequence[str], dimensions: int | None, encoding: str) -> bytes:
    """The body of a request; half characters, which JSON cannot carry, become question marks."""
    body: dict[str, Any] = {
        "model": model,
        "input": [text.encode(errors="replace").decode() for text in texts],
        "encoding_format": encoding,
    }
    if dimensions is not None:
        body["dimensions"] = dimensions
    return json.dumps(body).encode()


def answer(status: int, headers: Mapping[str, str], content: bytes, count: int) -> Vectors | Refusal:
    """The `count` vectors of a response, in the order of the texts, or why there are none."""
    return vectors(content, count) if status == HTTPStatus.OK else refusal(status, headers, content)


def vectors(content: bytes, count: int) -> Vectors | Refusal:
    """The vectors in the body of a response that is said to have them."""
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
    """The entries of `data`, as they came."""
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
    """The rows as their `index` says, or as they came if none has one."""
    if all(row.get("index") is None for row in rows):
        return rows
    by_index = {row["index"]: row for row in rows}
    return [by_index[index] for index in range(len(rows))]


def _row(embedding: Any) -> Vectors:
    if isinstance(embedding, str):
        return np.frombuffer(b64decode(embedding, validate=True), "<f4").astype(np.float32)
    return np.array(embedding, np.float32)


def refusal(status: int, headers: Mapping[str, str], content: bytes) -> Refusal:
    """What a status other than 200 means."""
    try:
        said = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        said = str(status)
    words = _words(content)
    return Refusal(
        f"{said}: {words}" if words else said,
        transient=status in _AGAIN and b"insufficient_quota" not in content,
        unavailable=status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _THESE_TEXTS,
        retry_after=retry_after(headers, datetime.now(UTC)),
    )


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """The seconds that a server asks to wait, 0 to 60: `Retry-After-Ms`, or `Retry-After` in seconds or as a date."""
    for name, unit in (("retry-after-ms", 1_000), ("retry-after", 1)):
        said = headers.get(name, "")
        try:
            seconds = float(said) / unit
        except ValueError:
            seconds = _until(said, now)
        if not math.isnan(seconds):
            return min(max(seconds, 0.0), LONGEST_WAIT)
    return None


def _until(date: str, now: datetime) -> float:
    """Seconds from `now` to an HTTP date; NaN for what is none."""
    try:
        then = parsedate_to_datetime(date)
    except ValueError:
        return math.nan
    return ((then if then.tzinfo else then.replace(tzinfo=UTC)) - now).total_seconds()


def _words(content: bytes) -> str:
    """What the server said, where errors are told: `error.message`, `error`, `message`, `detail`, or all of it."""
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
    """`text` on one line of 200 characters at most."""
    line = " ".join(text.split())
    return line if len(line) <= _QUOTED else f"{line[:_QUOTED]} ..."
