"""Fetches the endpoints of rows, many at once, and makes one record of those of a key."""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Final, Self, cast, override

from penstock.core import validate
from penstock.core.errors import OptionError, PenstockError
from penstock.core.limiter import Limiter
from penstock.core.rate_limit import RateLimit
from penstock.core.retry import Retry, Seconds
from penstock.core.text import named
from penstock.flow.streaming_pipeline import StreamingPipeline
from penstock.streams import Stream
from penstock.workflows.fetching.addresses import Resolve, resolved
from penstock.workflows.fetching.fetch_report import LISTED, FetchFailure
from penstock.workflows.fetching.former import Former, KnownEndpoint, NoFormer, stored
from penstock.workflows.fetching.http_client import Client
from penstock.workflows.fetching.responses import Content, Fetched
from penstock.workflows.fetching.url_file import BODY, ERROR, STATUS, VALIDATORS, FetchRow
from penstock.workflows.fetching.urls import Url, UrlError
from penstock.workflows.rates import number_and_time
from penstock.workflows.secret import Secret

type FetchRecord = dict[str, Any]
"""A key, and for each of its endpoints the status, the body and the error."""

_OF_THE_CLIENT: Final = range(400, 500)
_REFUSED_HEADERS: Final = frozenset(
    (
        *("host", "content-length", "transfer-encoding", "connection", "accept-encoding", "te", "upgrade", "expect"),
        *("if-none-match", "if-modified-since", "if-match", "if-unmodified-since", "if-range", "range"),
    )
)
_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class FetchError(PenstockError):
    """An endpoint, or all endpoints of a key, could not be fetched; the message shows no URL."""

    def __init__(self, said: str, retry_after: float | None = None) -> None:
        super().__init__(said)
        self.retry_after: float | None = retry_after


@dataclass(slots=True, eq=False)
class _Gathered:
    """What has come of the endpoints of a row until now."""

    row: FetchRow
    kept: Mapping[str, KnownEndpoint]
    left: int
    answers: dict[str, Fetched] = field(default_factory=dict[str, Fetched])


@dataclass(slots=True, eq=False)
class _Endpoint:
    """One URL to be fetched.

    Attributes:
        of: where its answer is gathered.
        name: of the endpoint.
        place: the URL; why there is none, as an answer.
        kept: what is known of this URL.
        tries: how often it was asked.
    """

    of: _Gathered
    name: str
    place: Url | Fetched
    kept: KnownEndpoint | None
    tries: int = 0

    @override
    def __repr__(self) -> str:
        return f"<endpoint {named(self.name)} of key {named(self.of.row.key)}>"


@dataclass(slots=True)
class FetchCounts:
    """What was done until now.

    Attributes:
        requests: tries, each with all its redirects.
        not_modified: endpoints that had nothing new.
        unchanged: records of which all endpoints had nothing new.
        incomplete: records with an endpoint that failed.
        failures: the newest of those.
    """

    requests: int = 0
    not_modified: int = 0
    unchanged: int = 0
    incomplete: int = 0
    failures: deque[FetchFailure] = field(default_factory=lambda: deque(maxlen=LISTED))


class Fetcher:
    """Fetches the endpoints of rows over HTTP, and makes one record of those of a key.

    It is entered (`async with`) for the time of its use, on one loop. URLs and headers appear in no message, repr, log
    or record. The environment's proxies are not used: what is connected to is what was checked.

    Args:
        concurrency: requests at once, an int >= 1.
        per_host: requests at once to one host, an int >= 1.
        rate: requests that start in a time at one host, as "10/s" or "500/min"; None for any number.
        retry: attempts in all of a request that may do better, an int >= 1: no connection, a connection that broke, too
            slow, 408, 425, 429 and 5xx. Further ones wait for 0.5 s and more, or as long as the server asks
            (Retry-After), 60 s at most; meanwhile nothing is asked of that host.
        timeout: seconds for one try in whole, redirects and body included, > 0.
        max_bytes: bytes of a body, decompressed, an int >= 1.
        max_redirects: an int >= 0.
        allow_private: whether addresses may be asked that are not of the public Internet.
        headers: sent to every host that a row names, and, but for Accept, Accept-Language and User-Agent, not to others
            where a redirect leads.
        resolve: gives the addresses of a host; default: as the system does.

    Raises:
        OptionError: an argument breaks its rule.
    """

    def __init__(
        self,
        *,
        concurrency: int = 16,
        per_host: int = 4,
        rate: str | None = None,
        retry: int = 4,
        timeout: Seconds = 30.0,
        max_bytes: int = 10_000_000,
        max_redirects: int = 10,
        allow_private: bool = False,
        headers: Mapping[str, str | Secret] | None = None,
        resolve: Resolve = resolved,
    ) -> None:
        self._concurrency = validate.whole("concurrency", concurrency, least=1)
        self._per_host = validate.whole("per_host", per_host, least=1)
        self._rate = None if rate is None else number_and_time(rate, "rate", "requests")
        self._tries = validate.whole("retry", retry, least=1)
        self._timeout = validate.seconds("timeout", timeout)
        self._max_bytes = validate.whole("max_bytes", max_bytes, least=1)
        self._max_redirects = validate.whole("max_redirects", max_redirects, least=0)
        self._allow_private = validate.flag("allow_private", allow_private)
        self._headers = _checked(headers or {})
        self._resolve = resolve
        self._retry = Retry(on=FetchError, attempts=self._tries, initial=0.5)
        self._client: Client | None = None
        self.counts: FetchCounts = FetchCounts()
        self.pipeline: StreamingPipeline[FetchRow, FetchRecord] = StreamingPipeline(
            "fetch", self.records, takes=FetchRow
        )

    async def __aenter__(self) -> Self:
        if self._client is not None:
            raise RuntimeError("this Fetcher is entered already")
        self._client = Client(
            timeout=self._timeout,
            max_bytes=self._max_bytes,
            max_redirects=self._max_redirects,
            allow_private=self._allow_private,
            headers=self._headers,
            connections=self._concurrency,
            resolve=self._resolve,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def records(self, rows: Stream[FetchRow], former: Former | None = None) -> Stream[FetchRecord]:
        """Return the records of the rows, as each is complete; `former` knows those of an earlier run.

        A key of which no endpoint can be fetched is set aside with a `FetchError`.
        """
        work = _Fetching(self._ask, self._tries, self.counts, NoFormer() if former is None else former)
        hosts = Limiter(self._per_host, key=_host)
        limits: list[Limiter | RateLimit] = [hosts]
        if self._rate is not None:
            limits.append(RateLimit(*self._rate, key=_host))
        return (
            rows.flat_map(work.endpoints, name="endpoints", on_error="collect")
            .map(
                work.request,
                name="request",
                concurrency=self._concurrency,
                buffer=16 * self._concurrency,
                ordered=False,
                limit=limits,
                retry=replace(self._retry, pauses=hosts),
            )
            .flat_map(work.record, name="records", on_error="collect")
        )

    async def _ask(self, endpoint: _Endpoint) -> Fetched:
        """Ask for an endpoint once; count it."""
        if isinstance(endpoint.place, Fetched):
            return endpoint.place
        if self._client is None:
            raise RuntimeError("a Fetcher has to be entered first: `async with fetcher:`")
        self.counts.requests += 1
        endpoint.tries += 1
        return await self._client.get(endpoint.place, None if endpoint.kept is None else endpoint.kept.validators)


class _Fetching:
    """The functions of the stages. What belongs to a row is in its items, so nothing of a run stays here."""

    def __init__(
        self, ask: Callable[[_Endpoint], Awaitable[Fetched]], tries: int, counts: FetchCounts, former: Former
    ) -> None:
        self._ask = ask
        self._tries = tries
        self._counts = counts
        self._former = former

    def endpoints(self, row: FetchRow) -> list[_Endpoint]:
        """Return what is to be fetched of a row."""
        if not row.urls:
            raise FetchError("no column holds a URL of http or https")
        kept = self._former.kept(row.key)
        gathered = _Gathered(row, kept, len(row.urls))
        return [_endpoint(gathered, name, text, kept.get(name)) for name, text in row.urls.items()]

    async def request(self, endpoint: _Endpoint) -> _Endpoint:
        """Fetch an endpoint; raise if it is to be tried again."""
        answer = await self._ask(endpoint)
        if answer.again and endpoint.tries < self._tries:
            raise FetchError(f"{_host(endpoint)}: {answer.error}", answer.retry_after)
        endpoint.of.answers[endpoint.name] = answer
        endpoint.of.left -= 1
        return endpoint

    def record(self, endpoint: _Endpoint) -> list[FetchRecord]:
        """Return the record, if this was the last of its endpoints."""
        gathered = endpoint.of
        if gathered.left:
            return []
        gathered.left = -1  # several may have come before the first is looked at
        return [self._whole(gathered)]

    def _whole(self, gathered: _Gathered) -> FetchRecord:
        row, answers = gathered.row, gathered.answers
        errors = {name: answers[name].error for name in row.urls if answers[name].error is not None}
        if not any(map(_has_answered, answers.values())):
            raise FetchError(_said(errors))
        record: FetchRecord = {row.column: row.key}
        known = dict[str, KnownEndpoint]()
        for name, text in row.urls.items():
            status, body, kept = self._of(gathered, name, text)
            record |= {f"{name}_{STATUS}": status, f"{name}_{BODY}": body, f"{name}_{ERROR}": errors.get(name)}
            if kept is not None:
                known[name] = kept
        record[VALIDATORS] = stored(known)
        self._count(gathered, errors)
        return record

    def _of(self, gathered: _Gathered, name: str, text: str) -> tuple[int | None, Content, KnownEndpoint | None]:
        """Return the status and the body of an endpoint, and what is known of it from now on."""
        answer = gathered.answers[name]
        if answer.is_new:
            return answer.status, answer.body, KnownEndpoint(Url(text).digest, answer.status, answer.validators)
        kept = _of_this_url(gathered.kept.get(name), text)
        if kept is None:
            return answer.status, None, None
        return kept.status if answer.is_the_same else answer.status, self._former.body(gathered.row.key, name), kept

    def _count(self, gathered: _Gathered, errors: Mapping[str, object]) -> None:
        counts, answers = self._counts, gathered.answers
        same = sum(answer.is_the_same for answer in answers.values())
        counts.not_modified += same
        counts.unchanged += same == len(answers)
        if errors:
            counts.incomplete += 1
            counts.failures.append(FetchFailure(gathered.row.key, _said(errors)))


def _endpoint(gathered: _Gathered, name: str, text: str, kept: KnownEndpoint | None) -> _Endpoint:
    try:
        place = Url(text)
    except UrlError as error:
        return _Endpoint(gathered, name, Fetched(error=str(error)), None)
    return _Endpoint(gathered, name, place, _of_this_url(kept, text))


def _of_this_url(kept: KnownEndpoint | None, text: str) -> KnownEndpoint | None:
    """Return what is known if it is of this URL, not of another one that was there before."""
    try:
        return kept if kept is not None and kept.url == Url(text).digest else None
    except UrlError:
        return None


def _has_answered(answer: Fetched) -> bool:
    """Whether a server has said what there is, also if it is nothing; if not, a later run may do better."""
    return answer.error is None or (answer.status in _OF_THE_CLIENT and not answer.again)


def _said(errors: Mapping[str, object]) -> str:
    return "; ".join(f"{name}: {error}" for name, error in errors.items())


def _host(endpoint: _Endpoint) -> str:
    return endpoint.place.host if isinstance(endpoint.place, Url) else ""


def _checked(headers: Mapping[str, str | Secret]) -> dict[str, Secret]:
    """Check headers; messages show their names alone."""
    given: Any = headers
    if not isinstance(given, Mapping):
        raise OptionError(f"headers must be a mapping, got a {type(given).__name__}")
    checked = dict[str, Secret]()
    for name, value in cast("Mapping[object, object]", given).items():
        if not isinstance(name, str) or not name or not set(name) <= _TOKEN:
            raise OptionError("headers must have names of letters, digits and hyphens")
        if name.lower() in _REFUSED_HEADERS:
            raise OptionError(f"headers must not have {name!r}: it is set for each request")
        if not isinstance(value, str | Secret):
            raise OptionError(f"headers must have values of str, got a {type(value).__name__} for {name!r}")
        secret = value if isinstance(value, Secret) else Secret(value)
        if not secret.reveal().isascii() or not secret.reveal().isprintable():
            raise OptionError(f"headers must have values of printable ASCII, got another for {name!r}")
        checked[name] = secret
    return checked
