"""Limits that follow what services say, and errors of the key and the credit: against a server that sends anything."""

import asyncio
import logging
import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import product

import pytest

import penstock
from penstock import FatalError, OptionError, RateLimit, Retry
from penstock.flow import (
    AccountError,
    AnthropicMessages,
    ModelError,
    OpenAIChat,
    Pipeline,
    PipelineEngine,
    prompt,
    secret,
)
from penstock.flow.models import transient
from penstock.flow.service_limits import FollowedLimits, seconds_of

from .model_server import ModelServer, anthropic_document, head, openai_document, whole

KEY = "sk-penstock-0123456789"

real_time = pytest.mark.real_time


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, KEY)


def openai_headers(limit="60", remaining="60", reset="1s", kind="requests"):
    said = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"x-ratelimit-{name}-{kind}": value for name, value in said.items() if value is not None}


def lines(headers):
    return [f"{name}: {value}" for name, value in headers.items()]


# What headers say


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("6m0s", 360), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("1", 1), ("0.25", 0.25), ("0s", 0), ("2d", 172800)],
)
def test_durations(said, seconds):
    assert seconds_of(said) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "said", ["", "nan", "inf", "-1", "-3s", "1e9", "soon", "3 s", "s", "6m0", "٣s", "1s" * 99, "9" * 16, "2026-99-01"]
)
def test_what_is_no_duration(said):
    assert seconds_of(said) is None


def test_times():
    then = datetime.now(UTC) + timedelta(seconds=30)
    assert seconds_of(then.isoformat()) == pytest.approx(30, abs=2)
    assert seconds_of(then.isoformat().replace("+00:00", "Z")) == pytest.approx(30, abs=2)
    assert seconds_of("2001-01-01T00:00:00Z") == 0


def following(limit, headers, kind="requests", service=OpenAIChat):
    FollowedLimits({kind: limit}, service.limit_headers).follow(headers)
    return limit


async def test_a_lower_limit_is_followed_and_a_higher_one_as_far_as_the_own():
    """The number of the user is the most: a quota a day must not become one a minute."""
    limit = RateLimit(500, 60)
    follow = FollowedLimits({"requests": limit}, OpenAIChat.limit_headers).follow
    for said, n in (("60", 60), ("300", 300), ("14400", 500)):
        follow(openai_headers(said, said, "0s"))
        assert limit.n == n


async def test_limits_of_services_are_a_minute_whatever_ours_is():
    assert following(RateLimit(100, 1), openai_headers("600", "600", "0s")).n == 10
    assert following(RateLimit(90_000, 3600), openai_headers("600", "600", "0s")).n == 36_000


async def test_what_remains_spaces_the_starts_and_nothing_pauses_them(clock):
    limit = following(RateLimit(60, 60), openai_headers("60", "5", "30s"))
    await limit.acquire()
    await limit.acquire()
    assert clock.now == pytest.approx(6)
    follow = following(RateLimit(60, 60), openai_headers("60", "0", "17s"))
    await follow.acquire()
    assert clock.now == pytest.approx(23)


async def test_what_anthropic_says(clock):
    then = datetime.now(UTC) + timedelta(seconds=40)
    for kind in ("requests", "tokens", "input_tokens", "output_tokens"):
        name = f"anthropic-ratelimit-{kind.replace('_', '-')}"
        headers = {f"{name}-limit": "4000", f"{name}-remaining": "0", f"{name}-reset": then.isoformat()}
        limit = following(RateLimit(9_000, 60), headers, kind, AnthropicMessages)
        assert limit.n == 4000
        assert 30 < limit._pause_left() <= 40


async def test_no_header_breaks_a_call_or_stops_a_run_for_long(clock):
    """No start waits for more than two minutes, whatever is said."""
    limits = ["-5", "0", "nan", "1e400", "", "9" * 400, "0x10", "60, 60;w=1", "1", None]
    remains = ["-5", "nan", "9" * 400, "0", "3", None]
    resets = ["-5", "never", "99999999h", "999999999", "3000-01-01T00:00:00Z", None]
    for limit, remaining, reset in product(limits, remains, resets):
        for kind, n in (("requests", 500), ("tokens", 90_000)):
            rate = following(RateLimit(n, 60), openai_headers(limit, remaining, reset, kind), kind)
            began = clock.now
            for _ in range(3):
                await rate.acquire(1 if kind == "requests" else 1_000)
            assert clock.now - began <= 240
            assert math.isfinite(rate.n)


async def test_what_cannot_be_followed_is_logged_once(caplog):
    model = FollowedLimits({"requests": RateLimit(9, 60)}, OpenAIChat.limit_headers)
    with caplog.at_level(logging.WARNING, "penstock"):
        for _ in range(3):
            model.follow(openai_headers("nan", "-1", KEY))
    assert sorted(record.getMessage().split()[6] for record in caplog.records) == sorted(openai_headers())
    assert KEY not in caplog.text


# By way of a model


@pytest.fixture(
    params=[(OpenAIChat, openai_document), (AnthropicMessages, anthropic_document)], ids=["openai", "anthropic"]
)
def service(request):
    return request.param


@real_time
async def test_a_model_has_its_limits_follow_each_answer():
    requests, tokens = RateLimit(500, 60), RateLimit(90_000, 60)
    said = lines(openai_headers("120", "119", "20ms") | openai_headers("30000", "29000", "2s", "tokens"))
    refused = lines(openai_headers("90", "89", "20ms"))
    with ModelServer(whole(openai_document(), more=said), whole({}, 500, more=refused)) as server:
        model = OpenAIChat("m", base_url=server.url, limits={"requests": requests, "tokens": tokens})
        await model.ask("Hi")
        assert (requests.n, tokens.n) == (120, 30_000)
        with pytest.raises(ModelError):
            await model.ask("Hi")
        assert (requests.n, tokens.n) == (90, 30_000)


@real_time
@pytest.mark.parametrize("status", [429, 529])
@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("Retry-After: 7", 6, 7),
        ("retry-after-ms: 1500", 1, 1.5),
        ("Retry-After: {date}", 15, 20),
        ("Retry-After: 999999999", 3599, 3600),
    ],
)
async def test_a_refusal_pauses_whoever_shares_the_limits(service, status, header, least, most):
    made, _ = service
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    requests, tokens = RateLimit(500, 60), RateLimit(90_000, 60)
    with ModelServer(whole({}, status, more=[header.format(date=date)])) as server, pytest.raises(ModelError) as caught:
        await made("m", base_url=server.url, limits={"requests": requests, "tokens": tokens}).ask("Hi")
    assert caught.value.transient
    assert least < requests._pause_left() <= most
    assert least < tokens._pause_left() <= most
    assert caught.value.retry_after <= 3600


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (3, "limits must be a mapping from requests, tokens"),
        ({"queries": RateLimit(1, 1)}, "limits has 'queries': the service says something of requests, tokens"),
        ({"requests": 5}, r"limits\['requests'\] must be a RateLimit, got 5"),
        ({"requests": RateLimit(1, 1, key=str)}, r"limits\['requests'\] must have no key"),
    ],
)
def test_bad_limits_are_refused(service, limits, message):
    with pytest.raises(OptionError, match=message):
        service[0]("m", limits=limits)


# Errors of the key and the credit


QUOTA = {"error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "You exceeded your quota"}}
CREDIT = {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low to"}}
BILLING = {"type": "error", "error": {"type": "billing_error", "message": "Pay"}}
NO_KEY = {"error": {"type": "invalid_request_error", "code": "invalid_api_key", "message": f"Wrong key {KEY}"}}
OF_A_MINUTE = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current quota"}}
MODERATED = {"error": {"code": 403, "message": "Your input was flagged"}}

OF_ACCOUNT = [(401, {}), (401, NO_KEY), (403, {}), (402, {}), (429, QUOTA), (400, CREDIT), (402, BILLING)]


@real_time
@pytest.mark.parametrize(("status", "body"), OF_ACCOUNT)
async def test_errors_of_the_account_are_a_kind_of_their_own(service, status, body):
    made, _ = service
    limit = RateLimit(500, 60)
    with ModelServer(whole(body, status, more=["Retry-After: 60"])) as server, pytest.raises(AccountError) as caught:
        await made("m", base_url=server.url, limits={"requests": limit}).ask("Hi")
    error = caught.value
    assert (error.transient, error.status, isinstance(error, FatalError)) == (False, status, True)
    assert KEY not in repr(error) + str(error)
    assert limit._pause_left() == 0


@real_time
@pytest.mark.parametrize(
    ("status", "body", "passes"), [(429, OF_A_MINUTE, True), (403, MODERATED, False), (400, {}, False)]
)
async def test_a_quota_of_a_minute_and_a_prompt_that_is_refused_are_not(service, status, body, passes):
    with ModelServer(whole(body, status)) as server, pytest.raises(ModelError) as caught:
        await service[0]("m", base_url=server.url).ask("Hi")
    assert type(caught.value) is ModelError
    assert caught.value.transient is passes


@real_time
async def test_in_a_stream_of_events_too(service):
    event = (
        b"event: error\ndata: "
        + whole({"type": "error", "error": {"type": "authentication_error"}}).partition(b"\r\n\r\n")[2]
    )
    with (
        ModelServer(head() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(event) + 2, event + b"\n\n")) as server,
        pytest.raises(AccountError),
    ):
        await service[0]("m", base_url=server.url).ask("Hi")


@real_time
@pytest.mark.parametrize("on_error", ["skip", "collect", "return"])
async def test_the_run_ends_at_once_and_no_item_is_set_aside(on_error):
    with ModelServer(*[whole({}, 401)] * 9) as server:
        model = OpenAIChat("m", base_url=server.url)
        ask = prompt("ask", str, model=model, retry=Retry(on=Exception, attempts=4, initial=0))
        run = penstock.stream(range(50)).add(ask, concurrency=2, on_error=on_error).open()
        with pytest.raises(AccountError):
            async with run:
                await run.__anext__()
        assert run.stats()["ask"].taken <= 2
    assert len(server.requests) <= 2


@real_time
async def test_a_pipeline_fails_though_its_map_collects(tmp_path):
    with ModelServer(*[whole({}, 403)] * 9) as server:
        ask = prompt("ask", str, model=OpenAIChat("m", base_url=server.url))
        pipeline = Pipeline("p", takes=list).map("each", ask, on_error="collect", concurrency=1)
        result = await PipelineEngine(tmp_path).run(pipeline, [1, 2, 3])
    assert (result.status, result.error.code, result.error.step) == ("failed", "STEP_FAILED", "each[0]")
    assert isinstance(result.error.__cause__, AccountError)
    assert len(server.requests) == 1


async def test_a_key_that_is_not_there_ends_the_run(monkeypatch):
    ask = prompt("ask", str, model=OpenAIChat("m", key=secret("PENSTOCK_NONE")))
    run = penstock.stream(range(50)).add(ask, on_error="collect").open()
    with pytest.raises(FatalError, match="there is no secret 'PENSTOCK_NONE'"):
        async with run:
            await run.__anext__()
    assert run.stats()["ask"].taken == 1
    assert not transient(AccountError("no"))
    await asyncio.sleep(0)
