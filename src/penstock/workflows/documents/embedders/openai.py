"""Vectors from any server that speaks OpenAI's `/v1/embeddings`."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import batched
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

import httpx
import numpy as np

from penstock.core import validate
from penstock.core.errors import AttemptTimeout, OptionError
from penstock.core.retry import Retry, Seconds
from penstock.functions import stream
from penstock.workflows.documents.embedders import EmbedError, Vectors, wire
from penstock.workflows.secret import Secret

BASE_URL = "https://api.openai.com/v1"
_CONNECT = 10.0
"""Seconds for making a connection, of the seconds for the whole."""

_PROBE = "penstock"


def transient(error: BaseException) -> bool:
    """Whether a request may do better when it is tried again: throttled, timed out, cut off, 5xx, no connection."""
    return isinstance(error, AttemptTimeout) or (isinstance(error, EmbedError) and error.transient)


def _asked_for(error: BaseException) -> float | None:
    return error.retry_after if isinstance(error, EmbedError) else None


RETRY = Retry(on=transient, attempts=5, initial=0.5)


class OpenAIEmbedder:
    """Vectors from `POST base_url/embeddings`; its name in an index is `openai:MODEL`.

    Entered (`async with`), it keeps its connections, and has embedded one text to see that it can and to learn the
    dimensions: so a wrong key, model or address is told before anything is done. Not entered, it connects for each
    call. It may be used on one loop at a time. The key stands in no message, repr or log, and in no index.

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
        self._key = Secret.of(key)
        del key  # the frame of an error may be shown
        self._model = validate.text("model", model)
        self._url = f"{_checked(base_url)}/embeddings"
        self._asked = None if dimensions is None else validate.whole("dimensions", dimensions, least=1)
        self._batch = validate.whole("batch", batch, least=1)
        self._timeout = validate.seconds("timeout", timeout)
        validate.instance("retry", retry, Retry, "a Retry")
        self._retry = retry if retry.wait else replace(retry, wait=_asked_for)
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
                await self._embed((_PROBE,))
        except BaseException:
            await self._disconnect()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._disconnect()

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One row per text.

        Raises:
            EmbedError: the server refused these texts, or its answers were no vectors, and no attempt was left.
            EmbedderUnavailableError: it would refuse others as well, or is not there.
        """
        self._connect()
        try:
            return await self._embed(texts)
        finally:
            await self._disconnect()

    async def _embed(self, texts: Sequence[str]) -> Vectors:
        """The batches one after the other: who embeds many documents has other requests on the way."""
        requests = stream(batched(texts, self._batch)).map(
            self._request, name="request", retry=self._retry, timeout=self._timeout
        )
        try:
            rows = await requests.to_list()
        except AttemptTimeout:
            rows = None
        if rows is None:  # out here, so that no traceback keeps what was sent
            raise EmbedError(f"{self._url}: no answer within {self._timeout:g} s", transient=True)
        return np.concatenate(rows) if rows else np.empty((0, self._dimensions or 0), np.float32)

    async def _request(self, texts: Sequence[str]) -> Vectors:
        given = await self._answer(texts)
        if not isinstance(given, wire.Refusal) and given.shape[1] != (self._dimensions or given.shape[1]):
            reason = f"embeddings of {given.shape[1]} dimensions came back, not of {self._dimensions}"
            given = wire.Refusal(reason, unavailable=True)
        if isinstance(given, wire.Refusal):
            raise given.error(self._url, self._key)
        self._dimensions, self._proven = given.shape[1], True
        return given

    async def _answer(self, texts: Sequence[str]) -> Vectors | wire.Refusal:
        assert self._client is not None
        content = wire.request(self._model, texts, self._asked, self._encoding)
        request = self._client.build_request("POST", self._url, content=content)
        request.stream = _Body(content)
        try:
            response = await self._client.send(request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
            return wire.Refusal(f"no connection: {_said(error)}", transient=True, unavailable=True)
        except httpx.DecodingError as error:
            return wire.Refusal(f"the answer cannot be read: {_said(error)}")
        except httpx.RequestError as error:
            return wire.Refusal(f"the connection broke: {_said(error)}", transient=True)
        return wire.answer(response.status_code, response.headers, response.content, len(texts))

    def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        if self._client is None:
            headers = {"Content-Type": "application/json"}
            if self._key is not None:
                headers["Authorization"] = f"Bearer {self._key.reveal()}"
            timeout = httpx.Timeout(None, connect=min(self._timeout, _CONNECT))
            self._client, self._loop = httpx.AsyncClient(headers=headers, timeout=timeout), loop
        elif self._loop is not loop:
            raise RuntimeError(f"{self!r} is in use on another loop")
        self._users += 1

    async def _disconnect(self) -> None:
        self._users -= 1
        client = self._client
        if client is not None and not self._users:
            self._client = self._loop = None
            await client.aclose()


class _Body(httpx.AsyncByteStream):
    """What is sent, once. The stream of httpx is an async generator, left open when sending it is cancelled."""

    def __init__(self, content: bytes) -> None:
        self._rest = [content]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._rest:
            raise StopAsyncIteration
        return self._rest.pop()


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _checked(base_url: str) -> str:
    """`base_url` without a slash at its end; a refused one is not shown where it may hold a password."""
    rule = "base_url must be an http or https address without user, query and fragment"
    try:
        parts = urlsplit(validate.text("base_url", base_url))
        valid = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or True)
    except ValueError:
        raise OptionError(f"{rule}, got {base_url!r}") from None
    if parts.username is not None or parts.query or parts.fragment:
        raise OptionError(f"{rule}, got one with them for {parts.hostname}")
    if not valid:
        raise OptionError(f"{rule}, got {base_url!r}")
    return base_url.rstrip("/")
