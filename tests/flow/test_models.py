"""Models of services against a server that sends bytes, and misbehaves: what comes of that, and what is never told."""

import asyncio
import gc
import json
import traceback
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from penstock import OptionError
from penstock.flow.added import CannotBegin
from penstock.flow.answers import AnswerBody
from penstock.flow.anthropic_messages import AnthropicMessages, _ClaudeMessage
from penstock.flow.models import DeclinedError, Model, ModelError, Reply, TruncatedError
from penstock.flow.openai_chat import OpenAIChat, _Completion
from penstock.flow.secrets import secret

from .model_server import (
    CLOSE,
    HANG,
    RESET,
    TEXT,
    ModelServer,
    anthropic_document,
    anthropic_events,
    chunked,
    events,
    head,
    openai_document,
    openai_events,
    whole,
)

pytestmark = [pytest.mark.real_time, pytest.mark.slow]

KEY = "sk-penstock-0123456789"


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)


class OpenAI:
    model, answer, path = OpenAIChat, _Completion, "/chat/completions"
    events, document = staticmethod(openai_events), staticmethod(openai_document)
    stop, cut = "stop", "length"


class Anthropic:
    model, answer, path = AnthropicMessages, _ClaudeMessage, "/v1/messages"
    events, document = staticmethod(anthropic_events), staticmethod(anthropic_document)
    stop, cut = "end_turn", "max_tokens"


@pytest.fixture(params=[OpenAI, Anthropic])
def service(request):
    return request.param


async def ask(service, *script, prompt="Say hello", ask=(), **options):
    with ModelServer(*script) as server:
        return await service.model("m", **{"base_url": server.url} | options).ask(prompt, **dict(ask))


async def failed(service, *script, **options):
    with pytest.raises(ModelError) as caught:
        await ask(service, *script, **options)
    return caught.value


def streamed(body):
    return head() + chunked(body)


# What is sent, and what comes back


@pytest.mark.slow
async def test_an_answer_in_pieces(service):
    reply = await ask(service, streamed(service.events()))
    assert reply == Reply(TEXT, service.stop, 5, 7)


async def test_an_answer_at_once(service):
    reply = await ask(service, whole(service.document()), stream=False)
    assert reply == Reply("Hello", service.stop, 5, 7)


async def test_a_document_in_answer_to_a_streamed_request_is_an_answer(service):
    assert await ask(service, whole(service.document())) == Reply("Hello", service.stop, 5, 7)


async def test_what_is_not_said_is_not_known(service):
    assert await ask(service, streamed(service.events(usage=None))) == Reply(TEXT, service.stop, None, None)
    assert await ask(service, whole(service.document(usage=None))) == Reply("Hello", service.stop, None, None)


async def test_tokens_that_came_from_a_cache_are_told(service):
    """Trap: those of Anthropic's cache are no part of its `input_tokens`, those of OpenAI's are."""
    usage = {
        "openai": {"prompt_tokens": 9, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}},
        "anthropic": {
            "input_tokens": 3, "output_tokens": 7, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2
        },
    }[service.model.package]  # fmt: skip
    assert await ask(service, whole({**service.document(), "usage": usage})) == Reply("Hello", service.stop, 9, 7, 4)


def test_openai_itself_is_told_max_completion_tokens(monkeypatch):
    """Trap: some of its models refuse `max_tokens`; other servers know nothing else."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert OpenAIChat("m").fields("x", None, 9)["max_completion_tokens"] == 9
    assert OpenAIChat("m", base_url="http://127.0.0.1/v1").fields("x", None, 9)["max_tokens"] == 9
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:11434/v1")
    assert OpenAIChat("m").fields("x", None, 9)["max_tokens"] == 9


async def test_what_openai_is_sent():
    with ModelServer(*[streamed(openai_events())] * 3) as server:
        model = OpenAIChat("m", base_url=f"{server.url}/v1", request={"temperature": 0})
        await model.ask("Hi", system="Be brief", max_tokens=9)
        await OpenAIChat("m", base_url=server.url, request={"max_completion_tokens": 3}).ask("Hi")
        await OpenAIChat("m", base_url=server.url, key=None, stream=True).ask("Hi")
    first, second, third = server.requests
    assert first == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}],
        "max_tokens": 9,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
    }
    assert second["max_completion_tokens"] == 3
    assert "max_tokens" not in second
    assert third["messages"] == [{"role": "user", "content": "Hi"}]
    assert [each["path"] for each in server.heads] == ["/v1/chat/completions", *["/chat/completions"] * 2]
    assert [each.get("authorization") for each in server.heads] == [f"bearer {KEY}", f"bearer {KEY}", None]


async def test_what_anthropic_is_sent():
    with ModelServer(*[streamed(anthropic_events())] * 2) as server:
        model = AnthropicMessages("m", base_url=server.url, request={"temperature": 0})
        await model.ask("Hi", system="Be brief", max_tokens=9)
        await AnthropicMessages("m", base_url=server.url, key=None).ask("Hi")
    assert server.requests[0] == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "system": "Be brief",
        "max_tokens": 9,
        "stream": True,
        "temperature": 0,
    }
    assert {each["path"] for each in server.heads} == {"/v1/messages"}
    assert [KEY in str(each) for each in server.heads] == [True, False]


async def test_a_client_of_the_user_is_used_and_stays_open(service):
    package = __import__(service.model.package)
    made = getattr(package, "AsyncOpenAI" if service is OpenAI else "AsyncAnthropic")
    with ModelServer(whole({}, 529), streamed(service.events())) as server:
        async with made(api_key="sk-of-the-client", base_url=server.url) as client:
            model = service.model("m", client=client)
            with pytest.raises(ModelError, match="529") as caught:
                await model.ask("Hi")
            assert (await model.ask("Hi")).text == TEXT
            assert not client.is_closed()
    assert caught.value.transient
    assert len(server.requests) == 2  # its own retries are off
    assert "sk-of-the-client" in server.heads[0]["authorization"]


async def test_the_key_is_read_at_each_use(service, monkeypatch):
    with ModelServer(*[streamed(service.events())] * 2) as server:
        model = service.model("m", key=secret("PENSTOCK_KEY"), base_url=server.url)
        for key in ("one", "two"):
            monkeypatch.setenv("PENSTOCK_KEY", key)
            await model.ask("Hi")
    assert [each["authorization"] for each in server.heads] == ["bearer one", "bearer two"]


async def test_a_key_that_is_not_there_is_named(service, monkeypatch):
    monkeypatch.delenv("PENSTOCK_KEY", raising=False)
    model = service.model("m", key=secret("PENSTOCK_KEY"))
    with pytest.raises(CannotBegin, match="there is no secret 'PENSTOCK_KEY'"):
        await model.ask("Hi")
    monkeypatch.setenv("PENSTOCK_KEY", "a b\n c")
    with pytest.raises(CannotBegin, match="the secret 'PENSTOCK_KEY' must be printable ASCII without spaces"):
        model.check()


# Wholeness


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_an_answer_that_is_cut_anywhere_is_no_answer(service, line_end):
    """A package takes what there was for all, wherever the connection ends between two events."""
    body = service.events(line_end=line_end)
    for at in range(len(body)):
        answer = service.answer()
        read = AnswerBody(answer)
        read.feed(body[:at])
        read.end()
        if answer.is_whole():
            assert "".join(answer.texts) == TEXT
            assert answer.stop == service.stop
            assert body.rfind(b"stop", 0, at) > 0
        assert answer.trouble is None


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("step", [1, 2, 3, 17])
def test_an_answer_in_any_pieces_is_the_same(service, line_end, step):
    body = b"\xef\xbb\xbf" + service.events(line_end=line_end)
    answer = service.answer()
    read = AnswerBody(answer)
    assert all(read.feed(body[at : at + step]) for at in range(0, len(body), step))
    read.end()
    assert answer.is_whole()
    assert answer.reply() == Reply(TEXT, service.stop, 5, 7)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("how", [CLOSE, RESET], ids=["ended", "reset"])
async def test_a_connection_that_ends_early_cuts_the_answer(service, share, how):
    body = service.events()
    failure = await failed(service, (head() + chunked(body[: int(len(body) * share)], end=False), how))
    assert failure.transient
    assert "the answer was cut off" in str(failure)
    if share == 0.6:
        assert failure.reply.text
        assert TEXT.startswith(failure.reply.text)
        assert failure.reply.input_tokens == (5 if service is Anthropic else None)


async def test_a_body_that_ends_in_order_and_says_no_reason_was_cut(service):
    body = service.events()
    failure = await failed(service, streamed(body[: len(body) // 2]))
    assert failure.transient
    assert str(failure) == "model 'm': the answer was cut off: it does not say why it ended"
    assert await failed(service, streamed(b"")) is not None
    assert "cut off" in str(await failed(service, whole(json.dumps(service.document())[:-30].encode())))


async def test_a_reason_in_a_body_that_does_not_end_in_order_is_not_enough(service):
    failure = await failed(service, (head() + chunked(service.events(), end=False), CLOSE))
    assert failure.transient
    assert failure.reply == Reply(TEXT, service.stop, 5, 7)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_had_all_its_tokens_is_truncated(service, stream):
    sent = streamed(service.events(stop=service.cut)) if stream else whole(service.document(stop=service.cut))
    failure = await failed(service, sent, stream=stream, ask={"max_tokens": 7})
    assert type(failure) is TruncatedError
    assert not failure.transient
    assert failure.reply == Reply(TEXT if stream else "Hello", service.cut, 5, 7)
    assert "max_tokens=7" in str(failure)


# Failures


@pytest.mark.parametrize(
    ("status", "transient"),
    [(400, False), (401, False), (403, False), (404, False), (408, True), (409, True), (413, False), (422, False),
     (425, True), (429, True), (500, True), (503, True), (529, True), (302, False)],
)  # fmt: skip
async def test_a_status_says_whether_it_passes(service, status, transient):
    body = {"type": "error", "error": {"type": "some_error", "message": f"words\x1b[31m with {KEY}"}}
    failure = await failed(service, whole(body, status))
    assert (failure.transient, failure.status, failure.retry_after) == (transient, status, None)
    assert failure.reply is None
    if status != 302:
        assert failure.kind == "some_error"
        assert r"some_error: words\x1b[31m with ***" in str(failure)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("120", 120.0), ("0", None), ("-3", None), ("nan", None), ("soon", None), ("٣", None)],
)
async def test_a_wait_in_seconds(service, value, seconds):
    sent = whole({}, 429).replace(b"\r\n", f"\r\nRetry-After: {value}\r\n".encode(), 1)
    assert (await failed(service, sent)).retry_after == seconds


async def test_a_wait_until_a_date(service):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=1000), usegmt=True)
    failure = await failed(service, whole({}, 529, more=[f"Retry-After: {date}"]))
    assert failure.status == 529
    assert 900 < failure.retry_after <= 1000
    past = whole({}, 529, more=["Retry-After: Mon, 01 Jan 2001 00:00:00 GMT"])
    assert (await failed(service, past)).retry_after is None


@pytest.mark.parametrize(
    ("error", "transient", "kind"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, True, "overloaded_error"),
        ({"type": "rate_limit_error", "message": "slow"}, True, "rate_limit_error"),
        ({"type": "api_error", "message": "oops"}, True, "api_error"),
        ({"type": "server_error", "code": None, "message": "oops"}, True, "server_error"),
        ({"type": None, "code": "rate_limit_exceeded", "message": "slow"}, True, "rate_limit_exceeded"),
        ({"type": "x", "code": 503, "message": "busy"}, True, "x"),
        ({"type": "invalid_request_error", "message": "no"}, False, "invalid_request_error"),
        ("only words", False, None),
    ],
)
async def test_errors_inside_of_a_good_status(service, error, transient, kind):
    begun = service.events()[: 3 * len(service.events()) // 5].rpartition(b"\n\n")[0] + b"\n\n"
    body = {"type": "error", "error": error}
    for sent in (
        streamed(begun + events(body, named=True)),
        (head() + chunked(begun + events(body)), HANG),
        whole(body),
    ):
        failure = await failed(service, sent)
        assert (failure.transient, failure.kind, failure.status) == (transient, kind, 200)
        assert (error if isinstance(error, str) else error["message"]) in str(failure)
    assert (await failed(service, streamed(begun + events(body, named=True)))).reply.text


@pytest.mark.parametrize(
    "content",
    [
        b"<html><body>Sign in</body></html>",
        b"[1, 2]",
        b"null",
        b'"text"',
        b"{}",
        b'{"a": 1}',
        b'{"choices": [], "content": 1}',
    ],
)
async def test_an_answer_of_another_form_is_no_matter_of_time(service, content):
    for stream in (True, False):
        failure = await failed(service, whole(content, kind="text/html"), stream=stream)
        assert not failure.transient
        assert failure.status == 200


async def test_events_under_another_content_type_are_events(service):
    assert (await ask(service, head(kind="text/plain") + chunked(service.events()))).text == TEXT


async def test_an_event_that_is_no_json_is_a_failure(service):
    failure = await failed(service, streamed(service.events() + b"data: {nonsense\n\n"))
    assert (str(failure), failure.transient) == ("model 'm': an event of the answer is no JSON object", False)


@pytest.mark.parametrize("begun", [False, True])
async def test_silence_is_a_failure_that_passes(service, begun):
    sent = head() + chunked(service.events()[:200], end=False) if begun else b""
    failure = await failed(service, (sent, HANG), idle=0.05)
    assert failure.transient
    assert "nothing came for idle=0.05 s" in str(failure)


async def test_an_answer_that_is_followed_by_silence_has_not_ended(service):
    failure = await failed(service, (head() + chunked(service.events(), end=False), HANG), idle=0.05)
    assert failure.transient
    assert failure.reply == Reply(TEXT, service.stop, 5, 7)


async def test_no_connection_passes(service):
    with ModelServer() as server:
        url = server.url
    with pytest.raises(ModelError, match="no connection") as caught:
        await service.model("m", base_url=url).ask("Hi")
    assert caught.value.transient
    assert caught.value.status is None
    failure = await failed(service, (b"", CLOSE))
    assert failure.transient
    assert not (await failed(service, b"SSH-2.0-OpenSSH_9.9\r\n")).reply


async def test_a_body_without_end_is_left(service, monkeypatch):
    monkeypatch.setattr("penstock.flow.answers.MOST", 100_000)
    monkeypatch.setattr("penstock.flow.services.MOST", 200_000)
    endless = chunked(*[b": ping\n" * 10_000] * 5, end=False)
    assert "longer than 100,000 bytes" in str(await failed(service, (head() + endless, HANG)))
    assert "200,000 bytes" in str(await failed(service, (head(500) + chunked(*[b"x" * 100_000] * 9), HANG)))


# What is never told


def all_texts(error):
    """All that anybody can show of an exception: what it leads to, and the frames of it with their variables."""
    shown, seen, left = [], set(), [error]
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        shown += [str(each), repr(each), repr(each.args), repr(vars(each))]
        frames = traceback.StackSummary.extract(traceback.walk_tb(each.__traceback__), capture_locals=True)
        shown += [repr(frame.locals) for frame in frames if frame.filename != __file__]
        left += [other for other in (each.__cause__, each.__context__) if other is not None]
    return "\n".join(shown)


@pytest.mark.parametrize(
    "script",
    [
        whole({"error": {"type": KEY, "message": KEY}}, 401),
        whole({"error": {"type": "x" + KEY, "message": KEY}}),
        whole(KEY.encode(), 500),
        (head() + chunked(events({"error": KEY}), end=False), CLOSE),
        (head(), HANG),
        (b"", RESET),
        b"HTTP/1.1 200 OK\r\n" + KEY.encode() + b"\r\n\r\n",
    ],
)
async def test_no_failure_shows_the_key(service, script):
    failure = await failed(service, script, idle=0.05)
    assert failure.__cause__ is failure.__context__ is None
    shown = all_texts(failure)
    assert KEY not in shown
    assert KEY not in repr(service.model("m"))


async def test_a_cancellation_shows_no_key(service):
    with ModelServer((b"", HANG)) as server:
        asked = asyncio.create_task(service.model("m", base_url=server.url).ask("Hi"))
        await asyncio.to_thread(server.asked.acquire)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await asked
    assert KEY not in all_texts(caught.value)


@pytest.mark.parametrize("streams", [False, True])
async def test_an_answer_that_is_declined_is_none(service, streams):
    """Trap: the refusal of a model stands in a field of its own, or the text is empty: it was stored as an answer."""
    stop = "content_filter" if service is OpenAI else "refusal"
    said = streamed(service.events(stop=stop)) if streams else whole(service.document(stop=stop))
    failure = await failed(service, said, stream=streams)
    assert type(failure) is DeclinedError
    assert (failure.kind, failure.transient, failure.reply.output_tokens) == (stop, False, 7)
    assert f"it declines to answer ({stop}): Hello" in str(failure)


@pytest.mark.parametrize("streams", [False, True])
async def test_a_refusal_of_openai_is_told_and_no_answer(streams):
    """The text is empty then."""
    document = openai_document()
    choice = document["choices"][0]
    choice["message"] = {"role": "assistant", "content": None, "refusal": "I will not"}
    if streams:
        choice["delta"] = choice.pop("message")
        said = streamed(events(document))
    else:
        said = whole(document)
    failure = await failed(OpenAI, said, stream=streams)
    assert (type(failure), failure.kind) == (DeclinedError, "refusal")
    assert "it declines to answer (refusal): I will not" in str(failure)


async def test_an_answer_that_repeats_the_key_is_masked(service):
    assert (await ask(service, streamed(service.events(text=f"<{KEY}>")))).text == "<***>"


async def test_requests_that_overlap_share_connections_and_none_outlives_them(service):
    """A thousand handshakes would take longer than a thousand answers."""
    opened, ended, content = [], asyncio.Event(), whole(service.document()).replace(b"Connection: close\r\n", b"")

    async def serve(reader, writer):
        opened.append(writer)
        with suppress(asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
                writer.write(content)
        writer.close()
        if all(each.is_closing() for each in opened):
            ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        model = service.model("m", base_url=url, stream=False)

        async def several():
            for _ in range(5):
                await model.ask("Hi")

        await asyncio.gather(several(), several())
        assert len(opened) == 2
        await ended.wait()
        await model.ask("Hi")
        assert len(opened) == 3


@pytest.mark.slow
async def test_cancelled_at_every_await_it_leaves_nothing(service):
    """Leftovers are found by the fixture of all tests; connections by the server, which waits for their ends."""
    passes, done = 0, False
    while not done:
        with ModelServer(*[streamed(service.events())] * 2) as server:
            asked = asyncio.create_task(service.model("m", base_url=server.url).ask("Hi"))
            for _ in range(passes):
                await asyncio.sleep(0)
            done = asked.done() or passes > 400
            asked.cancel()
            await asyncio.wait([asked])
            assert done or asked.cancelled() or asked.exception() is None
        passes += 7
    gc.collect()


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": KEY}, r"key must be secret\(NAME\) or None, got a str"),
        ({"base_url": "ftp://host"}, "base_url must be an http or https address .* got 'ftp://host'"),
        (
            {"base_url": "http://user:pass@host"},
            "address without user, query and fragment, got one with them for host$",
        ),
        ({"base_url": ""}, "base_url must be a non-empty str"),
        ({"stream": "yes"}, "stream must be True or False, got 'yes'"),
        ({"idle": 0}, "idle must be a finite number of seconds > 0"),
        ({"request": ["temperature"]}, "request must be a mapping of fields"),
        ({"request": {"model": "x"}}, "request must not have the field 'model'"),
        ({"client": object(), "idle": 3}, "idle must not be given with client, which has its own"),
        ({"client": object(), "key": None}, "key must not be given with client"),
        ({"timeout": 3}, "has no option 'timeout': there are base_url, client, idle, key, limits, request, stream"),
    ],
)
def test_bad_options_are_refused_when_it_is_built(service, options, message):
    with pytest.raises(OptionError, match=message) as caught:
        service.model("m", **options)
    assert KEY not in str(caught.value)
    assert "pass@" not in str(caught.value)


async def test_bad_questions_are_refused(service):
    for arguments, options in (((5,), {}), (("Hi",), {"max_tokens": 0}), (("Hi",), {"max_tokens": True})):
        with pytest.raises(OptionError):
            await service.model("m", key=None).ask(*arguments, **options)


def test_it_is_a_model(service):
    assert isinstance(service.model("m"), Model)
    assert repr(service.model("m")) == f"{service.model.__name__}('m')"
