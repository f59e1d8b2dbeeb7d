"""The step that asks a model: what it sends, what it makes of the answer, and what the requests have cost."""

import asyncio
import json
import logging

import pydantic
import pytest

import penstock
from penstock import OptionError, Retry
from penstock.durable.held import Held
from penstock.flow.added import CannotBegin
from penstock.flow.answer_forms import AnswerError
from penstock.flow.context import StepContext
from penstock.flow.models import ModelError, Reply, TruncatedError
from penstock.flow.openai_chat import OpenAIChat
from penstock.flow.prompts import prompt
from penstock.flow.row_template import template
from penstock.flow.secrets import secret
from penstock.tasks.tokens import CancelToken


class Scripted:
    """A model that answers as it is told, and notes what it was asked."""

    def __init__(self, *answers):
        self.asked, self._answers = [], list(answers)

    async def ask(self, prompt, /, *, system=None, max_tokens=4096):
        self.asked.append((prompt, system, max_tokens))
        answer = self._answers.pop(0)
        await asyncio.sleep(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Recording:
    run_id, idempotency_key = "r", "k"

    def __init__(self):
        self.usage = []

    def spent(self, usage):
        self.usage.append((usage.requests, usage.input_tokens, usage.output_tokens))


def context(recording):
    return StepContext(
        step="p", attempt=1, state={}, cancel=CancelToken(), log=logging.getLogger("penstock.flow.p.p"),
        recording=recording,
    )  # fmt: skip


async def test_it_sends_the_text_and_gives_the_answer():
    model, recording = Scripted(Reply("one", "stop", 5, 7), Reply("a\nb", "stop")), Recording()
    assert await prompt("p", "Say {it}", model=model).call("value", context(recording)) == "one"
    made = prompt("p", lambda value: f"<{value}>", parse=str.splitlines, model=model, system="S", max_tokens=9)
    assert await made.call("value", context(recording)) == ["a", "b"]
    assert model.asked == [("Say {it}", None, 4096), ("<value>", "S", 9)]
    assert recording.usage == [(1, 5, 7), (1, None, None)]


@pytest.mark.parametrize(
    ("failure", "usage"),
    [
        (ModelError("x", transient=True), (1, None, None)),
        (ModelError("x", reply=Reply("half", "", 5, None)), (1, 5, None)),
        (TruncatedError("x", reply=Reply("half", "length", 5, 9)), (1, 5, 9)),
        (ValueError("x"), (1, None, None)),
        (asyncio.CancelledError(), (1, None, None)),
    ],
)
async def test_a_failed_request_counts_with_what_is_known_of_it(failure, usage):
    recording = Recording()
    with pytest.raises(type(failure)):
        await prompt("p", "Hi", model=Scripted(failure)).call(None, context(recording))
    assert recording.usage == [usage]


async def test_in_a_stream_nobody_counts():
    assert await prompt("p", "Hi", model=Scripted(Reply("x", "stop"))).call(None, context(None)) == "x"


async def test_what_parsing_raises_fails_the_step_and_the_request_counts():
    recording = Recording()
    with pytest.raises(ValueError, match="invalid literal"):
        await prompt("p", "Hi", parse=int, model=Scripted(Reply("x", "stop", 1, 1))).call(None, context(recording))
    assert recording.usage == [(1, 1, 1)]


def test_by_default_what_is_transient_is_tried_five_times():
    retry = prompt("p", "Hi", model=Scripted()).options.retry
    assert (retry.attempts, retry.initial) == (5, 0.5)
    assert [retry.on(error) for error in (ModelError("x", transient=True), ModelError("x"), TruncatedError("x"))] == [
        True,
        False,
        False,
    ]
    assert retry.pause(ModelError("x", transient=True, retry_after=7.0), 1) == 7.0
    assert 0.4 <= retry.pause(ModelError("x", transient=True), 1) <= 0.6
    assert prompt("p", "Hi", model=Scripted(), retry=None).options.retry is None


def test_a_retry_of_the_user_waits_as_asked_unless_it_says_how_long():
    asked = ModelError("x", transient=True, retry_after=7.0)
    own = Retry(on=ModelError, initial=3, jitter=0)
    assert prompt("p", "Hi", model=Scripted(), retry=own).options.retry.pause(asked, 1) == 7.0
    own = Retry(on=ModelError, wait=lambda error: 1.0)
    assert prompt("p", "Hi", model=Scripted(), retry=own).options.retry.pause(asked, 1) == 1.0


def test_a_key_that_is_missing_is_known_before_it_begins(monkeypatch):
    monkeypatch.delenv("PENSTOCK_KEY", raising=False)
    with pytest.raises(CannotBegin, match="there is no secret 'PENSTOCK_KEY'"):
        prompt("p", "Hi", model=OpenAIChat("m", key=secret("PENSTOCK_KEY"))).check(None)
    prompt("p", "Hi", model=Scripted()).check(None)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (5, {}, "text must be callable, got 5"),
        ("Hi", {"parse": 5}, "parse must be callable, got 5"),
        ("Hi", {"model": None}, r"model must be a Model, something with an async ask\(\), got None"),
        ("Hi", {"model": Scripted}, "model must be a Model"),
        ("Hi", {"system": 5}, "system must be a str or None, got 5"),
        ("Hi", {"max_tokens": 0}, "max_tokens must be an int >= 1, got 0"),
        ("Hi", {"engine": "thread"}, "prompt 'p' has no option 'engine'"),
        ("Hi", {"temperature": 0}, "prompt 'p' has no option 'temperature'"),
    ],
)
def test_bad_options_are_refused_when_it_is_built(text, options, message):
    with pytest.raises(OptionError, match=message):
        prompt("p", text, **{"model": Scripted()} | options)


async def test_what_functions_and_models_give_is_checked():
    with pytest.raises(OptionError, match="what text gives must be a str, got 5"):
        await prompt("p", lambda _: 5, model=Scripted()).call(None, context(None))
    with pytest.raises(OptionError, match="the answer of a model must be a Reply, got 'text'"):
        await prompt("p", "Hi", model=Scripted("text")).call(None, context(None))


def test_its_code_is_what_its_output_depends_on():
    def code(text="Hi", **options):
        fn, extra = prompt("p", text, **{"model": OpenAIChat("m")} | options).code()
        return repr((Held().print(fn), extra))

    one = code()
    assert one == code(retry=None, timeout=3, model=OpenAIChat("m", idle=3, key=None, stream=False))
    others = [
        code("Ho"), code(lambda _: "Hi"), code(lambda _: "Ho"), code(parse=str.strip), code(system="S"),
        code(max_tokens=5), code(model=OpenAIChat("n")), code(model=OpenAIChat("m", request={"temperature": 0})),
        code(model=OpenAIChat("m", base_url="http://host")), code(model=Scripted()),
    ]  # fmt: skip
    assert len({one, *others}) == 11


LABEL = {"type": "object", "properties": {"label": {"enum": ["good", "bad"]}}, "required": ["label"]}


def said(text):
    return Reply(text, "stop", 5, 7)


def test_columns_of_a_row_are_filled_in_and_other_braces_stay():
    made = template('{ text }, {n}, {none}: as {"label": "x", "of": {"a": 1}}, {}, {{text}}')
    assert made.columns == ("text", "n", "none")
    row = {"text": "a {n}", "n": [1, "\u00e9"], "none": None}
    assert made(row) == 'a {n}, [1, "\u00e9"], null: as {"label": "x", "of": {"a": 1}}, {}, {text}'
    assert template("On {value}.")("x") == "On x."
    with pytest.raises(OptionError, match="needs the column 'text', which the row has not: it has 'a', 'b'"):
        template("{text}")({"a": 1, "b": 2})
    with pytest.raises(OptionError, match="text must be a str, got 5"):
        template(5)


async def test_an_answer_that_does_not_fit_is_asked_again_with_the_error():
    model = Scripted(said("no idea"), said('{"label": "fine"}'), said('```json\n{"label": "good"}\n```'))
    recording = Recording()
    made = prompt("p", template("On {text}"), model=model, schema=LABEL)
    assert await made.call({"text": "x"}, context(recording)) == {"label": "good"}
    first, second, third = (text for text, *_ in model.asked)
    assert first == f"On x\n\nAnswer with JSON that fits this JSON schema, and with nothing else:\n{json.dumps(LABEL)}"
    assert second.startswith(f"{first}\n\nYour answer was:\n\nno idea\n\nIt does not fit: it is not JSON: ")
    assert "\n\nIt does not fit: at $.label: 'fine' is not one of ['good', 'bad']\nAnswer again." in third
    assert recording.usage == [(1, 5, 7)] * 3


async def test_the_last_answer_that_does_not_fit_is_kept():
    model = Scripted(said("a"), said('{"label": NaN}'))
    with pytest.raises(AnswerError, match="NaN is no number of JSON") as caught:
        await prompt("p", "x", model=model, schema=LABEL, asks=2).call(None, context(None))
    assert caught.value.answer == '{"label": NaN}'
    assert caught.value.__notes__ == ['penstock: the answer was: {"label": NaN}']
    cut = TruncatedError("cut", reply=Reply('{"la', "length", 5, 9))
    with pytest.raises(TruncatedError) as caught:  # the same again would end there, too
        await prompt("p", "x", model=Scripted(cut), schema=LABEL).call(None, context(None))
    assert caught.value.__notes__ == ['penstock: what there was of the answer: {"la']


async def test_a_model_of_pydantic_is_a_schema(tmp_path):
    class Label(pydantic.BaseModel):
        label: str
        stars: int

    model = Scripted(said('{"label": "a", "stars": "many"}'), said('{"label": "a", "stars": 3}'))
    made = prompt("p", "x", model=model, schema=Label)
    assert await made.call(None, context(None)) == Label(label="a", stars=3)
    assert "It does not fit: at $.stars: Input should be a valid integer" in model.asked[1][0]
    (tmp_path / "s.json").write_text(json.dumps(LABEL))
    in_file = prompt("p", "x", model=Scripted(said('{"label": "bad"}')), schema=tmp_path / "s.json")
    assert await in_file.call(None, context(None)) == {"label": "bad"}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (5, "schema must be a JSON schema"),
        ({"type": "nothing"}, "schema must be a JSON schema, got .* is not valid under any of the given schemas"),
        ("missing.json", "schema must be in a file that can be read, got 'missing.json'"),
        (__file__, "schema must be in a file of JSON"),
    ],
)
def test_what_is_no_schema_is_refused_when_it_is_built(schema, message):
    with pytest.raises(OptionError, match=message):
        prompt("p", "x", model=Scripted(), schema=schema)


async def test_a_reference_of_a_schema_is_never_fetched():
    """Trap: jsonschema fetches references by default."""
    made = prompt("p", "x", model=Scripted(said("1")), schema={"$ref": "http://127.0.0.1:9/x"})
    with pytest.raises(OptionError, match="schema must have what it refers to"):
        await made.call(None, context(None))


async def test_it_is_a_function_of_map():
    model = Scripted(ModelError("busy", transient=True), said("1"), said("2"))
    made = prompt("p", template("{n}"), model=model, parse=int)
    answers = penstock.stream([{"n": 1}, {"n": 2}]).map(made, retry=Retry(on=ModelError, initial=0))
    assert await answers.to_list() == [1, 2]
    assert [text for text, *_ in model.asked] == ["1", "1", "2"]


def test_parse_and_schema_exclude_each_other():
    with pytest.raises(OptionError, match="parse must not be given with schema"):
        prompt("p", "x", model=Scripted(), parse=int, schema=LABEL)
    with pytest.raises(OptionError, match="asks must be an int >= 1, got 0"):
        prompt("p", "x", model=Scripted(), schema=LABEL, asks=0)
