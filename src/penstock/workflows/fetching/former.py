"""What the database has of an endpoint from before: for conditional requests, and to stay if those fail."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self, cast

from penstock.durable.roots import Key
from penstock.durable.sqlite.connection import Connection, connect_reader
from penstock.sinks.sqlite_store import columns_of, quoted
from penstock.workflows.fetching.responses import Content, Validators, as_validators
from penstock.workflows.fetching.url_file import BODY, VALIDATORS

_NOTHING: Final[Mapping[str, "KnownEndpoint"]] = {}


@dataclass(frozen=True, slots=True)
class KnownEndpoint:
    """What is known of an endpoint.

    Attributes:
        url: the digest of the URL that was asked.
        status: of the answer that brought its body.
        validators: what a conditional request asks with; None if the server gave nothing.
    """

    url: str
    status: int | None
    validators: Validators | None = None


class Former(Protocol):
    """The records of an earlier run."""

    def kept(self, key: Key) -> Mapping[str, KnownEndpoint]:
        """Return what is known of the endpoints of a key."""
        ...

    def body(self, key: Key, endpoint: str) -> Content:
        """Return the body of an endpoint, as it is stored."""
        ...


class NoFormer:
    """There was no earlier run."""

    def kept(self, key: Key) -> Mapping[str, KnownEndpoint]:
        """Return nothing."""
        del key
        return _NOTHING

    def body(self, key: Key, endpoint: str) -> Content:
        """Return nothing."""
        raise AssertionError((key, endpoint))


class FormerRecords:
    """The records in the table of an earlier run, read while this one writes, once it is entered."""

    def __init__(self, path: str, table: str, column: str) -> None:
        self._path = path
        self._table = table
        self._column = column
        self._select = f"SELECT {{}} FROM {quoted(table)} WHERE {quoted(column)} = ?"  # noqa: S608 -- quoted
        self._columns = frozenset[str]()

    def __enter__(self) -> Self:
        self._connection: Connection = connect_reader(self._path)
        found = frozenset(columns_of(self._connection, self._table))
        self._columns = found if {VALIDATORS, self._column} <= found else frozenset[str]()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def kept(self, key: Key) -> Mapping[str, KnownEndpoint]:
        """Return what is known of the endpoints of a key."""
        if not self._columns:
            return _NOTHING
        for (stored,) in self._connection.execute(self._select.format(VALIDATORS), (key,)):
            found = _read(stored)
            return {name: kept for name, kept in found.items() if _body(name) in self._columns}
        return _NOTHING

    def body(self, key: Key, endpoint: str) -> Content:
        """Return the body of an endpoint, as it is stored."""
        for (body,) in self._connection.execute(self._select.format(quoted(_body(endpoint))), (key,)):
            return body if isinstance(body, str | bytes) else None
        return None


def stored(kept: Mapping[str, KnownEndpoint]) -> str | None:
    """Return what is known of endpoints as the text of a column."""
    return json.dumps({name: _parts(each) for name, each in kept.items()}, ensure_ascii=False) if kept else None


def _parts(kept: KnownEndpoint) -> dict[str, Any]:
    parts: dict[str, Any] = {"url": kept.url, "status": kept.status}
    if kept.validators is not None:
        parts |= {"at": kept.validators.at, "etag": kept.validators.etag, "modified": kept.validators.modified}
    return parts


def _read(text: object) -> dict[str, KnownEndpoint]:
    """Return what a column holds; anything that others have put there is as nothing."""
    try:
        found: Any = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    named = cast("dict[str, Any]", found)
    return {name: _kept(cast("dict[str, Any]", parts)) for name, parts in named.items() if isinstance(parts, dict)}


def _kept(parts: dict[str, Any]) -> KnownEndpoint:
    texts = {name: value for name, value in parts.items() if isinstance(value, str)}
    validators = as_validators(texts.get("etag", ""), texts.get("modified", ""), texts.get("at", ""))
    status: object = parts.get("status")
    return KnownEndpoint(texts.get("url", ""), status if isinstance(status, int) else None, validators)


def _body(endpoint: str) -> str:
    return f"{endpoint}_{BODY}"
