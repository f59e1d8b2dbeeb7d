"""Servers that send too much, too little, nonsense, or keep what they are told; on a loopback socket."""

import asyncio
import gzip
import json
import random
import string
import traceback
import zlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as some

from penstock import OptionError, Retry
from penstock.workflows import EmbedderUnavailableError, EmbedError, OpenAIEmbedder, embedder_named
from penstock.workflows import http_body as body
from penstock.workflows.documents.embedders import wire
from penstock.workflows.documents.embedders.openai import transient

from ..embedding_server import KEY, Server, error, good, vector  # noqa: TID252 -- tests are no package to name
from ..http_server import HANG, Raw, Reply, bomb  # noqa: TID252 -- as above

pytestmark = [pytest.mark.real_time, pytest.mark.slow]

ONCE = Retry(on=transient, attempts=1)
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def ask(url, texts=("a", "bb"), **options):
    return (await OpenAIEmbedder("m", **{"base_url": url, "key": KEY, "retry": ONCE} | options).embed(texts)).tolist()


async def refused(reply, **options):
    with Server(otherwise=reply) as server, pytest.raises(EmbedError) as caught:
        await ask(server.url, **options)
    return caught.value


# Waits that are asked for


def assert_sane(value):
    seconds = wire.retry_after({"retry-after": value}, NOW)
    assert seconds is None or 0 < seconds <= wire.LONGEST_WAIT


@given(some.text(max_size=80) | some.text("0123456789.eE+-_ infaN:,GMT", max_size=40))
def test_any_text_is_a_retry_after(value):
    assert_sane(value)


@given(
    some.from_regex(
        r"(Mon, )?[0-9]{1,25}[ -](Jan|Feb|13)[ -][0-9]{1,25} [0-9]{1,9}:[0-9]{1,9}(:[0-9]{1,9})? ?"
        r"([+-][0-9]{1,9}|GMT)?",
        fullmatch=True,
    )
)
def test_dates_beyond_all_calendars_are_none(value):
    assert_sane(value)


@pytest.mark.parametrize(
    "value", ["9" * 1_000_000, "Mon, " * 200_000, "-1", "1e999", "nan", "0x10", "٣", "5, 5", "\x00", "1_0", "-inf", " "]
)
def test_nonsense_means_the_backoff(value):
    seconds = wire.retry_after({"retry-after": value}, NOW)
    assert seconds == (60 if value.startswith("9") else None)


async def test_a_wait_of_nothing_is_no_reason_to_ask_at_once():
    """With a wait of 0, a server that is in trouble would be asked as fast as it answers."""
    waits = []

    def wait(failure):
        waits.append(failure.retry_after)
        return 0

    own = Retry(on=transient, attempts=2, wait=wait)
    with Server(error(503, "x", headers={"Retry-After": "0"})) as server:
        assert await ask(server.url, retry=own) == [vector("a"), vector("bb")]
    assert waits == [None]


# Bodies


@pytest.mark.slow
@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw"])
@pytest.mark.parametrize("status", [200, 400])
async def test_a_bomb_is_read_as_far_as_vectors_may_go(coding, status, monkeypatch):
    read, sizes = body.read, []

    async def watched(*arguments):
        sizes.append(len(await read(*arguments)))
        return b"x" * sizes[-1]

    monkeypatch.setattr(body, "read", watched)
    header = {"Content-Encoding": coding.replace("raw", "deflate")}
    failure = await refused(Reply(status, bomb(64 << 20, coding), header))
    message = "the answer is longer than 2,162,688 bytes" if status == 200 else "400 Bad Request"
    assert message in str(failure)
    assert sizes == [(2_162_688 if status == 200 else 65_536) + 1]
    assert len(str(failure)) < 400


@pytest.mark.quick
@pytest.mark.parametrize("packed", [gzip.compress, zlib.compress, lambda data: zlib.compress(data, wbits=-15)])
async def test_a_compressed_answer_is_read(packed):
    def reply(request):
        whole = good(request)
        coding = "gzip" if packed is gzip.compress else "deflate"
        return Reply(200, packed(whole.body), {"Content-Encoding": coding})

    with Server(otherwise=reply) as server:
        assert await ask(server.url) == [vector("a"), vector("bb")]


@pytest.mark.parametrize(
    ("coding", "content", "message"),
    [
        ("br", b"\x8b\x02\x80", "the coding 'br' was not asked for"),
        ("zstd", b"(\xb5/\xfd", "the coding 'zstd' was not asked for"),
        (
            "gzip, gzip",
            gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0),
            "the coding 'gzip, gzip' was not asked for",
        ),
        ("x" * 5_000, b"", "the coding 'xxx"),
        ("gzip", b"no gzip at all", "the answer cannot be read: Error -3"),
        ("deflate", b"\xff" * 9, "the answer cannot be read: Error -3"),
    ],
)
async def test_a_coding_that_was_not_asked_for_is_refused(coding, content, message):
    failure = await refused(Reply(200, content, {"Content-Encoding": coding}))
    assert message in str(failure)
    assert len(str(failure)) < 400
    told = await refused(Reply(400, content, {"Content-Encoding": coding}))
    assert str(told).endswith("400 Bad Request")


@pytest.mark.slow
async def test_what_a_body_may_weigh_grows_with_what_it_has_to_hold():
    numbers = [0.123456789012345678] * 12_288
    answer = Reply(200, {"data": [{"index": index, "embedding": numbers} for index in range(64)]})
    with Server(otherwise=answer) as server:
        assert len(await ask(server.url, texts=["a"] * 64, dimensions=12_288)) == 64


HEAD = b"HTTP/1.1 %d X\r\n"


@pytest.mark.parametrize(
    ("first", "more", "message"),
    [
        (HEAD % 200 + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n%s\r\n" % (b" " * 65_536), "is longer than"),
        (HEAD % 500 + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n%s\r\n" % (b"x" * 65_536), "500 Internal"),
        (HEAD % 200 + b"Content-Length: 999999999999999999\r\n\r\n", b"x" * 65_536, "is longer than"),
        (HEAD % 400 + b"\r\n", b"\x1b[31m" * 9_999, r"400 Bad Request: \x1b[31m\x1b[31m"),
        (HEAD % 200, b"X-Header: %s\r\n" % (b"y" * 9_999), "the connection broke"),
        (b"", b"z" * 65_536, "the connection broke"),
    ],
    ids=["chunks", "chunks of an error", "length", "no length", "headers", "no line"],
)
async def test_what_never_ends_is_left(first, more, message):
    with Raw(first, more) as server, pytest.raises(EmbedError) as caught:
        await ask(server.url)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    assert server.sent < 40 << 20  # what the sockets hold, too


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"\0",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 2OO OK\r\n\r\n",
        b"HTTP/1.1 -1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=\xff\xfe\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: \xff\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 503 \xff\xfe\r\nRetry-After: \xff\xfe\x80\r\nContent-Length: 2\r\n\r\n\xff\xfe",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
    ],
    ids=lambda sent: repr(sent)[2:60],
)
async def test_what_is_no_http_is_an_error_of_ours(first):
    for tls in (False, True):
        with Raw(first, tls=tls) as server, pytest.raises(EmbedError, match=r"127\.0\.0\.1"):
            await ask(server.url)


async def test_random_bytes_are_an_error_of_ours():
    pick = random.Random(7)
    for _ in range(20):
        with Raw(b"HTTP/1.1 200 OK\r\n" + pick.randbytes(200)) as server, pytest.raises(EmbedError):
            await ask(server.url)


# What is in them


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"data":' * 50_000,
        b'{"data": [' + b'{"embedding": ' * 20_000,
        b'{"data": [{"embedding": ' + b"[" * 50_000 + b"]" * 50_000 + b"}, 1]}",
        b'{"data": %s}' % (b"1" * 5_000),
        b"\xff\xfe[\0]\0",
        b"\x00\x00\x00[",
        b'{"data": "\xff"}',
        b'{"data": "\\ud800"}',
        b"null",
        b'"data"',
        b"-",
    ],
    ids=lambda content: repr(content)[2:40],
)
async def test_any_json_is_vectors_or_an_error_of_ours(content):
    for status in (200, 400, 500):
        failure = await refused(Reply(status, content))
        assert len(str(failure)) < 400
        assert str(failure).isprintable()


WRONG = [
    ["1", "2"],
    [True, False],
    [None, None],
    [{}, {}],
    [[1], [2]],
    {"0": 1, "1": 2},
    {},
    None,
    True,
    1.5,
    "",
    "====",
    "ÿÿÿÿ",
    "AAAAA",
    [float("nan"), 1],
    [float("inf"), 1],
    [1, -1e39],
    [1, 10**400],
]


@pytest.mark.parametrize("embedding", WRONG, ids=lambda value: str(value)[:20])
def test_a_vector_is_a_list_of_numbers(embedding):
    given_rows = [{"index": 0, "embedding": embedding}, {"index": 1, "embedding": embedding}]
    assert isinstance(wire.vectors(json.dumps({"data": given_rows}).encode(), 2), wire.Refusal)


@pytest.mark.parametrize("index", [True, 1.0, "1", -1, 2, None, [], {}, 10**30])
def test_an_index_is_that_of_a_text(index):
    given_rows = [{"index": 0, "embedding": [1, 2]}, {"index": index, "embedding": [1, 2]}]
    assert isinstance(wire.vectors(json.dumps({"data": given_rows}).encode(), 2), wire.Refusal)


JSON = some.recursive(
    some.none() | some.booleans() | some.floats() | some.integers() | some.text(max_size=5),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(
            some.sampled_from(["data", "embedding", "index", "error", "message", "x"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@given(JSON, some.sampled_from([200, 400, 429, 500, 999]))
def test_any_shape_is_vectors_or_a_refusal(shape, status):
    content = json.dumps(shape).encode()
    told = wire.answer(status, {}, content, 1, len(content))
    if isinstance(told, wire.Refusal):
        told.error("http://h", None)
    else:
        assert told.shape[0] == 1


async def test_a_later_answer_of_other_dimensions_ends_it():
    with (
        Server(good, otherwise=lambda request: good(request, width=4)) as server,
        pytest.raises(EmbedderUnavailableError, match="embeddings of 4 dimensions came back, not of 3"),
    ):
        await ask(server.url, batch=1)


# Addresses, proxies, redirects


@pytest.mark.parametrize(
    "address",
    [
        "http://[::1",
        "http://h:99999/v1",
        "http://h:-1/v1",
        "http://a b/v1",
        "http://h\r\nX: y/v1",
        "http://h/\x00",
        "http:///v1",
        "http://\udcff/v1",
        "http://xn--\u2603.-/v1",
        "ftp://h/v1",
        "file:///etc/passwd",
        "http://" + "h" * 100_000,
        "http://h/" + "v" * 3_000,
        "x" * 100_000,
    ],
    ids=lambda value: ascii(value)[:30],
)
async def test_a_bad_address_is_an_error_of_ours(address):
    with pytest.raises((OptionError, EmbedError)) as caught:
        await ask(address)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("address", ["http://me:hidden@h:x/v1", "http://me:hidden@[/v1", "http://h:x/v1?k=hidden"])
def test_a_bad_address_does_not_show_what_may_be_a_password(address):
    with pytest.raises(OptionError, match="base_url must be an http or https address") as caught:
        OpenAIEmbedder("m", base_url=address)
    assert "hidden" not in str(caught.value)


async def test_a_host_of_a_name_too_long_is_an_error_of_ours():
    with pytest.raises(EmbedError):
        await ask(f"http://{'a' * 64}.localhost:1/v1")


async def test_a_redirect_is_not_followed():
    with Server() as other:
        failure = await refused(Reply(307, headers={"Location": f"{other.url}/embeddings"}))
        assert other.requests == []
    assert isinstance(failure, EmbedderUnavailableError)
    assert "307 Temporary Redirect" in str(failure)


@pytest.mark.parametrize(
    "proxy", ["gopher://h", "http://h:x", "http://[", "socks5://127.0.0.1:1", "http://127.0.0.1:1"]
)
async def test_a_bad_proxy_is_an_error_of_ours(proxy, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", proxy)
    with Server() as server, pytest.raises(EmbedderUnavailableError) as caught:
        await ask(server.url)
    assert_silent(caught.value)


async def test_certificates_that_are_not_there_are_an_error_of_ours(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/at/all.pem")
    with pytest.raises(EmbedError) as caught:
        await ask("https://127.0.0.1:1/v1")
    assert_silent(caught.value)


# The key


def frames(error, seen=None):
    """Every frame of the tracebacks of an error and of those behind it."""
    seen = set() if seen is None else seen
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    for frame, _ in traceback.walk_tb(error.__traceback__):
        yield frame
    for behind in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())):
        yield from frames(behind, seen)


def assert_silent(error):
    """No local variable of a frame of this project or a library, nor what it leads to, is the key."""
    for frame in frames(error):
        if frame.f_code.co_filename == __file__:
            continue
        for name, value in frame.f_locals.items():
            assert KEY not in repr(value), (frame.f_code.co_qualname, name)
            assert KEY not in repr(getattr(value, "headers", None)), (frame.f_code.co_qualname, name)
            raw = getattr(getattr(value, "headers", None), "raw", ())
            assert KEY not in repr(raw), (frame.f_code.co_qualname, name)
    assert KEY not in str(error)


REPLIES = {
    "echo": lambda request: error(401, f"Incorrect API key provided: {request['authorization']}"),
    "500": error(500, "oops"),
    "429": error(429, "slow"),
    "400": error(400, KEY),
    "page": Reply(200, KEY.encode()),
    "cut": Reply(200, b"{", length=99),
    "bomb": Reply(200, bomb(4 << 20), {"Content-Encoding": "gzip"}),
    "coding": Reply(200, b"", {"Content-Encoding": KEY}),
    "deep": Reply(200, b"[" * 99_999),
}


@pytest.mark.parametrize("kind", REPLIES)
async def test_no_frame_of_an_error_has_the_key(kind):
    assert_silent(await refused(REPLIES[kind]))
    assert_silent(await refused(REPLIES[kind], retry=Retry(on=transient, attempts=2, initial=0)))


async def test_no_frame_has_the_key_when_the_server_hangs_or_is_not_there():
    assert_silent(await refused(HANG, timeout=0.1))
    with pytest.raises(EmbedError) as caught:
        await ask("http://127.0.0.1:1/v1")
    assert_silent(caught.value)


async def test_no_frame_of_a_cancellation_has_the_key():
    with Server(otherwise=HANG) as server:
        running = asyncio.ensure_future(ask(server.url))
        await asyncio.to_thread(server.wait_for)
        running.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await running
    assert_silent(caught.value)


@pytest.mark.parametrize("key", [f"{KEY}\r\nX: y", f"{KEY} {KEY}", f"{KEY}é", f"{KEY}\0", [KEY]], ids=ascii)
def test_no_frame_has_a_key_that_no_header_can_carry(key):
    for make in (
        lambda: OpenAIEmbedder("m", base_url="http://h", key=key),
        lambda: embedder_named("openai:m", base_url="http://h", key=key),
    ):
        with pytest.raises(OptionError) as caught:
            make()
        assert_silent(caught.value)


def test_a_proxy_that_cannot_be_used_shows_no_key(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "http://" + "".join(string.punctuation))
    with pytest.raises(EmbedError) as caught:
        asyncio.run(ask("http://127.0.0.1:1/v1"))
    assert_silent(caught.value)
