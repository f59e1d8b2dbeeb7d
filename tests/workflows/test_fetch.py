"""Fetching URLs into a table, against real servers on loopback sockets."""

import asyncio
import gzip
import logging
import random
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import apsw
import pytest

from penstock import DuplicateKeyError, OptionError, SourceError
from penstock.durable import dead_roots
from penstock.flow import Pipeline, PipelineEngine
from penstock.workflows import Fetcher, FetchError, FetchJob, FetchRow, fetch_rows
from penstock.workflows.fetching import addresses
from penstock.workflows.fetching.urls import Url

from ..http_server import HANG, Raw, Reply, Server, bomb, page  # noqa: TID252 -- tests are no package to name

pytestmark = pytest.mark.real_time

SECRET = "s3cr3t-0123456789"


@pytest.fixture
def db(tmp_path):
    return str(tmp_path / "out.db")


@pytest.fixture
def urls(tmp_path):
    """A function that writes rows of CSV, the first of them the header, and gives the path."""

    def write(*rows):
        path = tmp_path / "urls.csv"
        path.write_text("".join(f"{','.join(row)}\n" for row in rows))
        return path

    return write


def at_once(fetcher):
    """Has it try again without a wait."""
    fetcher._retry = replace(fetcher._retry, initial=0)
    return fetcher


@asynccontextmanager
async def entered(**options):
    async with at_once(Fetcher(**{"allow_private": True, "retry": 2} | options)) as fetcher:
        yield fetcher


async def fetched(path, db, **options):
    job = FetchJob(path, db, **{"allow_private": True, "retry": 2} | options)
    at_once(job._fetcher)
    return await job.run()


def rows_in(db):
    """The records by their keys, without what is for the next run."""
    connection = apsw.Connection(db, flags=apsw.SQLITE_OPEN_READONLY)
    try:
        cursor = connection.execute("SELECT * FROM records")
        found = [dict(zip([name for name, _ in cursor.get_description()], row, strict=True)) for row in cursor]
    finally:
        connection.close()
    for row in found:
        del row["penstock_root"], row["validators"]
    keyed = {row["id"]: row for row in found}
    assert len(keyed) == len(found)
    return keyed


def paths_of(server):
    return Counter(request["path"] for request in server.requests)


async def test_the_endpoints_of_a_key_become_one_record(urls, db):
    replies = {
        "/a": Reply(body=b' {"n": 1.50}\n', headers={"Content-Type": "application/problem+json; charset=utf-8"}),
        "/b": Reply(body="grüße".encode("latin-1"), headers={"Content-Type": "text/plain; charset=iso-8859-1"}),
        "/c": Reply(body=b"\x89PNG\0", headers={"Content-Type": "image/png"}),
        "/d": Reply(204),
    }
    with Server(otherwise=lambda request: replies[request["path"]]) as server:
        at = server.url
        path = urls(("id", "a", "b", "note"), ("1", f"{at}/a", f"{at}/b", "x"), ("2", f"{at}/c", f" {at}/d ", ""))
        report = await fetched(path, db)
    one = {"a_status": 200, "a_body": ' {"n": 1.50}\n', "a_error": None}
    one |= {"b_status": 200, "b_body": "grüße", "b_error": None}
    two = {"a_status": 200, "a_body": b"\x89PNG\0", "a_error": None, "b_status": 204, "b_body": None, "b_error": None}
    assert rows_in(db) == {"1": {"id": "1"} | one, "2": {"id": "2"} | two}
    assert (report.records, report.requests, report.failed, report.incomplete) == (2, 4, 0, 0)


async def test_the_next_run_asks_only_for_what_is_new(urls, db):
    with Server(otherwise=page) as server:
        path = urls(("id", "a", "b"), *((str(n), f"{server.url}/a{n}", f"{server.url}/b{n}") for n in range(5)))
        await fetched(path, db)
        before = rows_in(db)
        assert set(paths_of(server).values()) == {1}
        again = await fetched(path, db)
        assert (again.records, again.unchanged, again.requests, again.not_modified) == (5, 5, 10, 10)
        assert set(paths_of(server).values()) == {2}
        assert [request["if-none-match"] for request in server.requests[10:]] == [
            f'"{request["path"]}"' for request in server.requests[10:]
        ]
        assert rows_in(db) == before
        server._otherwise = lambda request: Reply(body=b"new") if request["path"] == "/b3" else page(request)
        third = await fetched(path, db)
        assert (third.unchanged, third.not_modified) == (4, 9)
        assert rows_in(db) == before | {"3": before["3"] | {"b_body": "new"}}


async def test_a_refresh_that_was_stopped_goes_on(urls, db):
    """Over both parts of it each URL is asked for once more."""
    with Server(otherwise=page) as server:
        path = urls(("id", "a"), *((str(n), f"{server.url}/{n}") for n in range(60)))
        await fetched(path, db)
        job = FetchJob(path, db, allow_private=True, concurrency=1)
        loop, asked = asyncio.get_running_loop(), []

        def stopping(request):
            asked.append(request)
            if len(asked) == 3:
                loop.call_soon_threadsafe(job.stop)
            return page(request)

        server._otherwise = stopping
        part = await job.run()
        rest = await fetched(path, db)
        assert part.interrupted
        assert 0 < part.records < 60
        assert (rest.already_done, rest.records, rest.unchanged) == (part.records, 60 - part.records, 60 - part.records)
        assert set(paths_of(server).values()) == {2}


async def test_without_refresh_only_new_changed_and_failed_keys_are_fetched(urls, db):
    with Server(otherwise=page) as server:
        rows = [(str(n), f"{server.url}/{n}") for n in range(4)]
        await fetched(urls(("id", "a"), *rows, ("4", "http://127.0.0.1:1/")), db)
        rows[1] = ("1", f"{server.url}/changed")
        report = await fetched(
            urls(("id", "a"), *rows, ("4", f"{server.url}/4"), ("5", f"{server.url}/5")), db, refresh=False
        )
        assert sorted(request["path"] for request in server.requests[4:]) == ["/4", "/5", "/changed"]
        assert (report.records, report.already_done) == (3, 3)


async def test_an_endpoint_that_fails_keeps_its_body(urls, db):
    with Server(otherwise=page) as server:
        path = urls(("id", "a", "b"), ("1", f"{server.url}/a", f"{server.url}/b"))
        await fetched(path, db)
        before = rows_in(db)["1"]
        for status, error in ((404, "404 Not Found"), (503, "503 Service Unavailable")):
            server._otherwise = lambda request, status=status: (
                Reply(status) if request["path"] == "/b" else page(request)
            )
            report = await fetched(path, db)
            assert rows_in(db)["1"] == before | {"b_status": status, "b_error": error}
            assert (report.incomplete, report.failed, [each.reason for each in report.failures]) == (
                1,
                0,
                [f"b: {error}"],
            )
        server._otherwise = page
        report = await fetched(path, db)
        assert report.not_modified == 2
        assert rows_in(db)["1"] == before


async def test_a_key_of_which_nothing_can_be_fetched_is_set_aside_and_tried_again(urls, db):
    with Server(otherwise=page) as server:
        path = urls(("id", "a", "b"), ("1", f"{server.url}/a", f"{server.url}/b"), ("2", "", ""))
        first = await fetched(path, db)
        before = rows_in(db)
        assert (first.records, first.failed) == (1, 1)
        server._otherwise = Reply(500)
        report = await fetched(path, db)
        assert (report.records, report.failed, report.requests) == (0, 2, 4)
        assert rows_in(db) == before
        dead = {each.key: str(each) for each in dead_roots(db)}
        assert dead.keys() == {"1", "2"}
        server._otherwise = page
        again = await fetched(path, db)
        assert (again.records, again.failed) == (1, 1)
        assert {request["if-none-match"] for request in server.requests[-2:]} == {'"/a"', '"/b"'}


async def test_a_server_that_says_that_there_is_nothing_has_answered(urls, db):
    with Server(otherwise=Reply(404)) as server:
        report = await fetched(urls(("id", "a"), ("1", f"{server.url}/a")), db)
    assert rows_in(db) == {"1": {"id": "1", "a_status": 404, "a_body": None, "a_error": "404 Not Found"}}
    assert (report.requests, report.incomplete, report.failed) == (1, 1, 0)


async def test_another_url_has_no_part_in_what_was_known(urls, db):
    with Server(otherwise=page) as server:
        await fetched(urls(("id", "a"), ("1", f"{server.url}/a")), db)
        await fetched(urls(("id", "a"), ("1", f"{server.url}/b")), db)
        assert "if-none-match" not in server.requests[1]
        server._otherwise = Reply(410)
        await fetched(urls(("id", "a"), ("1", f"{server.url}/c")), db)
        assert rows_in(db)["1"] == {"id": "1", "a_status": 410, "a_body": None, "a_error": "410 Gone"}


async def test_validators_are_those_of_the_place_behind_a_redirect(urls, db):
    with Server(otherwise=page) as server:

        def moved(request):
            return Reply(302, headers={"Location": "/new"}) if request["path"] == "/old" else page(request)

        server._otherwise = moved
        path = urls(("id", "a"), ("1", f"{server.url}/old"))
        await fetched(path, db)
        report = await fetched(path, db)
        assert [request.get("if-none-match") for request in server.requests] == [None, None, None, '"/new"']
        assert (report.requests, report.unchanged) == (1, 1)
        assert rows_in(db)["1"]["a_body"] == '{"path": "/new"}'


async def test_keys_that_are_gone_stay_unless_they_are_pruned(urls, db):
    with Server(otherwise=page) as server:
        rows = [(str(n), f"{server.url}/{n}") for n in range(4)]
        await fetched(urls(("id", "a"), *rows), db)
        report = await fetched(urls(("id", "a"), *rows[:2]), db)
        assert (report.missing, report.removed, len(rows_in(db))) == (2, 0, 4)
        report = await fetched(urls(("id", "a"), *rows[:2]), db, prune=True)
        assert (report.missing, report.removed, len(rows_in(db))) == (2, 2, 2)


# Tries


@pytest.mark.parametrize(("status", "requests"), [(503, 3), (429, 3), (500, 3), (404, 1), (403, 1), (501, 1)])
async def test_what_may_do_better_is_tried_again(urls, db, status, requests):
    with Server(otherwise=Reply(status)) as server:
        report = await fetched(urls(("id", "a"), ("1", f"{server.url}/a")), db, retry=3)
        assert (len(server.requests), report.requests) == (requests, requests)


async def test_a_try_that_succeeds_is_the_last(urls, db):
    with Server(Reply(503), Reply(429), otherwise=page) as server:
        await fetched(urls(("id", "a"), ("1", f"{server.url}/a")), db, retry=6)
        assert len(server.requests) == 3
    assert rows_in(db)["1"]["a_error"] is None


async def test_a_server_says_how_long_to_wait():
    soon = Reply(503, headers={"Retry-After": format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)})
    long, past = ({"Retry-After": text} for text in ("9999", "Wed, 21 Oct 2015 07:28:00 GMT"))
    replies = Reply(429, headers={"Retry-After": "17"}), Reply(429, headers=long), Reply(429, headers=past)
    with Server(*replies, otherwise=soon) as server:
        async with entered() as fetcher:
            waits = [(await fetcher._client.get(Url(server.url))).retry_after for _ in range(4)]
    assert waits[:3] == [17.0, 60.0, None]
    assert 30 < waits[3] <= 40


# As a pipeline


def records_of(result):
    return sorted(({name: value for name, value in row.items() if name != "validators"} for row in result), key=str)


async def all_rows(path):
    return await fetch_rows(path).to_list()


async def test_a_stream_a_step_and_a_table_give_equal_records(urls, db):
    with Server(otherwise=page) as server:
        path = urls(("id", "a", "b"), *((str(n), f"{server.url}/a{n}", f"{server.url}/b{n}") for n in range(20)))
        await fetched(path, db)
        async with entered() as fetcher:
            streamed = await fetcher.pipeline.to_list(fetch_rows(path))
            batch = Pipeline("batch").step("rows", all_rows).add(fetcher.pipeline.as_step())
            result = await PipelineEngine(path.parent / "work").run(batch, str(path))
        assert records_of(streamed) == records_of(result.output) == records_of(rows_in(db).values())


async def test_a_pipeline_sets_aside_what_cannot_be_fetched():
    async with entered() as fetcher, fetcher.pipeline.open([FetchRow("1", {"a": "http://127.0.0.1:1/"})]) as records:
        assert [record async for record in records] == []
        assert isinstance(records.failures[0].error, FetchError)


async def test_a_fetcher_has_to_be_entered():
    with pytest.raises(RuntimeError, match="entered first"):
        await Fetcher().pipeline.to_list([FetchRow("1", {"a": "http://127.0.0.1:1/"})])


# Secrets


def everything_of(db, caplog, report):
    """All that a run leaves: the bytes of its database, what it logged, its report."""
    found = b"".join(path.read_bytes() for path in Path(db).parent.glob("out.db*"))
    return found + caplog.text.encode() + repr(report).encode() + repr(dead_roots(db)).encode()


async def test_urls_and_headers_are_nowhere_but_in_requests(urls, db, caplog):
    """Also where requests fail, are tried again and set aside, and a server repeats in its headers what it was told."""
    caplog.set_level(logging.DEBUG, "penstock")

    def answer(request):
        at = {"X-Echo": request["path"], "Location": request["path"]}
        code = {"/ok": 200, "/no": 404, "/bad": 503, "/loop": 302}[request["path"].partition("?")[0]]
        return Reply(code, b"fine", at)

    with Server(otherwise=answer) as server:
        at = server.url.replace("//", f"//user:{SECRET}@")
        rows = [(str(n), f"{at}/{name}?token={SECRET}") for n, name in enumerate(("ok", "no", "bad", "loop"))]
        odd = [
            ("4", f"http://127.0.0.1:1/{SECRET}"),
            ("5", f"http://[{SECRET}"),
            ("6", f"https://{server.url[7:]}/{SECRET}"),
        ]
        report = await fetched(urls(("id", "a"), *rows, *odd), db, headers={"X-Key": SECRET})
        assert all(SECRET in request["path"] and request["x-key"] == SECRET for request in server.requests)
        assert server.requests[0]["authorization"].startswith("Basic ")
    assert (report.records, report.failed) == (2, 5)
    assert SECRET.encode() not in everything_of(db, caplog, report)


async def test_a_header_goes_to_the_server_of_the_row_alone(urls, db):
    """Another port is another server; Accept goes along, a name with a password does not."""
    with Server(otherwise=page) as other:
        moves = Reply(307, headers={"Location": f"{other.url}/there"})
        with Server(Reply(307, headers={"Location": "/again"}), otherwise=moves) as first:
            path = urls(("id", "a"), ("1", first.url.replace("//", "//me:pass@")))
            await fetched(path, db, headers={"Cookie": SECRET, "X-Key": SECRET, "accept": "text/x"})
            told = [
                (request.get("cookie"), request.get("x-key"), "authorization" in request) for request in first.requests
            ]
    assert told == [(SECRET, SECRET, True)] * 2
    assert [request["accept"] for request in (*first.requests, *other.requests)] == ["text/x"] * 3
    assert not {"cookie", "x-key", "authorization"} & other.requests[0].keys()


def test_only_the_same_server_is_told_and_https_of_the_same_host():
    plain, tls = Url("http://a.example/x"), Url("https://a.example/y")
    assert tls.may_be_told(plain)
    assert not plain.may_be_told(tls)
    assert not Url("https://a.example:444/").may_be_told(plain)
    assert not Url("http://b.example/").may_be_told(plain)
    assert Url("http://A.example:80/z").may_be_told(plain)


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200"),
        *("0.0.0.0", "255.255.255.255", "224.0.0.1", "168.63.129.16", "192.0.2.1", "198.18.0.1", "240.0.0.1"),
        *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:a00:1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254"),
        *("fec0::1", "ff02::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::"),
        *("2001:0:1::1", "2001:db8::1", "4000::1", "localhost", "1.2.3"),
    ],
)
def test_an_address_that_is_not_public_is_refused(address):
    assert not addresses.is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_an_address_of_the_public_internet_is_none_of_these(address):
    assert addresses.is_public(address)


def names(**places):
    """A resolver that gives each name its addresses, one list after the other; what it was asked is kept."""
    asked = []

    async def resolve(host, port):
        asked.append(host)
        given = places[host.partition(".")[0]]
        return given.pop(0) if len(given) > 1 else given[0]

    resolve.asked = asked
    return resolve


@pytest.fixture
def loopback_is_public(monkeypatch):
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1")


async def got(url, **options):
    async with entered(allow_private=False, **options) as fetcher:
        return await fetcher._client.get(Url(url))


@pytest.mark.parametrize("found", [["10.0.0.1"], ["::1", "169.254.169.254"], ["::ffff:127.0.0.1"], []])
async def test_a_name_that_leads_to_private_addresses_is_not_connected_to(found):
    with Server(otherwise=page) as server:
        answer = await got(f"http://inside.test:{server.url[17:]}/", resolve=names(inside=[found]))
        assert (
            answer.error
            == "inside.test is at a private address, which is refused without allow_private (--allow-private)"
        )
        assert not answer.again
        assert server.requests == []


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "[::1]", "[::ffff:7f00:1]"])
async def test_no_way_to_write_loopback_leads_there(host):
    """The system reads numbers of many forms; what counts is the address that comes of them."""
    with Server(otherwise=page) as server:
        answer = await got(f"http://{host}:{server.url[17:]}/")
        assert answer.error is not None
        assert server.requests == []


@pytest.mark.usefixtures("loopback_is_public")
async def test_each_redirect_is_checked_anew():
    with Server(otherwise=page) as server:
        inside = Reply(302, headers={"Location": f"http://inside.test:{server.url[17:]}/x"})
        server._otherwise = lambda request: inside if request["path"] == "/" else page(request)
        resolve = names(outside=[["127.0.0.1"]], inside=[["10.0.0.1"]])
        answer = await got(f"http://outside.test:{server.url[17:]}/", resolve=resolve)
        assert answer.error.startswith("inside.test is at a private address")
        assert resolve.asked == ["outside.test", "inside.test"]
        assert len(server.requests) == 1


@pytest.mark.usefixtures("loopback_is_public")
async def test_a_name_is_resolved_once_for_a_connection_and_again_for_the_next():
    """DNS rebinding: what was checked is connected to, and a name that has moved inside is refused."""
    with Server(otherwise=page) as server:
        server._otherwise = Reply(200, b"x", {"Connection": "close"}, length=9)
        resolve = names(moving=[["10.0.0.1", "127.0.0.1"], ["10.0.0.1"]])
        url = f"http://moving.test:{server.url[17:]}/"
        async with entered(allow_private=False, resolve=resolve) as fetcher:
            first, second = [await fetcher._client.get(Url(url)) for _ in range(2)]
        assert first.error.startswith("the connection broke")
        assert second.error.startswith("moving.test is at a private address")
        assert (len(resolve.asked), len(server.requests)) == (2, 1)


# Servers that misbehave


async def asked(server, **options):
    async with entered(**{"timeout": 20, "max_bytes": 100_000} | options) as fetcher:
        return await fetcher._client.get(Url(server.url))


GZIP = {"Content-Encoding": "gzip"}
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("reply", "error", "again"),
    [
        (Reply(200, b"x" * 100_001), "the body is longer than 100,000 bytes (max_bytes)", False),
        (Reply(200, bomb(8 << 20), GZIP), "the body is longer than 100,000 bytes (max_bytes)", False),
        (
            Reply(200, gzip.compress(b"t")[:-5], GZIP),
            "the body cannot be read: the compressed data is cut off",
            True,
        ),
        (Reply(200, gzip.compress(b"a") + b"b", GZIP), "the body cannot be read: the compressed data is cut off", True),
        (Reply(200, b"no gzip", GZIP), "the body cannot be read: Error -3", True),
        (Reply(200, b"x", {"Content-Encoding": "br"}), "the body cannot be read: the coding 'br' was not asked", True),
        (Reply(200, b"short", length=10), "the connection broke: peer closed connection", True),
        (Reply(200, b'{"a": ', JSON), "the body is not JSON, as its type says", False),
        (Reply(200, b"NaN", JSON), "the body is not JSON, as its type says", False),
        (Reply(200, b"[" * 90_000, JSON), "the body is not JSON, as its type says", False),
        (Reply(200, b'"\xff"', JSON), "the body is not JSON, as its type says", False),
        (Reply(304), "304 Not Modified, though nothing was known", False),
        (Reply(302), "302 Found", False),
        (Reply(999), "999", False),
        (Reply(302, headers={"Location": "/"}), "more than 10 redirects", False),
        (Reply(302, headers={"Location": "ftp://a/"}), "the URL is not one of http or https", False),
        (Reply(302, headers={"Location": "file:///etc/passwd"}), "the URL is not one of http or https", False),
        (Reply(302, headers={"Location": "http://["}), "the URL has no host", False),
        (Reply(302, headers={"Location": "http://a b/"}), "the URL has no host", False),
        (Reply(302, headers={"Location": "http://127.0.0.1:99999/"}), "the URL has no host", False),
        (
            Reply(200, b"x", {"Content-Encoding": "secret"}),
            "the body cannot be read: the coding is none that was asked for",
            True,
        ),
    ],
)
async def test_what_a_server_may_send(reply, error, again):
    with Server(otherwise=reply) as server:
        answer = await asked(server)
    assert answer.error is not None
    assert (answer.error[: len(error)], answer.again, answer.body) == (error, again, None)


@pytest.mark.parametrize(
    ("body", "kind", "read"),
    [
        (b"\xef\xbb\xbf[1]", "application/json", "[1]"),
        ('["é"]'.encode("utf-16"), "text/json", '["é"]'),
        (b"1" * 5_000, "application/json", "1" * 5_000),
        (b"a\xffb", "text/plain", "a\ufffdb"),
        (b"caf\xe9", "text/html; charset=windows-1252", "café"),
        (b"abc", "text/plain; charset=punycode", "abc"),
        (b"abc", "text/plain; charset=zlib_codec", "abc"),
        (b"abc", 'text/plain; charset="no such"', "abc"),
        (b"<a/>", "image/svg+xml", "<a/>"),
        (b"plain", "", "plain"),
        (b"\xff\xd8", "", b"\xff\xd8"),
        (b"abc", "application/octet-stream", b"abc"),
        (b"", "application/json", None),
    ],
)
async def test_bodies_are_read_by_their_type(body, kind, read):
    with Server(otherwise=Reply(200, body, {"Content-Type": kind} if kind else {})) as server:
        answer = await asked(server)
    assert (answer.error, answer.body) == (None, read)


HEAD = b"HTTP/1.1 200 X\r\n"


@pytest.mark.parametrize(
    ("first", "more", "error"),
    [
        (b"", b"", "the connection broke"),
        (b"\0", b"", "the connection broke"),
        (b"SSH-2.0-OpenSSH\r\n", b"", "the connection broke"),
        (HEAD + b"Content-Length: -5\r\n\r\n", b"", "the connection broke"),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", b"", "the connection broke"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"", "the connection broke"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", b"", "the connection broke"),
        (HEAD + b"no colon\r\n\r\n", b"", "the connection broke"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n%s\r\n" % bytes(65_536), "the body is longer"),
        (HEAD + b"Content-Length: 999999999999\r\n\r\n", b"x" * 65_536, "the body is longer"),
        (b"HTTP/1.1 500 X\r\n\r\n", b"x" * 65_536, "500 Internal Server Error"),
        (HEAD, b"X-Header: %s\r\n" % (b"y" * 9_999), "the connection broke"),
        (b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", b"", "the connection broke"),
    ],
    ids=lambda sent: repr(sent)[2:50],
)
async def test_what_is_no_http_or_never_ends_is_left(first, more, error):
    with Raw(first, more) as server:
        answer = await asked(server)
    assert answer.error is not None
    assert answer.error.startswith(error)
    assert server.sent < 40 << 20  # what the sockets hold, too


@pytest.mark.parametrize("first", [b"", HEAD + b"Content-Length: 9999\r\n\r\n"], ids=["no answer", "half an answer"])
async def test_a_server_that_stalls_or_drips_has_the_time_of_the_whole(first):
    """Each byte in time is no whole answer in time."""
    with Server(otherwise=HANG) as silent, Drip(first or HEAD) as drip:
        for server in (silent, drip):
            answer = await asked(server, timeout=0.2)
            assert (answer.error, answer.again) == ("no whole answer within 0.2 s", True)


class Drip(Raw):
    """A server that sends a byte at a time, and never the last one."""

    def _serve(self):
        with suppress(OSError):
            while True:
                connection = self._socket.accept()[0]
                with connection, suppress(OSError):
                    connection.recv(65_536)
                    connection.sendall(self._first)
                    while not self._closing.wait(0.01):
                        connection.sendall(b"X")


async def test_random_bytes_are_an_error_of_ours():
    pick = random.Random(7)
    for _ in range(20):
        with Raw(HEAD + pick.randbytes(200)) as server:
            answer = await asked(server)
        assert answer.is_new == (answer.error is None)


async def test_a_record_of_an_earlier_run_that_others_have_changed_is_nothing_to_go_by(urls, db):
    with Server(otherwise=page) as server:
        path = urls(("id", "a"), *((str(n), f"{server.url}/{n}") for n in range(4)))
        await fetched(path, db)
        connection = apsw.Connection(db)
        for key, text in enumerate(
            ("[1]", "no JSON", '{"a": 5}', '{"a": {"url": 7, "etag": "x\\r\\nB: c", "at": []}}')
        ):
            connection.execute("UPDATE records SET validators = ? WHERE id = ?", (text, str(key)))
        connection.close()
        report = await fetched(path, db)
        assert (report.records, report.not_modified, report.failed) == (4, 0, 0)


# Rows


async def rows_of(tmp_path, content, **options):
    path = tmp_path / "rows"
    path.write_bytes(content)
    return await fetch_rows(path, **options).to_list()


A = {"a": "http://h/a"}


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"id,a\n1,http://h/a\n\n2,\n", [("1", A), ("2", {})]),
        (b'\xef\xbb\xbf\n"id","a"\r\n"1\n,","http://h/a"\r\n', [("1\n,", A)]),
        (b"url\nhttps://h/x\n", [("https://h/x", {"url": "https://h/x"})]),
        (
            b'{"id": 1, "a": "http://h/a", "b": null, "c": ["http://h/b"]}\n\n{"id": "x", "b": "HTTP://h"}',
            [(1, A), ("x", {"b": "HTTP://h"})],
        ),
        (b"id,a\n", []),
        (b"", []),
    ],
)
async def test_rows_are_read_from_csv_and_lines_of_json(tmp_path, content, rows):
    assert [(row.key, row.urls) for row in await rows_of(tmp_path, content)] == rows


async def test_the_key_may_be_another_column(tmp_path):
    (row,) = await rows_of(tmp_path, b"a,id\nhttp://h/a,7\n", key="id")
    assert (row.key, row.urls, row.column) == ("7", A, "id")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,a\n1\n", "line 2: 1 fields, but there are 2 columns"),
        (b'id,a\n1,"x\n', "line 2: not CSV: unexpected end of data"),
        (b"id,a\n,http://h/\n", "line 2: a key is text or an integer, got ''"),
        (b"id,a\n1,\xff\n", "line 2: byte 3: not UTF-8"),
        (b"id,a\n1,\0\n", "line 2: a NUL: this is no text"),
        (b"id,a,A\n1,http://h/,http://h/\n", "line 2: two columns have one name in a table: 'a_status' and 'A_status'"),
        (b"a_body,a\n1,http://h/\n", "line 2: two columns have one name in a table: 'a_body' and 'a_body'"),
        (b"validators,a\n1,http://h/\n", "line 2: two columns have one name in a table"),
        (b'{"id": 1}\n[2]\n', "line 2: no JSON object with a key"),
        (b'{"id": 1}\n{"x"\n', "line 2: not JSON"),
        (b'{"id": 1}\n{"x": 2}\n', "line 2: no column 'id' (key), there are x"),
        (b'{"id": true}\n', "line 1: a key is text or an integer, got True"),
        (b'{"id": 99999999999999999999}\n', "line 1: a key is text in Unicode or an integer of 64 bits"),
        (b'{"id": 1, "x": %s}' % (b"[" * 200_000), "line 1: not JSON"),
        (b"id," + b"x" * 1_000_001, "line 1: longer than 1,000,000 bytes"),
    ],
)
async def test_a_row_that_cannot_be_read_is_named_by_its_line(tmp_path, content, message):
    with pytest.raises(SourceError) as caught:
        await rows_of(tmp_path, content)
    assert message in str(caught.value)
    assert "://" not in str(caught.value)


async def test_a_key_that_comes_twice_is_refused(urls, db):
    with Server(otherwise=page) as server, pytest.raises(DuplicateKeyError):
        await fetched(urls(("id", "a"), ("1", f"{server.url}/a"), ("1", f"{server.url}/b")), db)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency must be an int >= 1, got 0"),
        ({"per_host": 0}, "per_host must be"),
        ({"rate": "0/s"}, "rate must be requests in a time, at least 1, got '0/s'"),
        ({"rate": 5}, "rate must be requests in a time, as 10/s, 500/min or 1000/h, got 5"),
        ({"retry": 0}, "retry must be an int >= 1, got 0"),
        ({"timeout": 0}, "timeout must be"),
        ({"max_bytes": 0}, "max_bytes must be"),
        ({"max_redirects": -1}, "max_redirects must be"),
        ({"allow_private": 1}, "allow_private must be"),
        ({"refresh": None}, "refresh must be"),
        ({"key": ""}, "key must be"),
        ({"attempts": 2}, "fetch has no option 'attempts'"),
        ({"headers": {"Host": "x"}}, "headers must not have 'Host'"),
        ({"headers": {"A b": "x"}}, "headers must have names"),
        ({"headers": {"A": SECRET.encode()}}, "headers must have values of str, got a bytes for 'A'"),
        ({"headers": [SECRET]}, "headers must be a mapping, got a list"),
        ({"headers": {"A": f"{SECRET}\r\nB: c"}}, "headers must have values of printable ASCII"),
    ],
)
def test_options_break_their_rules_before_anything_is_written(urls, db, options, message):
    with pytest.raises(OptionError, match=message) as caught:
        FetchJob(urls(("id", "a")), db, **options)
    assert SECRET not in str(caught.value)
