"""Asks servers: redirects, sizes, times and addresses are bounded, and what is secret goes to nobody else."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, cast

import httpcore
import httpx

from penstock.core.text import one_line
from penstock.retry_after import retry_after
from penstock.workflows import http_body
from penstock.workflows.fetching.addresses import CheckedConnections, PrivateAddressError, Resolve, resolved
from penstock.workflows.fetching.responses import Fetched, Validators, answer, phrase, validators
from penstock.workflows.fetching.urls import Url, UrlError
from penstock.workflows.secret import Secret

LONGEST_WAIT: Final = 60.0
"""Seconds; a server that asks for more is asked again after these."""

_AGAIN: Final = frozenset((408, 425, 429, 500, 502, 503, 504, 529))
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_NOT_MODIFIED: Final = 304
_GOOD: Final = range(200, 300)

_CONNECT: Final = 10.0
"""Seconds for making a connection, out of the seconds for the whole."""

_REST: Final = 1 << 16
"""Bytes that are read of a body that nobody wants, so that its connection can be used again."""

_OPEN_TO_ALL: Final = frozenset(("accept", "accept-language", "user-agent"))
"""Headers of the user that also go where a redirect leads."""

_OWN: Final = (("User-Agent", "penstock"), ("Accept", "application/json, text/*;q=0.9, */*;q=0.8"))

_BROKEN: Final = (
    (http_body.CodingError, "the body cannot be read"),
    ((httpcore.ConnectError, httpcore.ConnectTimeout), "no connection"),
    ((httpcore.NetworkError, httpcore.TimeoutException, httpcore.RemoteProtocolError), "the connection broke"),
)
"""Errors after which a further request may do better, and what they mean."""

_CODING: Final = re.compile(r"'(br|zstd|compress|lz4|xz|bzip2|gzip, gzip)'")
_SAID: Final = 200
"""Characters of an error that are told."""


class Client:
    """Makes requests, each of them within `timeout` seconds from the first name to the last byte.

    It may be entered on one loop at a time; the connections are closed at the end of the block.
    """

    def __init__(
        self,
        *,
        timeout: float,
        max_bytes: int,
        max_redirects: int,
        allow_private: bool,
        headers: Mapping[str, Secret],
        connections: int,
        resolve: Resolve = resolved,
    ) -> None:
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._max_redirects = max_redirects
        self._headers = headers
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=None,
            max_keepalive_connections=connections,
            keepalive_expiry=15.0,
            network_backend=CheckedConnections(allow_private=allow_private, resolve=resolve),
        )

    async def aclose(self) -> None:
        """Close its connections."""
        await self._pool.aclose()

    async def get(self, place: Url, known: Validators | None = None) -> Fetched:
        """Ask once for what is at a place; with what is `known` of it, only for what is new."""
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                return await self._followed(place, known)
        except TimeoutError:
            if not limit.expired():
                raise
            return Fetched(error=f"no whole answer within {self._timeout:g} s", again=True)
        except BaseException as error:  # noqa: BLE001 -- a cancellation: the frames behind it hold what is sent
            error.__context__ = error.__cause__ = None
            raise error.with_traceback(None)  # noqa: B904 -- nothing is behind it any more

    async def _followed(self, place: Url, known: Validators | None) -> Fetched:
        first = place
        for _ in range(self._max_redirects + 1):
            found = await self._asked(place, first, known)
            if isinstance(found, Fetched):
                return found
            place = found
        return Fetched(error=f"more than {self._max_redirects} redirects")

    async def _asked(self, place: Url, first: Url, known: Validators | None) -> Fetched | Url:
        """Return the answer of one server, or the place to which it leads."""
        asked = known if known is not None and known.at == place.digest else None
        scheme, host, port, target = place.parts
        request = httpcore.Request(
            b"GET",
            httpcore.URL(scheme=scheme, host=host, port=port, target=target),
            headers=self._headers_for(place, first, asked),
            extensions={"timeout": {"connect": min(self._timeout, _CONNECT)}},
        )
        try:
            response = await self._pool.handle_async_request(request)
            sent = aiter(cast("AsyncIterator[bytes]", response.stream))
            try:
                return await self._read(response, sent, place, asked)
            finally:
                await response.aclose()
                with suppress(Exception):  # httpcore closes its generators only at their own ends
                    async for _ in sent:
                        pass
        except Exception as error:  # noqa: BLE001 -- of ssl, idna and parsers, too: the user's code is not in here
            return _failed(error, place)

    def _headers_for(self, place: Url, first: Url, asked: Validators | None) -> list[tuple[bytes, bytes]]:
        told = place.may_be_told(first)
        own = {name.lower(): (name, value) for name, value in _OWN}
        for name, value in self._headers.items():
            if told or name.lower() in _OPEN_TO_ALL:
                own[name.lower()] = (name, value.reveal())
        headers = [(b"Host", place.host_header), (b"Accept-Encoding", http_body.CODINGS.encode())]
        headers += [(name.encode("ascii"), value.encode("ascii")) for name, value in own.values()]
        if asked is not None:
            headers += [(name.encode("ascii"), value.encode("ascii")) for name, value in asked.headers.items()]
        credentials = place.credentials or (first.credentials if told else None)
        if credentials is not None and "authorization" not in own:
            headers.append((b"Authorization", credentials))
        return headers

    async def _read(
        self, response: httpcore.Response, sent: AsyncIterator[bytes], place: Url, asked: Validators | None
    ) -> Fetched | Url:
        status = response.status
        headers = _first_of_each(response.headers)
        if status in _GOOD:
            content = await http_body.read(sent, headers.get("content-encoding", ""), self._max_bytes)
            if len(content) > self._max_bytes:
                return Fetched(status, f"the body is longer than {self._max_bytes:,} bytes (max_bytes)")
            return answer(status, content, headers.get("content-type", ""), validators(headers, place.digest))
        await _pass_over(sent)
        if status == _NOT_MODIFIED:
            if asked is None:
                return Fetched(status, "304 Not Modified, though nothing was known")
            return Fetched(status, validators=asked)
        if status in _REDIRECTS and "location" in headers:
            return place.leading_to(headers["location"])
        wait = retry_after(headers, datetime.now(UTC))
        return Fetched(
            status,
            phrase(status),
            again=status in _AGAIN,
            retry_after=None if wait is None else min(wait, LONGEST_WAIT),
        )


async def _pass_over(sent: AsyncIterator[bytes]) -> None:
    """Read a body that nobody wants, if it is short."""
    came = 0
    async for chunk in sent:
        came += len(chunk)
        if came > _REST:
            return


def _first_of_each(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in reversed(headers)}


def _failed(error: Exception, place: Url) -> Fetched:
    """Return the answer that stands for an error."""
    if isinstance(error, PrivateAddressError):
        return Fetched(
            error=f"{place.host} is at a private address, which is refused without allow_private (--allow-private)"
        )
    if isinstance(error, UrlError):
        return Fetched(error=str(error))
    for kinds, words in _BROKEN:
        if isinstance(error, kinds):
            return Fetched(error=f"{words}: {_said(error)}", again=True)
    return Fetched(error=f"no answer: {type(error).__name__}")


def _said(error: Exception) -> str:
    """Return what an error says, without anything that a server has sent: it may repeat what it was told."""
    text = str(error) or type(error).__name__
    if isinstance(error, httpcore.RemoteProtocolError):
        text = text.partition(":")[0].partition("b'")[0].rstrip("( ")
    if isinstance(error, http_body.CodingError) and _CODING.search(text) is None:
        text = "the coding is none that was asked for" if "'" in text else text
    return one_line(text, _SAID)
