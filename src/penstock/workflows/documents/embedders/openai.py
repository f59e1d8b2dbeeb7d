"""Vectors from any server that speaks OpenAI's `/v1/embeddings`."""

import asyncio
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import batched
from types import TracebackType
from typing import Literal, Self, override

import httpx
import numpy as np

from penstock.core import validate
from penstock.core.errors import AttemptTimeout, OptionError
from penstock.core.http_address import http_address
from penstock.core.retry import Retry, Seconds
from penstock.core.text import one_line
from penstock.functions import stream
from penstock.workflows import http_body as body
from penstock.workflows.documents.embedders import EmbedError, Vectors, wire
from penstock.workflows.secret import Secret, Unchecked

BASE_URL = "https://api.openai.com/v1"
_CONNECT = 10.0
"""Seconds for making a connection, out of the seconds for the whole."""

_PROBE = "penstock"


def transient(error: BaseException) -> bool:
    """Whether a request may do better when it is tried again: throttled, timed out, cut off, 5xx, no connection."""
    return isinstance(error, AttemptTimeout) or (isinstance(error, EmbedError) and error.transient)


def _asked_for(error: BaseException) -> float | None:
    return error.retry_after if isinstance(error, EmbedError) else None


def _again_as_asked(error: BaseException) -> bool:
    return transient(error) and _asked_for(error) is not None


RETRY = Retry(on=transient, attempts=5, initial=0.5)


class OpenAIEmbedder:
    """Vectors from `POST base_url/embeddings`; its name in an index is `openai:MODEL`.

    Entered (`async with`), it keeps its connections; on entering it embeds one text to learn the dimensions, so a wrong
    key, model or address fails before anything is done. Not entered, it connects for each call. It may be used on one
    loop at a time. The key appears in no message, repr, log or index.

    Args:
        model: the model's name, as the server knows it.
        base_url: the address up to and without `/embeddings`: http or https, without user, query and fragment.
        key: sent as a bearer token; None or an empty one is not sent.
        dimensions: the length of vectors to ask for, an int >= 1; default that of the model.
        batch: texts per request, an int >= 1.
        timeout: seconds that one attempt may take, > 0.
        retry: when a request is tried again, and how often; without a `wait` of its own it waits as long as the server
            asks (Retry-After), 60 s at most. Default: five attempts, for what is `transient`.
        encoding: how vectors are asked for; "base64" is a quarter as long as "float" and quicker to read. Either is
            understood, whatever was asked for.

    Raises:
        OptionError: an argument breaks its rule.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str = BASE_URL,
        key: str | Secret | None = None,
        dimensions: int | None = None,
        batch: int = 64,
        timeout: Seconds = 60.0,
        retry: Retry = RETRY,
        encoding: Literal["base64", "float"] = "base64",
    ) -> None:
        secret = Unchecked(key)
        del key  # the frame of an error may be shown
        self._model = validate.text("model", model)
        self._url = f"{http_address('base_url', base_url).rstrip('/')}/embeddings"
        try:
            httpx.URL(self._url)
        except httpx.InvalidURL as error:
            raise OptionError(f"base_url must be the address of a host, got {one_line(base_url)!r}: {error}") from None
        self._key = secret.checked()
        self._asked = None if dimensions is None else validate.whole("dimensions", dimensions, least=1)
        self._batch = validate.whole("batch", batch, least=1)
        self._timeout = validate.seconds("timeout", timeout)
        validate.instance("retry", retry, Retry, "a Retry")
        self._retry = retry if retry.wait else replace(retry, wait=_asked_for)
        self._as_asked = replace(self._retry, on=_again_as_asked)
        self._encoding = validate.one_of("encoding", encoding, ("base64", "float"))
        self._dimensions = self._asked
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._users = 0
        self._proven = False

    def __repr__(self) -> str:
        return f"OpenAIEmbedder({self._model!r}, base_url={self._url.removesuffix('/embeddings')!r})"

    @property
    def name(self) -> str:
        """`openai:MODEL`: not the address, which may change without the vectors."""
        return f"openai:{self._model}"

    @property
    def batch(self) -> int:
        """Texts per request."""
        return self._batch

    @property
    def dimensions(self) -> int | None:
        """The length of a vector; None before the first one, if none was asked for."""
        return self._dimensions

    async def __aenter__(self) -> Self:
        self._connect()
        try:
            if not self._proven:
                await self._embed((_PROBE,), self._retry)
        except BaseException:
            await self._disconnect()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._disconnect()

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one row per text.

        Raises:
            EmbedError: the server refused these texts, or its answers were no vectors, and no attempt was left.
            EmbedderUnavailableError: it would refuse others as well, or is not there.
        """
        return await self._connected(texts, self._retry)

    async def embed_once(self, texts: Sequence[str]) -> Vectors:
        """Return one row per text; retry only if the server asks for it (Retry-After): the texts may be at fault."""
        return await self._connected(texts, self._as_asked)

    async def _connected(self, texts: Sequence[str], retry: Retry) -> Vectors:
        self._connect()
        try:
            return await self._embed(texts, retry)
        finally:
            await self._disconnect()

    async def _embed(self, texts: Sequence[str], retry: Retry) -> Vectors:
        """Send the batches one after the other: with many documents, other requests are under way."""
        requests = stream(batched(texts, self._batch)).map(
            self._request, name="request", retry=retry, timeout=self._timeout
        )
        try:
            rows = await requests.to_list()
        except AttemptTimeout:
            rows = None
        if rows is None:  # out here, so that no traceback keeps what was sent
            raise EmbedError(f"{self._url}: no answer within {self._timeout:g} s", transient=True)
        return np.concatenate(rows) if rows else np.empty((0, self._dimensions or 0), np.float32)

    async def _request(self, texts: Sequence[str]) -> Vectors:
        try:
            given = await self._answer(texts)
        except BaseException as error:  # noqa: BLE001 -- a cancellation: frames of httpx hold what is sent, the key in it
            error.__context__ = error.__cause__ = None
            raise error.with_traceback(None)  # noqa: B904 -- nothing is behind it any more
        if isinstance(given, EmbedError):
            raise given
        self._dimensions, self._proven = given.shape[1], True
        return given

    async def _answer(self, texts: Sequence[str]) -> Vectors | EmbedError:
        """Return the vectors, or an error to be raised where nothing refers to what was sent."""
        given = await self._sent(texts)
        if not isinstance(given, wire.Refusal) and given.shape[1] != (self._dimensions or given.shape[1]):
            reason = f"embeddings of {given.shape[1]} dimensions came back, not of {self._dimensions}"
            given = wire.Refusal(reason, unavailable=True)
        return given.error(self._url, self._key) if isinstance(given, wire.Refusal) else given

    async def _sent(self, texts: Sequence[str]) -> Vectors | wire.Refusal:
        assert self._client is not None
        content = wire.request(self._model, texts, self._asked, self._encoding)
        request = self._client.build_request("POST", self._url, content=content)
        request.stream = _Body(content)
        try:
            response = await self._client.send(request, stream=True)
            limit = wire.most(response.status_code, len(texts), self._dimensions)
            given = await _body(response, limit)
        except (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError) as error:
            if not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                return wire.Refusal(f"the connection broke: {_said(error)}", transient=True)
            return wire.Refusal(f"no connection: {_said(error)}", transient=True, unavailable=True)
        except (httpx.ProxyError, httpx.UnsupportedProtocol) as error:
            return wire.Refusal(f"no connection: {_said(error)}", transient=True, unavailable=True)
        except Exception as error:  # noqa: BLE001 -- of ssl, idna and the parsers below: the user's code is not in here
            return wire.Refusal(f"no answer: {_said(error)}", unavailable=True)
        return wire.answer(response.status_code, response.headers, given, len(texts), limit)

    def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        if self._client is None:
            client = self._new_client()
            if isinstance(client, EmbedError):
                raise client
            self._client, self._loop = client, loop
        elif self._loop is not loop:
            raise RuntimeError(f"{self!r} is in use on another loop")
        self._users += 1

    def _new_client(self) -> httpx.AsyncClient | EmbedError:
        headers = {"Content-Type": "application/json", "Accept-Encoding": body.CODINGS}
        timeout = httpx.Timeout(None, connect=min(self._timeout, _CONNECT))
        try:
            return httpx.AsyncClient(headers=headers, timeout=timeout, auth=_Bearer(self._key))
        except Exception as error:  # noqa: BLE001 -- what the environment says of proxies and certificates is wrong
            reason = f"no connection can be made as the environment asks: {_said(error)}"
            return wire.Refusal(reason, unavailable=True).error(self._url, self._key)

    async def _disconnect(self) -> None:
        self._users -= 1
        client = self._client
        if client is not None and not self._users:
            self._client = self._loop = None
            await client.aclose()


class _Body(httpx.AsyncByteStream):
    """A body, to be sent once. httpx's own stream is an async generator, which a cancelled request leaves open."""

    def __init__(self, content: bytes) -> None:
        self._rest = [content]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._rest:
            raise StopAsyncIteration
        return self._rest.pop()


class _Bearer(httpx.Auth):
    """Adds the key to a request as it is sent, so that no headers of the client hold it, which may be shown."""

    def __init__(self, key: Secret | None) -> None:
        self._key = key

    @override
    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key.reveal()}"
        yield request


async def _body(response: httpx.Response, limit: int) -> bytes | wire.Refusal:
    sent = response.aiter_raw()
    try:
        return await body.read(sent, response.headers.get("content-encoding", ""), limit)
    except body.CodingError as error:
        return wire.Refusal(f"the answer cannot be read: {error}")
    finally:
        await response.aclose()
        with suppress(httpx.HTTPError, httpx.StreamError):  # httpx closes its generators only at their own ends
            async for _ in sent:
                pass


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
