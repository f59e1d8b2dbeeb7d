"""Models of services that speak HTTP, on the services' own Python packages.

Of a package are the address, the headers, the request and the connection. The body of the answer is read here
(`penstock.flow.answers`): a package takes a stream that was cut for a short answer. What a package raises holds the key
in its frames, so it is never chained: a failure is a value until nothing of the package is left.
"""

import asyncio
import functools
import json
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final, Self, TypedDict, cast, override

from penstock.core import validate
from penstock.core.adaptive import BUSY
from penstock.core.errors import OptionError
from penstock.core.http_address import http_address
from penstock.core.retry import Seconds
from penstock.core.scope import outlast
from penstock.core.text import a, one_line
from penstock.exports import naming_extras
from penstock.flow.added import CannotBegin
from penstock.flow.answers import MOST, AnswerBody, ModelAnswer, Trouble, refusal, trouble
from penstock.flow.masking import Mask
from penstock.flow.models import AccountError, DeclinedError, Model, ModelError, Reply, TruncatedError
from penstock.flow.secrets import EnvSecret, NoSecret
from penstock.flow.service_limits import LONGEST, FollowedLimits, ServiceLimits
from penstock.flow.steps import refuse_unknown
from penstock.retry_after import retry_after

IDLE: Final = 60.0
_CUT: Final = Trouble("the answer was cut off: it does not say why it ended", transient=True)
_KEPT: Final = 5.0
"""Seconds for which a client is kept that nobody uses, as connections of the package are."""

_loaded: Final[set[str]] = set()
"""The packages that are imported."""

_QUOTED: Final = 300
"""Characters that are quoted of what a service says."""


class ModelOptions(TypedDict, total=False):
    """Options of `OpenAIChat` and `AnthropicMessages`.

    Attributes:
        base_url: the address below which the service is, http or https; None, the default: that of the package.
        stream: ask for the answer in pieces, default True: so `idle` is about a pause, not about the whole answer.
        idle: seconds, > 0; nothing comes for so long: the request has failed. Default 60.
        request: further fields of the request, as `temperature`.
        limits: a mapping from `requests` and `tokens` (of Anthropic also `input_tokens` and `output_tokens`) to the
            `RateLimit` that follows what the headers of the service say of it (`RateLimit.follow`), never above the
            number that it was made with. After a 429, 503 or 529 that says for how long (Retry-After) all are paused,
            and so whoever shares them. To be waited for they stand in `limit=` of the stage or step. Default: none.
    """

    base_url: str | None
    stream: bool
    idle: Seconds
    request: Mapping[str, object]
    limits: ServiceLimits


class Service(Model):
    """A model of a service; its kinds know the package and the wire format."""

    package: str
    """The name of the package, which is the name of the extra, too."""

    client_class: str
    """The name of the class in the package that makes requests."""

    path: str
    """Where the service is asked, below its address."""

    security: Mapping[str, object]
    """What the package wants to be told of how the request proves itself."""

    own_fields: frozenset[str]
    """Fields of a request that are not for `request` to say."""

    limit_headers: Mapping[str, tuple[str, str, str]]
    """The headers that tell limit, remaining and reset, by the names of limits."""

    def __init__(
        self,
        model: str,
        key: EnvSecret | None,
        client: Any,
        options: ModelOptions,
        default_key: EnvSecret,
    ) -> None:
        name = type(self).__name__
        refuse_unknown(f"{name} {model!r}", options, {"key", "client", *ModelOptions.__optional_keys__})
        if key is not None and not isinstance(key, EnvSecret):  # pyright: ignore[reportUnnecessaryIsInstance] -- of unchecked callers
            kind = type(key).__name__  # not its value: it may be the key
            raise OptionError(f"key must be secret(NAME) or None, got {a(kind)}")
        if client is not None:
            given: list[str] = [option for option in ("base_url", "idle") if option in options]
            given += ["key"] if key != default_key else []
            if given:
                raise OptionError(f"{given[0]} must not be given with client, which has its own")
        self._model = validate.text("model", model)
        self._key = key
        self._client = client
        base_url = options.get("base_url")
        self._base_url = None if base_url is None else http_address("base_url", base_url)
        self._stream = validate.flag("stream", options.get("stream", True))
        self._idle = None if client is not None else validate.seconds("idle", options.get("idle", IDLE))
        self._request = self._checked_request(options.get("request", {}))
        self._clients = _Clients()
        self._following = FollowedLimits(options.get("limits", {}), self.limit_headers)

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model!r})"

    @property
    def model(self) -> str:
        """The name of the model."""
        return self._model

    def following(self, limits: ServiceLimits) -> Self:
        """Return the same model with these limits.

        Raises:
            OptionError: it has some already, or these break their rule.
        """
        if self._following.has_any:
            raise OptionError(f"model must have no limits of its own here, got {self!r} with some: say rate and tokens")
        other = copy(self)
        other._following = FollowedLimits(limits, self.limit_headers)  # noqa: SLF001 -- it is one of these
        return other

    def code(self) -> object:
        """Return what answers depend on, made of JSON-like values."""
        fields = json.dumps(self._request, sort_keys=True, default=repr)
        return [type(self).__name__, self._model, self._base_url, fields]

    async def load(self) -> None:
        """Import the package in a thread, once: it takes seconds.

        Raises:
            ModuleNotFoundError: it is not there.
        """
        if self.package in _loaded:
            return
        loading = asyncio.get_running_loop().run_in_executor(None, self._import_all)
        await outlast(loading)
        loading.result()
        _loaded.add(self.package)

    def check(self) -> None:
        """Raise `CannotBegin` if the key is not there, and `ModuleNotFoundError` if the package is not."""
        self._import()
        self._secret()

    @override
    async def ask(self, prompt: str, /, *, system: str | None = None, max_tokens: int = 4096) -> Reply:
        """Return the answer to `prompt`, of at most `max_tokens` tokens, an int >= 1, after the message `system`.

        Raises:
            OptionError: an argument breaks its rule.
            ModelError: there is no answer, or only a part of one.
            ModuleNotFoundError: the package of the service is missing.
            WrongLoopError: one of its limits belongs to another event loop.
        """
        validate.instance("prompt", prompt, str, "a str")
        most = validate.whole("max_tokens", max_tokens, least=1)
        self._following.bind()
        await self.load()
        package = self._import()
        try:
            given = await self._given(package, prompt, system, most)
        except BaseException as error:  # noqa: BLE001 -- a cancellation: frames of the package hold the key
            error.__context__ = error.__cause__ = None
            raise error.with_traceback(None)  # noqa: B904 -- nothing is behind it any more
        if isinstance(given, ModelError | CannotBegin):
            raise given
        return given

    # Of one service

    @abstractmethod
    def answer(self) -> ModelAnswer:
        """Return an answer of which nothing has been said."""

    @abstractmethod
    def fields(self, prompt: str, system: str | None, max_tokens: int) -> dict[str, object]:
        """Return the fields of a request, without those of `request` and `stream`."""

    # One request

    async def _given(
        self, package: Any, prompt: str, system: str | None, max_tokens: int
    ) -> Reply | ModelError | CannotBegin:
        try:
            key = self._secret()
        except CannotBegin as error:
            return error
        mask = Mask([key or "", *(_keys_of(self._client) if self._client is not None else ())])
        fields = self.fields(prompt, system, max_tokens) | {"stream": self._stream, **self._request}
        answer = self.answer()
        failure = await self._exchange(package, key, fields, answer)
        reply = answer.reply()
        if reply is not None:
            reply = replace(reply, text=mask.text(reply.text), stop=mask.text(reply.stop))
        if failure is None and answer.trouble is not None:
            failure = _FailedRequest(answer.trouble, answer.status)
        if failure is None and not answer.is_whole():
            failure = _FailedRequest(_CUT, HTTPStatus.OK)
        if failure is not None:
            return failure.error(self._model, mask, reply)
        assert reply is not None
        if answer.is_truncated():
            message = f"model {self._model!r}: the answer was cut off at max_tokens={max_tokens} ({reply.stop})"
            return TruncatedError(message, status=answer.status, kind=reply.stop, reply=reply)
        if (declined := answer.declined()) is not None:
            said = f": {one_line(reply.text, _QUOTED)}" if reply.text else ""
            message = f"model {self._model!r}: it declines to answer ({declined}){said}"
            return DeclinedError(message, status=answer.status, kind=declined, reply=reply)
        return reply

    async def _exchange(
        self, package: Any, key: str | None, fields: Mapping[str, object], answer: ModelAnswer
    ) -> "_FailedRequest | None":
        """Make the request and read the answer; what went wrong, if anything did."""
        import httpx2  # noqa: PLC0415 -- comes with the packages, and is slow

        try:
            if self._client is not None:
                await self._read(self._client, fields, {}, answer, httpx2)
                return None
            async with self._clients.lend(key, lambda: self._made_client(package, httpx2, key)) as client:
                absent: object = package.Omit()
                headers = {} if key is not None else {"Authorization": absent, "X-Api-Key": absent}
                await self._read(client, fields, headers, answer, httpx2)
        except Exception as error:  # noqa: BLE001 -- of the package and what is below it: the user's code is not in here
            return self._failure(error, package, httpx2, answer)
        return None

    def _failure(self, error: Exception, package: Any, httpx: Any, answer: ModelAnswer) -> "_FailedRequest":
        """Return what an exception means that came of a request."""
        if isinstance(error, package.APIStatusError):
            return self._refusal(error)
        cause = error.__cause__ if isinstance(error, package.APIConnectionError) and error.__cause__ else error
        if type(error) is TimeoutError:
            cut = "the answer was cut off: " if answer.reply() is not None else ""
            why = Trouble(f"{cut}nothing came for idle={self._idle:g} s", transient=True)
        elif isinstance(error, package.APITimeoutError) or isinstance(cause, httpx.TimeoutException):
            why = Trouble("the service was silent for longer than its client allows", transient=True)
        elif isinstance(error, package.APIConnectionError):
            broke = isinstance(cause, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError)
            why = Trouble(f"{'the connection broke' if broke else 'no connection'}: {_said(cause)}", transient=True)
        elif isinstance(error, httpx.TransportError):
            why = Trouble(f"the answer was cut off: {_said(error)}", transient=True)
        else:
            why = Trouble(f"the request could not be made: {_said(error)}")
        return _FailedRequest(answer.trouble or why, answer.status)

    def _refusal(self, error: Any) -> "_FailedRequest":
        """Return what a status of 4xx or 5xx means; have the limits follow what it says."""
        status, headers = int(error.status_code), cast("Mapping[str, str]", error.response.headers)
        words = ""
        with suppress(Exception):  # the body may be of no encoding
            words = str(error.response.text)
        body: object = None
        with suppress(ValueError, RecursionError):
            body = json.loads(words)
        why = refusal(status, trouble(body, "" if isinstance(body, dict) else words))
        wait = retry_after(headers, datetime.now(UTC))
        wait = None if wait is None else min(wait, LONGEST)
        if not why.of_account:
            self._following.follow(headers)
            if wait is not None and status in BUSY:
                self._following.pause(wait)
        return _FailedRequest(why, status, wait=wait)

    async def _read(
        self, client: Any, fields: Mapping[str, object], headers: Mapping[str, object], answer: ModelAnswer, httpx: Any
    ) -> None:
        """Make the request as the package makes those that it has no method for: it reads and checks no answer then."""
        client._platform = "Unknown"  # noqa: SLF001 -- else each client looks it up in a thread of its own
        body = AnswerBody(answer)
        options = {"headers": headers, "max_retries": 0, **self.security}
        async with asyncio.timeout(self._idle):
            response = await client.post(
                self.path, cast_to=httpx.Response, body=fields, options=options, stream=True, stream_cls=None
            )
        answer.status = int(response.status_code)
        self._following.follow(response.headers)
        pieces: AsyncIterator[bytes] = response.aiter_bytes()
        try:
            while True:
                async with asyncio.timeout(self._idle):
                    piece = await anext(pieces, None)
                if piece is None or not body.feed(piece):
                    break
        finally:
            body.end()
            await response.aclose()
            await _run_out(pieces)

    # What it needs

    def _made_client(self, package: Any, httpx: Any, key: str | None) -> Any:
        make = getattr(package, self.client_class)
        return make(
            api_key=key or "none",
            base_url=self._base_url,
            max_retries=0,
            timeout=None,
            http_client=http_client(httpx),
        )

    def _import(self) -> Any:
        with naming_extras(type(self).__name__, dict.fromkeys((self.package, "httpx2"), self.package)):
            return __import__(self.package)

    def _import_all(self) -> None:
        self._import()
        __import__("httpx2")
        _tls()

    def _secret(self) -> str | None:
        if self._key is None or self._client is not None:
            return None
        key = self._key.reveal().strip()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            del key
            raise NoSecret(f"the secret {self._key.name!r} must be printable ASCII without spaces")
        return key

    def _checked_request(self, request: object) -> dict[str, object]:
        if not isinstance(request, Mapping):
            raise OptionError(f"request must be a mapping of fields, got {request!r}")
        fields = dict(cast("Mapping[object, object]", request))
        for name in fields:
            if not isinstance(name, str) or name in self.own_fields:
                raise OptionError(f"request must not have the field {name!r}: it is said otherwise")
        return cast("dict[str, object]", fields)


class _Clients:
    """The clients that requests use, one at a time each: kept while requests overlap, closed with the last.

    So no connection outlives the requests, and a thousand of them make no thousand handshakes. A client has one
    connection: a pool of the package looks at all that it has for each request, and asks the system about those that
    are idle. With 200 that took more time than the request.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[asyncio.AbstractEventLoop, str | None], _Lent] = {}

    @asynccontextmanager
    async def lend(self, key: str | None, make: Callable[[], Any]) -> AsyncGenerator[Any]:
        """Give a client with that key that nobody uses, the one that was used last; one is made, if there is none."""
        place = asyncio.get_running_loop(), key
        found = self._open.get(place)
        client = found.free.pop()[0] if found is not None and found.free else make()
        lent = self._open.setdefault(place, _Lent())
        lent.users += 1
        try:
            yield client
        finally:
            lent.users -= 1
            now = place[0].time()
            lent.free.append((client, now))
            if not lent.users:
                del self._open[place]
                await _close_all(lent.free)
            elif now - lent.free[0][1] > _KEPT:
                await _close_all([lent.free.popleft()])


class _Lent:
    """How many use a client, and the clients that nobody uses: each with the time since when, the oldest first."""

    __slots__ = ("free", "users")

    def __init__(self) -> None:
        self.free: deque[tuple[Any, float]] = deque()
        self.users = 0


async def _close_all(clients: Iterable[tuple[Any, float]]) -> None:
    """Close clients, whatever cancellation comes meanwhile; one that breaks then is no failure of a request."""
    cancelled: asyncio.CancelledError | None = None
    for client, _ in clients:
        try:
            with suppress(Exception):
                await client.close()
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


class _FailedRequest:
    """Why a request has failed, as a value: raised where it was found, it would carry the key."""

    def __init__(self, why: Trouble, status: int | None = None, *, wait: float | None = None) -> None:
        self._why = why
        self._status = status
        self._wait = wait

    def error(self, model: str, mask: Mask, reply: Reply | None) -> ModelError:
        """Return the error that tells it, without secrets."""
        why = self._why
        reason = one_line(" ".join(mask.text(why.reason).split()), _QUOTED)
        return (AccountError if why.of_account else ModelError)(
            f"model {model!r}: {reason}",
            transient=why.transient,
            retry_after=self._wait,
            status=None if self._status is None else int(self._status),
            kind=None if why.kind is None else one_line(mask.text(why.kind), 100),
            reply=reply,
        )


def http_client(httpx: Any) -> Any:
    """Make a client that follows nobody elsewhere, reads no endless bodies, and leaves times to us."""

    async def bounded(response: Any) -> None:
        if not response.is_success:  # the package reads it; of the others we count what we read
            response.stream = _bounded_stream(httpx)(response.stream)

    return httpx.AsyncClient(
        verify=_tls(),
        timeout=None,
        follow_redirects=False,
        event_hooks={"response": [bounded]},
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
    )


@functools.cache
def _bounded_stream(httpx: Any) -> Any:
    class Bounded(httpx.AsyncByteStream):  # type: ignore[misc]  # imported when it is needed
        """A body, as far as `MOST` bytes."""

        def __init__(self, stream: Any) -> None:
            self._stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            pieces = aiter(self._stream)
            async for piece in pieces:
                size += len(piece)
                if size > MOST:
                    await self._stream.aclose()
                    await _run_out(pieces)
                    raise httpx.ReadError(f"the body is longer than {MOST:,} bytes")
                yield piece

        async def aclose(self) -> None:
            await self._stream.aclose()

    return Bounded


async def _run_out(pieces: AsyncIterator[bytes]) -> None:
    """Let the generators of a closed response come to their ends: nobody else closes those that they stand on."""
    with suppress(Exception):
        async for _ in pieces:
            pass


@functools.cache
def _tls() -> Any:
    """Return the certificates that are trusted: to read them takes longer than all else of a client."""
    import ssl  # noqa: PLC0415 -- as above

    return ssl.create_default_context()


def _keys_of(client: Any) -> list[str]:
    """Return the keys that a client of the user has."""
    found = [getattr(client, name, None) for name in ("api_key", "auth_token", "admin_api_key")]
    return [key for key in found if isinstance(key, str)]


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
