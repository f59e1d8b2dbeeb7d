"""Prompts as steps of runs, against a server that misbehaves: tries, usage, and what is stored."""

import sys
import threading

import pytest

from penstock import Retry
from penstock.flow import (
    AnthropicMessages,
    ModelError,
    OpenAIChat,
    Pipeline,
    PipelineEngine,
    TruncatedError,
    prompt,
    secret,
    services,
)

from .model_server import (
    CLOSE,
    ModelServer,
    anthropic_document,
    anthropic_events,
    chunked,
    head,
    openai_document,
    openai_events,
    whole,
)

pytestmark = pytest.mark.real_time

KEY = "sk-penstock-0123456789"
FIRST = Retry(on=ModelError, attempts=3, initial=0)


class OpenAI:
    model, events, document, cut = OpenAIChat, staticmethod(openai_events), staticmethod(openai_document), "length"


class Anthropic:
    model, events, cut = AnthropicMessages, staticmethod(anthropic_events), "max_tokens"
    document = staticmethod(anthropic_document)


@pytest.fixture(params=[OpenAI, Anthropic])
def service(request, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("PENSTOCK_KEY", KEY)
    return request.param


@pytest.fixture
def run(service, tmp_path):
    async def go(*script, **options):
        with ModelServer(*script) as server:
            model = service.model("m", key=secret("PENSTOCK_KEY"), base_url=server.url)
            step = prompt("p", "Hi", model=model, **options)
            result = await PipelineEngine(tmp_path / "work").run(Pipeline("q", [step]), None, run_id="r")
        return result, len(server.requests)

    return go


async def test_tokens_of_failed_attempts_count(service, run):
    """A stream that was cut has told some of its tokens: those have been paid for."""
    body = service.events(text="long " * 20)
    cut = (head() + chunked(body[: body.rfind(b"\n\n", 0, -2 * len(body) // 5) + 2], end=False), CLOSE)
    ended = (head() + chunked(body, end=False), CLOSE)
    result, asked = await run(cut, ended, whole(service.document("short")), retry=FIRST)
    assert (result.status, result.output, asked) == ("completed", "short", 3)
    known = 10 if service is OpenAI else 15
    assert (result.usage.requests, result.usage.input_tokens) == (3, known)
    assert result.usage.output_tokens == (14 if service is OpenAI else 15)
    assert result.usage.seconds > 0
    assert result.steps[0].attempts == 3


async def test_unknown_is_not_nothing(service, run):
    result, _ = await run(whole(service.document(usage=None)))
    assert (result.usage.requests, result.usage.input_tokens, result.usage.output_tokens) == (1, None, None)


async def test_what_passes_is_tried_again_by_default(service, run, monkeypatch):
    monkeypatch.setattr("random.uniform", lambda low, high: 0.01)
    again = whole({"error": {"type": "overloaded_error", "message": "busy"}}, 529, more=["Retry-After: 0.02"])
    result, asked = await run(*[again] * 2, whole({}, 503), whole(service.document()))
    assert (result.output, asked) == ("Hello", 4)


async def test_what_does_not_pass_is_not(service, run):
    result, asked = await run(whole({"error": {"type": "invalid_request_error", "message": f"not {KEY}"}}, 400))
    assert (result.error.code, asked) == ("STEP_FAILED", 1)
    assert isinstance(result.error.__cause__, ModelError)
    assert result.error.__cause__.__cause__ is result.error.__cause__.__context__ is None
    assert "invalid_request_error: not ***" in str(result.error)


async def test_a_truncated_answer_is_in_no_output(service, run):
    result, asked = await run(whole(service.document(stop=service.cut)))
    assert isinstance(result.error.__cause__, TruncatedError)
    assert (result.output, dict(result.outputs), asked) == (None, {}, 1)
    assert result.usage.output_tokens == 7


async def test_the_key_is_in_no_file(service, run, tmp_path):
    await run(whole({"error": {"type": KEY, "message": KEY}}, 500), whole(service.document(text=KEY)), retry=FIRST)
    files = [path for path in (tmp_path / "work").rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


async def test_a_key_that_is_not_there_begins_nothing(service, run, monkeypatch):
    monkeypatch.delenv("PENSTOCK_KEY")
    result, asked = await run()
    assert (result.error.code, result.error.step, asked) == ("TASK_CREATION_FAILED", "p", 0)
    assert "'PENSTOCK_KEY'" in str(result.error)


async def test_the_package_is_imported_off_the_loop(service, run, monkeypatch):
    """It takes seconds, in which nothing else of the run could go on."""
    places, real = [], service.model._import_all

    def imported(model):
        places.append(threading.current_thread() is threading.main_thread())
        real(model)

    monkeypatch.setattr(services, "_loaded", set())
    monkeypatch.setattr(service.model, "_import_all", imported)
    result, _ = await run(whole(service.document("Hello.")))
    assert (result.output, places) == ("Hello.", [False])


async def test_a_package_that_is_not_there_begins_nothing(service, run, monkeypatch):
    monkeypatch.setattr(services, "_loaded", set())
    monkeypatch.setitem(sys.modules, service.model.package, None)
    result, asked = await run()
    assert (result.error.code, result.error.step, asked) == ("TASK_CREATION_FAILED", "p", 0)
    assert f"penstock[{service.model.package}]" in str(result.error)
