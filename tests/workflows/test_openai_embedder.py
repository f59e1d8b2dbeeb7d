"""The embedder for servers with `/v1/embeddings`, against a real one on a loopback socket."""

import asyncio
import logging
import socket
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import StringIO
from threading import Barrier, Thread

import numpy as np
import pytest
from rich.console import Console
from rich.traceback import Traceback

import penstock
from penstock import OptionError, Retry
from penstock.workflows import (
    EmbedderAccountError,
    EmbedderUnavailableError,
    EmbedError,
    EmbedJob,
    OpenAIEmbedder,
    StoreError,
    embed,
    search,
)
from penstock.workflows.documents.embedders import wire
from penstock.workflows.documents.embedders.openai import transient
from penstock.workflows.secret import Secret

from ..embedding_server import KEY, Server, error, good, refused_without, vector  # noqa: TID252 -- tests are no package to name
from ..http_server import HANG, Reply  # noqa: TID252 -- as above

pytestmark = [pytest.mark.real_time, pytest.mark.slow]

QUICK = Retry(on=transient, attempts=3, initial=0)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def embedder(server, **options):
    return OpenAIEmbedder("m", **{"base_url": server.url, "key": KEY, "retry": QUICK} | options)


async def ask(*script, texts=("a", "bb"), otherwise=good, **options):
    """Embed `texts` at a server that answers so; the rows, and the server."""
    with Server(*script, otherwise=otherwise) as server:
        return (await embedder(server, **options).embed(texts)).tolist(), server


async def refused(*script, **options):
    """The error of the same; nothing that leads to it shows the key."""
    with pytest.raises(EmbedError) as caught:
        await ask(*script, **options)
    assert_silent(caught.value)
    return caught.value


def assert_silent(error):
    """No traceback with local variables, and no exception behind this one, shows the key."""
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    console = Console(file=StringIO(), width=400)
    console.print(Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True))
    for text in (shown, console.file.getvalue()):
        assert "self = OpenAIEmbedder('m'" in text  # local variables are shown indeed
        assert KEY not in text


# What is asked and what comes back


@pytest.mark.quick
async def test_a_request_is_that_of_the_wire_format():
    rows, server = await ask(texts=["ab", "\ud800c"])
    assert rows == [vector("ab"), vector("?c")]
    assert server.requests == [
        {
            "model": "m",
            "input": ["ab", "?c"],
            "encoding_format": "base64",
            "authorization": f"Bearer {KEY}",
            "path": "/v1/embeddings",
        }
    ]


async def test_no_key_is_not_sent():
    _, server = await ask(key=None)
    assert server.requests[0]["authorization"] is None


@pytest.mark.parametrize("asked", ["base64", "float"])
@pytest.mark.parametrize("sent", ["base64", "float"])
async def test_either_encoding_is_understood(asked, sent):
    rows, server = await ask(otherwise=lambda request: good(request, encoding=sent), encoding=asked)
    assert rows == [vector("a"), vector("bb")]
    assert server.requests[0]["encoding_format"] == asked


async def test_rows_out_of_order_are_put_in_order():
    rows, _ = await ask(lambda request: good(request, order=[2, 0, 1]), texts=["a", "b", "c"])
    assert rows == [vector("a"), vector("b"), vector("c")]


async def test_rows_without_an_index_are_in_the_order_of_the_texts():
    rows, _ = await ask(Reply(body={"data": [{"embedding": [1, 2]}, {"embedding": [3, 4]}]}))
    assert rows == [[1, 2], [3, 4]]


@pytest.mark.quick
async def test_texts_go_in_batches():
    rows, server = await ask(texts=["a" * n for n in range(1, 6)], batch=2)
    assert rows == [vector("a" * n) for n in range(1, 6)]
    assert [len(request["input"]) for request in server.requests] == [2, 2, 1]


async def test_no_texts_are_no_request():
    rows, server = await ask(texts=[])
    assert (rows, server.requests) == ([], [])


async def test_dimensions_are_asked_for_and_checked():
    rows, server = await ask(dimensions=5)
    assert rows == [vector("a", 5), vector("bb", 5)]
    assert server.requests[0]["dimensions"] == 5
    failure = await refused(lambda request: good(request | {"dimensions": 4}), dimensions=5)
    assert isinstance(failure, EmbedderUnavailableError)
    assert "embeddings of 4 dimensions came back, not of 5" in str(failure)


async def test_entering_learns_the_dimensions_once():
    with Server() as server:
        model = embedder(server)
        assert (model.name, model.dimensions) == ("openai:m", None)
        for _ in range(2):
            async with model:
                assert model.dimensions == 3
        assert len(server.requests) == 1


async def test_an_embedder_serves_one_loop_after_another_and_not_two_at_once():
    with Server() as server:
        model = embedder(server)
        async with model:
            other = Thread(target=lambda: asyncio.run(failing(model)))
            other.start()
            await asyncio.to_thread(other.join)
        await model.embed(["a"])


async def failing(model):
    with pytest.raises(RuntimeError, match="is in use on another loop"):
        await model.embed(["a"])


# What is tried again


@pytest.mark.parametrize(
    "first",
    [
        error(429, "slow down", headers={"Retry-After": "0"}),
        error(500, "oops"),
        Reply(502, b"<html>bad gateway</html>"),
        error(503, "overloaded"),
        Reply(504),
        Reply(200, b'{"data": [{"index": 0, "embe', length=5_000),
        Reply(200, b'{"data": [{"index": 0, "embe'),
        Reply(200, b""),
        HANG,
    ],
    ids=["429", "500", "502", "503", "504", "connection cut", "body cut", "empty", "hang"],
)
async def test_what_may_pass_is_tried_again(first):
    rows, server = await ask(first, timeout=0.3 if first is HANG else 30)
    assert rows == [vector("a"), vector("bb")]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (error(500, "oops"), "500 Internal Server Error: oops"),
        (Reply(529, b"busy"), "529: busy"),
        (Reply(200, b'{"data": [', length=5_000), "the connection broke: peer closed connection"),
        (Reply(200, b'{"data": ['), "the answer was cut off after 10 bytes"),
    ],
    ids=["500", "529", "connection cut", "body cut"],
)
async def test_what_does_not_pass_is_told_after_the_last_attempt(reply, message):
    failure = await refused(reply, reply, reply)
    assert f"/v1/embeddings: {message}" in str(failure)
    assert type(failure) is EmbedError
    assert "attempt 3" in failure.__notes__[0]


async def test_a_server_that_hangs_is_left_in_time():
    failure = await refused(HANG, HANG, HANG, timeout=0.1)
    assert str(failure).endswith("/v1/embeddings: no answer within 0.1 s")
    assert type(failure) is EmbedError


async def test_a_server_that_is_not_there_is_unavailable():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        model = OpenAIEmbedder("m", base_url=f"http://127.0.0.1:{unused.getsockname()[1]}", retry=QUICK)
        with pytest.raises(EmbedderUnavailableError, match=r"127\.0\.0\.1:\d+/embeddings: no connection: "):
            await model.embed(["a"])


async def test_a_server_that_throttles_for_good_is_unavailable():
    throttled = error(429, "slow down", headers={"Retry-After": "0"})
    failure = await refused(throttled, throttled, throttled)
    assert isinstance(failure, EmbedderUnavailableError)
    assert "429 Too Many Requests: slow down" in str(failure)


async def test_a_wait_that_is_asked_for_is_kept():
    """Without Retry-After the second attempt would come an hour later."""
    slow = Retry(on=transient, attempts=2, initial=3_600, max=3_600)
    began = asyncio.get_running_loop().time()
    rows, _ = await ask(error(429, "slow down", headers={"Retry-After": "1"}), retry=slow)
    assert rows == [vector("a"), vector("bb")]
    assert asyncio.get_running_loop().time() - began >= 1


async def test_the_wait_of_a_users_own_retry_goes_before():
    own = Retry(on=transient, attempts=2, wait=lambda error: 0)
    rows, _ = await ask(error(429, "slow down", headers={"Retry-After": "60"}), retry=own)
    assert rows == [vector("a"), vector("bb")]


NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "86400"}, 60),
        ({"retry-after": "9" * 10_000}, 60),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=20), usegmt=True)}, 20),
        ({"retry-after": format_datetime(NOW - timedelta(days=1), usegmt=True)}, None),
        ({"retry-after": format_datetime(NOW + timedelta(days=1), usegmt=True)}, 60),
        ({"retry-after": "Tue, 01 Jan 2030 12:00:05 -0000"}, 5),
        ({"retry-after": "Tue, 99 Jan 2030 12:00:05 GMT"}, None),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "1"}, 1),
    ],
    ids=str,
)
def test_retry_after_in_all_its_forms(headers, seconds):
    assert wire.retry_after(headers, NOW) == seconds


# What is not tried again


async def test_a_key_that_is_refused_ends_a_stream_whatever_on_error_says():
    """As it does for a model: else each row is asked for, and set aside."""
    with Server(good, otherwise=error(401, "revoked")) as server:
        vectors = penstock.stream(range(50)).map(str).map_batches(embedder(server).embed, 1, on_error="collect")
        with pytest.raises(EmbedderAccountError, match="401 Unauthorized: revoked"):
            await vectors.to_list()
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("reply", "message", "kind"),
    [
        (error(400, "too long"), "400 Bad Request: too long", EmbedError),
        (Reply(413), "413 ", EmbedError),
        (Reply(422, {"detail": "no such field"}), "422 Unprocessable", EmbedError),
        (error(401, "who are you?"), "401 Unauthorized: who are you?", EmbedderAccountError),
        (error(403, "no"), "403 Forbidden: no", EmbedderAccountError),
        (error(404, "no such model"), "404 Not Found: no such model", EmbedderUnavailableError),
        (Reply(404, {"error": "no such model"}), "404 Not Found: no such model", EmbedderUnavailableError),
        (Reply(307, headers={"Location": "http://127.0.0.1:1/"}), "307 Temporary Redirect", EmbedderUnavailableError),
        (error(429, "pay", code="insufficient_quota"), "429 Too Many Requests: pay", EmbedderAccountError),
        (Reply(501), "501 Not Implemented", EmbedError),
        (Reply(200, b"<html>hello</html>"), "the answer is no JSON: <html>hello</html>", EmbedError),
        (Reply(200, b"\xff\xfe{}"), "the answer is no JSON: ", EmbedError),
        (Reply(200, {"error": {"message": "not today"}}), "the answer has no embeddings: not today", EmbedError),
        (Reply(200, []), "the answer has no embeddings: []", EmbedError),
        (Reply(200, b"x" * 10_000), f"no JSON: {'x' * 177}... (9,823 more)", EmbedError),
    ],
    ids=lambda value: None if isinstance(value, type) else str(getattr(value, "status", value))[:30],
)
async def test_what_will_not_pass_is_told_at_once(reply, message, kind):
    with Server(reply) as server:
        with pytest.raises(EmbedError) as caught:
            await embedder(server).embed(["a"])
        assert len(server.requests) == 1
    assert_silent(caught.value)
    assert type(caught.value) is kind
    assert f"{server.url}/embeddings: " in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"index": 0, "embedding": [1]}], "1 embeddings came back for 2 texts"),
        ([{"index": 0, "embedding": [1]}] * 3, "3 embeddings came back for 2 texts"),
        ([{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}], "another form, size or index"),
        ([{"index": 1, "embedding": [1]}, {"index": 2, "embedding": [1]}], "another form, size or index"),
        ([{"index": 0, "embedding": [1]}, {"embedding": [1]}], "another form, size or index"),
        ([{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1, 2]}], "another form, size or index"),
        ([{"index": 0, "embedding": []}, {"index": 1, "embedding": []}], "another form, size or index"),
        ([{"index": 0, "embedding": 1}, {"index": 1, "embedding": 2}], "another form, size or index"),
        ([{"index": 0}, {"index": 1}], "another form, size or index"),
        ([{"index": [], "embedding": [1]}, {"index": 1, "embedding": [1]}], "another form, size or index"),
        ([1, 2], "another form, size or index"),
        ([{"index": 0, "embedding": "!"}, {"index": 1, "embedding": "AAA="}], "another form, size or index"),
        ([{"index": 0, "embedding": [float("nan")]}, {"index": 1, "embedding": [1]}], "not finite"),
        ([{"index": 0, "embedding": [1e39]}, {"index": 1, "embedding": [1]}], "not finite"),
        ([{"index": 0, "embedding": [10**400]}, {"index": 1, "embedding": [1]}], "another form, size or index"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_an_answer_that_does_not_fit_is_refused(rows, message):
    failure = await refused(Reply(200, {"data": rows}))
    assert message in str(failure)
    assert type(failure) is EmbedError


# The key


async def test_the_key_shows_nowhere(caplog):
    """Not where the server repeats it, not in a repr, not in a log."""
    caplog.set_level(logging.DEBUG)
    with Server(otherwise=refused_without(KEY)) as server:
        wrong = "sk-wrong-0123456789"
        model = embedder(server, key=wrong)
        with pytest.raises(EmbedderUnavailableError, match=r"401 Unauthorized: Incorrect API key .*Bearer \*\*\*"):
            async with model:
                pytest.fail("entered")
        await embedder(server).embed(["a"])
    assert caplog.records
    shown = repr(model) + str(vars(model)) + caplog.text
    assert wrong not in shown
    assert KEY not in shown


@pytest.mark.parametrize("key", ["two words", "new\nline", "schlüssel", b"bytes"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key):
    with pytest.raises(OptionError) as caught:
        Secret.of(key)
    ours = caught.value.with_traceback(caught.value.__traceback__.tb_next)  # the frame of the test has the key
    shown = "".join(traceback.TracebackException.from_exception(ours, capture_locals=True).format())
    assert "key must be " in shown
    assert "self = <secret>" in shown
    assert repr(key) not in shown


def test_a_key_loses_the_white_space_round_it_and_may_be_empty():
    assert Secret.of(" x\n").reveal() == "x"
    assert Secret.of("") is Secret.of(" ") is Secret.of(None) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": ""}, "model must be a non-empty str, got ''"),
        ({"base_url": "localhost:1/v1"}, "base_url must be an http or https address .*, got 'localhost:1/v1'"),
        ({"base_url": "http://"}, "base_url must be an http or https address"),
        ({"base_url": "http://h:x/v1"}, "base_url must be an http or https address"),
        ({"base_url": "http://me:hidden@h/v1"}, "got one with them for h$"),
        ({"base_url": "http://h/v1?key=hidden"}, "got one with them for h$"),
        ({"dimensions": 0}, "dimensions must be an int >= 1, got 0"),
        ({"batch": 0}, "batch must be an int >= 1, got 0"),
        ({"timeout": 0}, "timeout must be a finite number of seconds > 0"),
        ({"retry": 3}, "retry must be a Retry, got 3"),
        ({"encoding": "hex"}, "encoding must be one of 'base64', 'float', got 'hex'"),
    ],
    ids=str,
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(OptionError, match=message) as caught:
        OpenAIEmbedder(**{"model": "m", "key": KEY} | options)
    assert "hidden" not in str(caught.value)


# In a run


@pytest.fixture
def docs(tmp_path):
    root = tmp_path / "docs"
    root.mkdir()
    for number in range(20):
        (root / f"{number:02}.txt").write_text("a" * number)
    return root


@pytest.mark.quick
async def test_a_run_stores_what_the_server_gives_and_search_asks_it_too(docs, tmp_path, rows):
    (docs / "long.txt").write_text("\n\n".join(f"paragraph {n} {'word ' * 150}" for n in range(200)))
    with Server(otherwise=refused_without(KEY)) as server:
        report = await embed(docs, tmp_path / "i.db", embedder=embedder(server))
        assert (report.files, report.failed) == (21, 0)
        sizes = [len(request["input"]) for request in server.requests]
        assert max(sizes) == 64
        for row in rows(tmp_path / "i.db")[1:20]:
            assert np.frombuffer(row.vector, np.float32).tolist() == vector(f"{row.name[:2]}\n{row.text}")
        asked = len(server.requests)
        assert search(tmp_path / "i.db", "aaa", embedder=embedder(server))
        assert [request["input"] for request in server.requests[asked:]] == [["aaa"]]
        again = await embed(docs, tmp_path / "i.db", embedder=embedder(server))
        assert again.unchanged == 21
    for path in tmp_path.iterdir():
        assert path.is_dir() or KEY.encode() not in path.read_bytes()


async def test_a_wrong_key_ends_the_run_before_anything_is_written(docs, tmp_path):
    with Server(otherwise=refused_without("another")) as server:
        with pytest.raises(EmbedderUnavailableError, match="401 Unauthorized"):
            await embed(docs, tmp_path / "i.db", embedder=embedder(server))
        assert len(server.requests) == 1
    assert list(tmp_path.iterdir()) == [docs]


async def test_a_key_that_is_revoked_ends_the_run_and_keeps_what_was_stored(docs, tmp_path):
    with Server(*[good] * 6, otherwise=error(401, "revoked")) as server:
        job = EmbedJob(docs, tmp_path / "i.db", embedder=embedder(server, batch=1))
        with pytest.raises(EmbedderUnavailableError, match="401 Unauthorized: revoked"):
            await job.run()
        assert job.opened
        assert len(server.requests) <= 6 + 8
    stored = job.report().files
    with Server() as server:
        again = await embed(docs, tmp_path / "i.db", embedder=embedder(server, batch=1))
    assert again.unchanged >= stored
    assert again.files + again.unchanged == 20


async def test_a_document_that_the_server_refuses_is_listed_and_the_others_stored(docs, tmp_path):
    def picky(request):
        return error(400, "too many a") if any("a" * 15 in text for text in request["input"]) else good(request)

    with Server(otherwise=picky) as server:
        report = await embed(docs, tmp_path / "i.db", embedder=embedder(server))
        assert max(len(request["input"]) for request in server.requests) > 15
    assert (report.files, report.failed) == (15, 5)
    assert {failure.reason for failure in report.failures} == {f"{server.url}/embeddings: 400 Bad Request: too many a"}


async def test_halves_of_a_batch_that_fails_every_time_are_tried_once(docs, tmp_path):
    """All attempts with their waits for each half would be a minute for one bad text among 64."""
    (docs / "odd.txt").write_text("odd")
    sizes = []

    def in_trouble(request):
        if not any("odd" in text for text in request["input"]):
            return good(request)
        sizes.append(len(request["input"]))
        return error(500, "NaN")

    with Server(otherwise=in_trouble) as server:
        report = await embed(docs, tmp_path / "i.db", embedder=embedder(server))
    assert (report.files, report.failed) == (19 + 1, 1)
    assert sizes[: QUICK.attempts] == [sizes[0]] * QUICK.attempts
    assert len(set(sizes[QUICK.attempts - 1 :])) == len(sizes[QUICK.attempts - 1 :])


async def test_a_half_that_is_throttled_waits_as_the_server_asks(docs, tmp_path):
    """That is not the fault of its texts."""
    throttled = set()

    def busy(request):
        texts = frozenset(request["input"])
        if any("a" * 19 in text for text in texts):
            return error(500, "NaN")
        if "penstock" in texts or texts in throttled:
            return good(request)
        throttled.add(texts)
        return error(429, "slow down", headers={"Retry-After": "0.001"})

    with Server(otherwise=busy) as server:
        report = await embed(docs, tmp_path / "i.db", embedder=embedder(server))
    assert (report.files, report.failed) == (19, 1)


async def test_documents_are_embedded_side_by_side(docs, tmp_path):
    """Eight requests are on their way at once: with fewer this would wait for ever."""
    together = Barrier(8, timeout=60)

    def meet(request):
        together.wait()
        return good(request)

    with Server(good, *[meet] * 8) as server:
        assert (await embed(docs, tmp_path / "i.db", embedder=embedder(server, batch=1))).files == 20


async def test_stop_gives_requests_a_while_and_no_more(docs, tmp_path):
    with Server(*[good] * 3, otherwise=HANG) as server:
        job = EmbedJob(docs, tmp_path / "i.db", embedder=embedder(server, batch=1))
        running = asyncio.ensure_future(job.run())
        await asyncio.to_thread(server.wait_for, 4)
        job.stop(grace=0.05)
        report = await running
    assert report.interrupted
    assert report.files <= 3
    with Server() as server:
        again = await embed(docs, tmp_path / "i.db", embedder=embedder(server, batch=1))
    assert again.files + again.unchanged == 20


async def test_stop_before_the_server_has_said_a_word_ends_at_once(docs, tmp_path):
    with Server(otherwise=HANG) as server:
        job = EmbedJob(docs, tmp_path / "i.db", embedder=embedder(server))
        running = asyncio.ensure_future(job.run())
        await asyncio.to_thread(server.wait_for)
        job.stop(grace=3_600)
        assert (await running).interrupted
    assert list(tmp_path.iterdir()) == [docs]


async def test_an_index_of_another_model_is_refused_and_says_which(docs, tmp_path):
    with Server() as server:
        await embed(docs, tmp_path / "i.db", embedder=embedder(server))
        message = r"made with the embedder openai:m \(3 dimensions\), not hash-1 \(1024\); use --embedder openai:m, or"
        with pytest.raises(StoreError, match=message):
            await embed(docs, tmp_path / "i.db")
        other = OpenAIEmbedder("n", base_url=server.url, retry=QUICK)
        asked = len(server.requests)
        with pytest.raises(StoreError, match="not openai:n; use --embedder openai:m, or name another index"):
            search(tmp_path / "i.db", "x", embedder=other)
        assert len(server.requests) == asked
    with (
        Server(otherwise=lambda request: good(request, width=4)) as wider,
        pytest.raises(StoreError, match=r"openai:m \(3 dimensions\), not openai:m \(4\)"),
    ):
        search(tmp_path / "i.db", "x", embedder=embedder(wider))
