"""The bodies of answers, read as they come: server-sent events, or one JSON document.

A `ModelAnswer` is what a service has said until now; its kinds know the wire format of one service. It is whole when
the service has said why it ended. Whether the body ended in order is for the reader of the connection to know.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final, cast

from penstock.flow.models import Reply

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_EVENTS: Final = re.compile(rb"\s*(:|(data|event|id|retry)(:|\r|\n))")
"""How a stream of events begins."""

_FIELDS: Final = (b"data:", b"event:", b"id:", b"retry:")
_UNDECIDED: Final = 16
"""Bytes from which on it is known what a body is."""

MOST: Final = 1 << 26
"""Bytes of a body; a longer one is a failure."""

DECLINED: Final = frozenset({"refusal", "content_filter"})
"""Why an answer ends that its model declines to give, or a filter of the service."""

_PASSING: Final = re.compile(
    r"overload|rate.?limit|too.?many|server.?error|internal|unavailable|timeout|api_error", re.IGNORECASE
)
"""Names of errors that pass: overload, rate limits, errors of the server."""

_OF_ACCOUNT: Final = re.compile(
    r"insufficient.?(quota|credit|fund|balance)|billing|authentication|invalid.?api.?key|permission.?(error|denied)"
    r"|account.?deactivated",
    re.IGNORECASE,
)
"""Names of errors of the key or the credit. "Quota" alone is also that of a minute."""

_NO_CREDIT: Final = re.compile(r"credit balance is too low", re.IGNORECASE)
"""Anthropic's words for it, in an error that is named as one of the request."""

_OF_PROMPT: Final = re.compile(r"moderation|flagged|content.?(policy|filter)", re.IGNORECASE)
"""Words of those who refuse a prompt by a 403."""

_UNAUTHORIZED: Final = frozenset({401, 402, 403})

_TRANSIENT: Final = frozenset({408, 409, 425, 429})
_SERVER_ERROR: Final = 500


def is_transient(status: int) -> bool:
    """Whether a response with that status may do better when the request is made again."""
    return status in _TRANSIENT or status >= _SERVER_ERROR


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is no answer. `kind` and `words` are the service's."""

    reason: str
    transient: bool = False
    kind: str | None = None
    of_account: bool = False
    """Whether the key or the credit is at fault: then no other request does better."""


def trouble(body: object, words: str = "") -> Trouble:
    """Read what an error of a service says: `{"error": {"type", "code", "message"}}`, and what others make of it."""
    inner: object = body
    if isinstance(body, Mapping):
        inner = cast("Mapping[str, object]", body).get("error", cast("object", body))
    if not isinstance(inner, Mapping):
        said = inner if isinstance(inner, str) else words
        return Trouble(said, transient=False)
    error = cast("Mapping[str, object]", inner)
    names = [str(error[name]) for name in ("type", "code") if isinstance(error.get(name), str | int) and error[name]]
    message = next((error[name] for name in ("message", "detail") if isinstance(error.get(name), str)), words)
    kind = names[0] if names else None
    codes = [int(name) for name in names if name.isascii() and name.isdigit() and len(name) < 4]  # noqa: PLR2004 -- an HTTP status
    ours = any(_OF_ACCOUNT.search(name) for name in names) or _NO_CREDIT.search(str(message)) is not None
    again = not ours and (any(map(is_transient, codes)) or any(_PASSING.search(name) for name in names))
    return Trouble(": ".join(filter(None, (kind, str(message)))), transient=again, kind=kind, of_account=ours)


def refusal(status: int, said: Trouble) -> Trouble:
    """Return what a status of 4xx or 5xx means, of a service that has said so much of it."""
    try:
        name = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        name = str(status)
    of_account = said.of_account or (status in _UNAUTHORIZED and _OF_PROMPT.search(said.reason) is None)
    reason = f"{name}: {said.reason}" if said.reason else name
    return replace(said, reason=reason, transient=not of_account and is_transient(status), of_account=of_account)


class ModelAnswer:
    """What a service has said of its answer until now."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.stop: str | None = None
        self.input_tokens: int | None = None
        self.output_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.trouble: Trouble | None = None
        self.said_end: bool = False
        self.status: int | None = None

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Take an event of a stream."""
        raise NotImplementedError

    def document(self, data: Mapping[str, Any]) -> None:
        """Take a whole answer."""
        raise NotImplementedError

    def is_whole(self) -> bool:
        """Whether the service has said why it ended."""
        return self.stop is not None and self.said_end

    def is_truncated(self) -> bool:
        """Whether it ended because it had all its tokens."""
        raise NotImplementedError

    def declined(self) -> str | None:
        """Return how the service says that the model has declined, or a filter; None: it has not."""
        return self.stop if self.stop in DECLINED else None

    def reply(self) -> Reply | None:
        """Return what there is."""
        text = "".join(self.texts)
        if not text and self.stop is None and self.input_tokens is None and self.output_tokens is None:
            return None
        return Reply(text, self.stop or "", self.input_tokens, self.output_tokens, self.cached_tokens)

    def take_text(self, content: object) -> None:
        """Add a text; of parts, those that are texts."""
        if isinstance(content, str):
            self.texts.append(content)
        elif isinstance(content, list):
            for part in cast("list[object]", content):
                if isinstance(part, Mapping):
                    self.take_text(cast("Mapping[str, object]", part).get("text"))

    def take_usage(self, usage: object, read: str, written: str) -> None:
        """Note numbers of tokens: what is not said is not known."""
        if isinstance(usage, Mapping):
            said = cast("Mapping[str, object]", usage)
            self.input_tokens = count(said.get(read), self.input_tokens)
            self.output_tokens = count(said.get(written), self.output_tokens)


def count(said: object, known: int | None) -> int | None:
    """Return a number of tokens, if that is said; else what is known."""
    return said if type(said) is int and said >= 0 else known


class AnswerBody:
    """The body of a response as it comes, in any pieces, for an `ModelAnswer`."""

    def __init__(self, answer: ModelAnswer) -> None:
        self._answer = answer
        self._size = 0
        self._is_events: bool | None = None
        self._rest = b""
        self._document: list[bytes] = []
        self._name = ""
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> bool:
        """Take a piece; whether more is of use."""
        self._size += len(data)
        if self._size > MOST:
            self._answer.trouble = Trouble(f"the answer is longer than {MOST:,} bytes")
        elif self._is_events is None:
            self._document.append(data)
            self._decide(at_end=False)
        elif self._is_events:
            self._take(data)
        else:
            self._document.append(data)
        return self._answer.trouble is None

    def end(self) -> None:
        """Say that the body has ended, in order or not."""
        if self._is_events is None:
            self._decide(at_end=True)
        if self._is_events and self._rest.endswith(b"\r"):
            self._line(self._rest[:-1])
        if self._answer.trouble is None and not self._is_events:
            self._read_document(b"".join(self._document))

    def _decide(self, *, at_end: bool) -> None:
        begun = b"".join(self._document).removeprefix(b"\xef\xbb\xbf").lstrip()
        if len(begun) < _UNDECIDED and not at_end and not begun.startswith(b"{"):
            return
        cut = at_end and any(field.startswith(begun) for field in _FIELDS)
        self._is_events = cut or _EVENTS.match(begun) is not None
        if self._is_events:
            self._document.clear()
            self._take(begun)

    def _take(self, data: bytes) -> None:
        held = self._rest + data
        at = 0
        for match in _LINE_END.finditer(held):
            if match.group() == b"\r" and match.end() == len(held):
                break  # the newline after it may be in the next piece
            self._line(held[at : match.start()])
            at = match.end()
            if self._answer.trouble is not None:
                return
        self._rest = held[at:]

    def _line(self, line: bytes) -> None:
        if line:
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                self._data.append(value)
            elif field == b"event":
                self._name = value.decode(errors="replace")
            return
        name, data = self._name, b"\n".join(self._data)
        self._name = ""
        self._data.clear()
        if data == b"[DONE]" or not data:
            return
        document = _json(data)
        if document is None:
            self._answer.trouble = Trouble("an event of the answer is no JSON object")
        elif name == "error" or document.get("error"):
            self._answer.trouble = trouble(document)
        else:
            self._answer.event(name, document)

    def _read_document(self, content: bytes) -> None:
        content = content.strip()
        if not content or (content.startswith(b"{") and not content.endswith(b"}")):
            return  # it was cut: the answer is not whole
        document = _json(content)
        if document is None:
            self._answer.trouble = Trouble(
                f"the answer is neither events nor a JSON object: {content[:200].decode(errors='replace')}"
            )
        elif document.get("error") or document.get("type") == "error":
            self._answer.trouble = trouble(document)
        else:
            self._answer.document(document)


def _json(data: bytes) -> Mapping[str, Any] | None:
    """Return the JSON object in `data`, or None."""
    try:
        found: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else None


def mappings(value: object) -> Iterator[Mapping[str, Any]]:
    """Give the mappings in a list, if it is one."""
    for each in cast("list[object]", value) if isinstance(value, list) else ():
        if isinstance(each, Mapping):
            yield cast("Mapping[str, Any]", each)


def text_or_none(value: object) -> str | None:
    """Return `value`, if it is a text that says something."""
    return value if isinstance(value, str) and value else None
