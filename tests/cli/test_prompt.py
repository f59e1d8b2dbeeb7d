"""`penstock prompt`: a model asked for every row, against a server on a loopback socket."""

import json
import os
import pickle
import re
import signal
import sqlite3
import subprocess
import sys
import time

import pydantic
import pytest
from tests.postgres import needs_postgres

import penstock
from penstock.core.errors import FatalError, OptionError
from penstock.durable import dead_roots
from penstock.flow import AccountError, AnswerError, ModelError, OpenAIChat, Reply
from penstock.workflows import AskJob, RowFailedError, ask
from penstock.workflows.rows.spending import Price, Spending

from ..flow.model_server import (  # noqa: TID252 -- tests are no package to name
    HANG,
    ModelServer,
    anthropic_document,
    openai_document,
    whole,
)
from ..forking import Forking  # noqa: TID252 -- tests are no package to name
from .conftest import USED

pytestmark = [pytest.mark.slow, pytest.mark.real_time]

KEY = "sk-penstock-0123456789"
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.fixture(scope="module")
def forking():
    """What starts `penstock` with all that it needs to ask: the packages of services take seconds."""
    used = (
        *USED,
        "openai",
        "openai.resources.chat",
        "anthropic",
        "anthropic.resources.messages",
        "httpx2",
        "jsonschema",
    )
    forking = Forking("penstock", "prompt --help", imports=used, options=["-W", "always"])
    yield forking
    forking.close()


def text_of(request):
    return request["messages"][-1]["content"]


def echoed(request):
    """The number that the prompt asks for, as JSON; 10 tokens in, 5 out."""
    number = re.search(r"Say (\d+)", text_of(request))[1]
    return whole(openai_document(json.dumps({"n": int(number)}), usage=(10, 5)))


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "r.jsonl").write_text("".join(f'{{"id": {n}, "n": {n}}}\n' for n in range(20)))
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    return tmp_path


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def command(server, *more, prompt="Say {n}", to="out.db", service="openai", key="id"):
    keyed = () if key is None else ("--key", key)
    return [
        "prompt", prompt, "--over", "r.jsonl", "--to", to, "--model", f"{service}:m", "--base-url", server.url, *keyed,
        *more,
    ]  # fmt: skip


def stored(path):
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    found = [dict(row) for row in connection.execute("SELECT * FROM rows ORDER BY id")]
    connection.close()
    return [{name: value for name, value in row.items() if name != "penstock_root"} for row in found]


def test_each_row_is_asked_once_and_what_it_cost_is_told(rows, penstock):
    with ModelServer(then=echoed) as server:
        done = penstock(*command(server, "--schema", "schema.json", "--price", "1/2"))
        again = penstock(*command(server, "--schema", "schema.json", "--price", "1/2", "--json"))
    assert done.code == 0
    assert stored(rows / "out.db") == [{"id": n, "n": n} for n in range(20)]
    assert "out.db: 20 rows done" in done.out
    assert "\n  20 requests; tokens: 200 of prompts, 100 of answers\n" in done.out
    assert "\n  cost 0.0004\n" in done.out
    assert re.search(r"answers took .* \(p50\), .* \(p95\), .* \(p99\); .* waited for limits\n", done.out)
    assert len(server.requests) == 20
    assert again.json["spent"]["requests"] == 0
    assert again.json["spent_before"]["input_tokens"] == 200
    assert (again.json["cost_before"], again.json["latency"]) == (0.0004, None)


def test_an_answer_without_a_schema_is_a_column_and_anthropic_is_asked_as_well(rows, penstock):
    with ModelServer(then=lambda _: whole(anthropic_document("fine", usage=(3, 2)))) as server:
        done = penstock(*command(server, "--system", "Be brief", "--limit", "2", "--keep", service="anthropic"))
    assert done.code == 0
    assert stored(rows / "out.db") == [{"id": n, "n": n, "answer": "fine"} for n in range(2)]
    assert server.requests[0]["system"] == "Be brief"
    assert "ended by --limit" in done.out


def test_an_answer_that_does_not_fit_is_asked_again_then_set_aside_with_it(rows, penstock):
    def stubborn(request):
        return whole(openai_document("never" if "Say 7" in text_of(request) else '{"n": 1}', usage=(10, 5)))

    with ModelServer(then=stubborn) as server:
        done = penstock(*command(server, "--schema", "schema.json", "--asks", "2"))
    assert done.code == 1
    assert "1 x AnswerError: the answer does not fit: it is not JSON" in done.out
    assert (
        "\n  21 requests, 2 of them failed or asked again; tokens: 210 of prompts, 105 of answers, 30 of these"
        in done.out
    )
    assert "It does not fit: it is not JSON" in next(
        text_of(each) for each in server.requests if "again" in text_of(each)
    )
    assert "penstock: the answer was: never" in penstock("dead", "out.db", "show").out
    with ModelServer(then=stubborn) as server:
        told = penstock(*command(server, "--schema", "schema.json", "--run", "other", "--table", "t", "--json"))
    assert (told.code, told.json["dead"], told.json["delivered"]) == (1, 1, 19)


def test_an_answer_that_does_not_fit_crosses_to_other_processes():
    found = pickle.loads(pickle.dumps(AnswerError("no", "it is not JSON")))
    assert (found.answer, found.reason, found.__notes__) == ("no", "it is not JSON", ["penstock: the answer was: no"])


def test_a_service_that_has_too_much_to_do_is_asked_again_and_nothing_is_lost(rows, penstock):
    busy = whole({"error": {"type": "rate_limit"}}, 429, more=["Retry-After: 0"])
    down = whole({"error": {"type": "server_error"}}, 500)
    with ModelServer(busy, down, busy, then=echoed) as server:
        done = penstock(*command(server, "--schema", "schema.json", "--json"))
    assert (done.code, done.json["delivered"], len(server.requests)) == (0, 20, 23)
    spent = done.json["spent"]
    assert (spent["requests"], spent["failed"], spent["unknown"], spent["input_tokens"]) == (23, 3, 3, 200)
    assert spent["estimated_input"] == 0  # what was refused costs nothing


def test_unknown_usage_is_said_and_estimated_for_budgets(rows, penstock):
    with ModelServer(then=lambda _: whole(openai_document("x", usage=None))) as server:
        done = penstock(*command(server, "--price", "1/1"))
        report = penstock(*command(server, "--json", "--run", "other", "--table", "t")).json
    assert "20 requests; tokens unknown: the service does not say them" in done.out
    assert ", of which some is estimated" in done.out
    assert (report["spent"]["input_tokens"], report["spent"]["output_tokens"], report["spent"]["unknown"]) == (
        None,
        None,
        20,
    )
    assert report["spent"]["estimated_output"] > 0


def test_a_budget_ends_the_run_in_order_and_says_what_goes_on(rows, penstock):
    with ModelServer(then=echoed) as server:
        first = penstock(*command(server, "--max-tokens", "60", "--concurrency", "2"))
        paid = len(server.requests)
        again = penstock(*command(server, "--max-tokens", "60", "--concurrency", "2", "--json"))
        assert len(server.requests) == paid
        on = first.out.strip().splitlines()[-1].strip()
        assert on.startswith("penstock prompt 'Say {n}' --over r.jsonl --to out.db")
        done = penstock(*command(server, "--max-tokens", on.split()[-3]))
    assert first.code == again.code == 4
    assert 4 <= paid <= 4 + 2  # 15 tokens each, and what was in flight
    assert len(stored(rows / "out.db")) == 20
    assert f"ended at --max-tokens, {15 * paid} tokens used; {20 - paid} rows left; goes on with:" in first.out
    assert (again.json["ended_by"], again.json["left"], again.json["spent_before"]["requests"]) == (
        "max_tokens",
        20 - paid,
        paid,
    )
    assert done.code == 0
    assert len(server.requests) == 20


def test_a_cost_is_a_budget_and_needs_a_price(rows, penstock):
    with ModelServer(then=echoed) as server:
        done = penstock(*command(server, "--max-cost", "0.0001", "--price", "1/2", "--concurrency", "1"))
        refused = penstock(*command(server, "--max-cost", "5"))
    assert done.code == 4
    assert "ended at --max-cost, 0.0001 paid; 15 rows left; goes on with:" in done.out
    assert (refused.code, refused.err) == (
        2, "penstock: --max-cost needs a price (IN/OUT per million tokens), got 5.0 without\n"
    )  # fmt: skip


def test_a_deadline_ends_it_and_what_waits_is_not_done(rows, penstock):
    """Calls that wait for a limit are none that are in flight: they are not waited for."""
    with ModelServer(then=echoed) as server:
        done = penstock(*command(server, "--deadline", "0.5s", "--rate", "2/h", "--json"))
    assert (done.code, done.json["ended_by"], done.json["delivered"], done.json["left"]) == (4, "deadline", 1, 19)


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (whole({"error": {"type": "authentication", "message": f"bad key {KEY}"}}, 401), "401 Unauthorized"),
        (whole({"error": {"code": "insufficient_quota", "message": "pay"}}, 429), "insufficient_quota"),
    ],
)
def test_a_key_or_a_credit_that_is_refused_ends_the_run_at_once(rows, penstock, refusal, said):
    with ModelServer(then=lambda _: refusal) as server:
        done = penstock(*command(server, "--concurrency", "2"), env={**os.environ, "OPENAI_API_KEY": KEY})
    assert done.code == 3
    assert said in done.err
    assert KEY not in done.out + done.err
    assert len(server.requests) <= 2
    assert dead_roots(str(rows / "out.db")) == []
    for path in rows.iterdir():
        assert KEY.encode() not in path.read_bytes()


def test_a_service_that_refuses_every_row_ends_the_run(rows, penstock):
    """Trap: a wrong name of a model, or an option that it does not know, set every row aside."""
    missing = whole({"error": {"code": "model_not_found", "message": "no such model"}}, 404)
    with ModelServer(then=lambda _: missing) as server:
        done = penstock(*command(server, "--concurrency", "1"))
    assert (done.code, len(server.requests)) == (3, 1)
    assert "the service refuses all requests: model 'm': 404 Not Found: model_not_found: no such model" in done.err
    assert dead_roots(str(rows / "out.db")) == []
    with ModelServer(then=lambda _: whole({"error": {"message": "unknown option"}}, 400)) as server:
        done = penstock(*command(server, "--concurrency", "1", to="b.db"))
    assert (done.code, len(server.requests), len(dead_roots(str(rows / "b.db")))) == (3, 10, 9)


def test_what_is_no_service_of_models_ends_the_run(rows, penstock):
    """Trap: a page of a proxy, or of an address without its /v1, comes with 200: every row was set aside."""
    page = whole(b"<html>Sign in</html>", kind="text/html")
    with ModelServer(then=lambda _: page) as server:
        done = penstock(*command(server, "--concurrency", "1"))
    assert (done.code, len(server.requests), len(dead_roots(str(rows / "out.db")))) == (3, 10, 9)
    assert "the service refuses all requests: model 'm': the answer is neither events nor a JSON object" in done.err


def test_rows_that_a_model_declines_are_set_aside_and_the_others_are_asked(rows, penstock):
    """The first ones say nothing of the others: a model has answered."""

    def answer(request):
        number = int(re.search(r"Say (\d+)", text_of(request))[1])
        return whole(openai_document("", "content_filter")) if number < 12 else echoed(request)

    with ModelServer(then=answer) as server:
        done = penstock(*command(server, "--concurrency", "1"))
    assert (done.code, len(dead_roots(str(rows / "out.db")))) == (1, 12)
    assert "12 x DeclinedError: model 'm': it declines to answer (content_filter)" in done.out


def test_a_column_that_no_row_has_ends_the_run(rows, penstock):
    """Trap: a typing error in the prompt set every row aside."""
    with ModelServer(then=echoed) as server:
        done = penstock(*command(server, "--concurrency", "1", prompt="Say {m}"))
    assert (done.code, server.requests, len(dead_roots(str(rows / "out.db")))) == (3, [], 9)
    assert "no prompt can be made of the first 10 rows: the prompt needs the column 'm'" in done.err


def test_a_service_that_is_not_there_ends_the_run_and_sets_nothing_aside(rows, penstock):
    """Trap: a wrong address had the run wait for ever, and set a row aside now and then."""
    with ModelServer(then=lambda _: whole({"error": {}}, 500, more=["Retry-After: 0"])) as server:
        done = penstock(*command(server))
    assert (done.code, len(server.requests)) == (3, 5)
    assert "the service does not answer: model 'm': 500" in done.err
    assert dead_roots(str(rows / "out.db")) == []


def test_a_key_that_is_missing_is_told_before_anything_is_opened(rows, penstock):
    done = penstock("prompt", "Say {n}", "--over", "r.jsonl", "--to", "out.db", "--model", "openai:m")
    assert done.code == 3
    assert "there is no secret 'OPENAI_API_KEY': set the environment variable of that name" in done.err
    assert not (rows / "out.db").exists()


def test_a_dry_run_shows_prompts_and_an_estimate_and_asks_nothing(rows, penstock):
    done = penstock(
        "prompt", "Say {n}\nto {who}", "--over", "r.jsonl", "--model", "openai:m", "--dry-run", "--price", "1/1",
        "--max-answer", "10",
    )  # fmt: skip
    assert done.code == 1
    assert "no prompt can be made of 20 rows: the prompt needs the column 'who', which the row has not" in done.err
    done = penstock("prompt", "Say {n}\nnow", "--over", "r.jsonl", "--model", "openai:m", "--dry-run", "--price", "1/1",
                    "--max-answer", "10")  # fmt: skip
    assert done.out.startswith(
        "--- prompt 1\nSay 0\nnow\n--- prompt 2\nSay 1\nnow\n--- prompt 3\nSay 2\nnow\n--- 20 prompts"
    )
    assert (
        "about 48 tokens, answers of 200 at most (--max-answer); costs 0.000048, and with the answers 0.00025 at most"
        in done.out
    )
    assert "nothing was asked: openai:m would be asked for each row of r.jsonl" in done.err


def test_a_dry_run_can_be_read_by_programs(rows, penstock):
    done = penstock("prompt", "Say {n}", "--over", "r.jsonl", "--model", "openai:m", "--dry-run", "--json")
    said = json.loads(done.out)
    assert (done.code, said["prompts"], said["rows"], said["unfit"]) == (0, ["Say 0", "Say 1", "Say 2"], 20, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "gpt"], "--model must be openai:NAME or anthropic:NAME, got 'gpt'"),
        (["--schema", "none.json"], "--schema must be in a file that can be read, got 'none.json'"),
        (["--price", "1"], "--price must be IN/OUT"),
        (["--price", "a/b"], "--price must be IN/OUT"),
        (["--price", "-1/2"], "--price must be a finite number >= 0"),
        (["--tokens", "5"], "--tokens must be tokens in a time"),
        (["--rate", "5/day"], "--rate must be requests in a time"),
        (["--deadline", "soon"], "--deadline must be a time, as 90s, 30min or 2h, got 'soon'"),
        (["--deadline", "1e999h"], "--deadline must be a time"),
        (["--max-tokens", "0"], "--max-tokens must be an int >= 1, got 0"),
        (["--max-answer", "0"], "--max-answer must be an int >= 1, got 0"),
        (["--asks", "0"], "--asks must be an int >= 1, got 0"),
        (["--retry", "0"], "--retry must be an int >= 1, got 0"),
        (["--concurrency", "0"], "--concurrency must be"),
        (["--on-error", "return"], "--on-error must be one of 'collect', 'raise', 'skip', got 'return'"),
        (["--base-url", "ftp://x"], "--base-url must be an http or https address"),
    ],
)
def test_bad_options_are_one_line_that_names_them(rows, penstock, arguments, said):
    done = penstock("prompt", "Say {n}", "--over", "r.jsonl", "--to", "o.db", "--model", "openai:m", *arguments)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1
    none = penstock("prompt", "Say n", "--over", "r.jsonl", "--to", "o.db", "--model", "openai:m")
    assert "PROMPT must name a column, as 'Classify: {text}', got 'Say n'" in none.err


@pytest.mark.parametrize("given", [("--limit", "3"), ("--memo",), ("--run", "r"), ("--on-duplicate", "first")])
def test_options_of_a_run_that_goes_on_need_a_place_and_are_spelled_as_they_were_given(rows, penstock, given):
    done = penstock("prompt", "Say {n}", "--over", "r.jsonl", "--model", "openai:m", "--dry-run", *given)
    assert (done.code, done.err.startswith(f"penstock: {given[0]} is for a run into --to,")) == (2, True)


def test_killed_twice_each_row_is_there_once_and_only_what_was_in_flight_is_paid_again(rows, penstock):
    """P10, P11; the account outlives the kills, too."""
    (rows / "r.jsonl").write_text("".join(f'{{"id": {n}, "n": {n}}}\n' for n in range(200)))
    with ModelServer(then=echoed) as server:
        arguments = command(server, "--schema", "schema.json", "--concurrency", "4")
        for at in (40, 120):
            running = subprocess.Popen(
                [sys.executable, "-m", "penstock", *arguments], cwd=rows, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            while running.poll() is None and len(server.requests) < at:
                time.sleep(0.005)
            running.send_signal(signal.SIGKILL)
            running.communicate()
        done = penstock(*arguments, "--json")
        asked = len(server.requests)
    assert done.code == 0
    assert [row["n"] for row in stored(rows / "out.db")] == list(range(200))
    assert 200 <= asked <= 200 + 2 * (4 + 16)  # those in flight, and answers that no commit had yet
    counted = done.json["spent"]["requests"] + done.json["spent_before"]["requests"]
    assert 200 <= counted <= asked


@needs_postgres
def test_answers_of_a_table_go_into_another_and_are_paid_once(rows, penstock, postgres):
    """From one table of PostgreSQL into another, ended by a budget and gone on with: no row is asked for twice."""
    dsn = postgres.new()
    postgres.ask(dsn, "CREATE TABLE questions AS SELECT n AS id, n FROM generate_series(0, 19) AS n")
    with ModelServer(then=echoed) as server:
        over = ["prompt", "Say {n}", "--over", dsn, "--query", "SELECT id, n FROM questions", "--to", dsn]
        asked = [*over, "--table", "answers", "--model", "openai:m", "--base-url", server.url, "--key", "id"]
        schema = ["--schema", "schema.json", "--concurrency", "1"]
        ended = penstock(*asked, *schema, "--max-tokens", "75")
        assert (ended.code, len(postgres.ask(dsn, "SELECT * FROM answers"))) == (4, 5)
        done = penstock(*asked, *schema)
    assert (done.code, len(server.requests)) == (0, 20)
    assert "5 rows done before, passed over" in done.out
    assert postgres.ask(dsn, "SELECT id, n FROM answers ORDER BY id") == [(n, n) for n in range(20)]


def test_ctrl_c_ends_requests_that_are_made_and_begins_no_others(rows, started_penstock):
    with ModelServer(echoed, echoed, then=HANG) as server:
        running = started_penstock(*command(server, "--concurrency", "1", "--rate", "1/s"))
        for _ in range(2):
            server.asked.acquire()
        while len(stored_ids(rows)) < 2:
            time.sleep(0.01)
        running.process.send_signal(signal.SIGINT)
        done = running.finish()
    assert done.code == 130
    assert len(stored(rows / "out.db")) == 2


def stored_ids(rows):
    try:
        return stored(rows / "out.db")
    except sqlite3.OperationalError:
        return []


# From Python


class Scripted:
    """A model that answers by a function, and notes what it was asked."""

    def __init__(self, answer):
        self.asked, self._answer = [], answer

    async def ask(self, prompt, /, *, system=None, max_tokens=4096):
        self.asked.append(prompt)
        made = self._answer(prompt)
        if isinstance(made, Exception):
            raise made
        return Reply(made, "stop", 10, 5)


async def test_without_a_place_the_answers_are_a_list_in_order():
    class Length(pydantic.BaseModel):
        length: int

    model = Scripted(lambda prompt: json.dumps({"length": len(prompt.split("\n", maxsplit=1)[0])}))
    found = await ask([{"a": "xxx"}, {"a": "y"}], "{a}", model=model, schema=Length)
    assert found == [Length(length=3), Length(length=1)]
    assert await ask(["b", "c"], str.upper, model=Scripted(str.lower)) == ["b", "c"]
    with pytest.raises(ModelError):
        await ask(["a"], "{value}", model=Scripted(lambda _: ModelError("no")))
    assert await ask(
        ["a", "b"], "{value}", model=Scripted(lambda p: p if p == "a" else ModelError("x")), on_error="skip"
    ) == ["a"]
    for option in ({"max_tokens": 5}, {"deadline": 5}, {"limit": 5}, {"memo": True}):
        with pytest.raises(OptionError, match=r"is for a run into `to`"):
            await ask(["a"], "{value}", model=Scripted(str), **option)


async def test_rows_of_python_go_into_a_table_and_are_known_by_key(tmp_path):
    to, model = str(tmp_path / "o.db"), Scripted(str.upper)
    rows = [{"id": 1, "t": "a"}, {"id": 2, "t": "b"}]
    first = await ask(rows, "{t}", model=model, to=to, key="id")
    again = await ask([*rows, {"id": 3, "t": "c"}], "{t}", model=model, to=to, key="id", keep=True)
    assert (first.delivered, again.delivered, again.already_done, again.spent_before.requests) == (2, 1, 2, 2)
    assert sorted(model.asked) == ["a", "b", "c"]
    assert stored(tmp_path / "o.db")[2] == {"id": 3, "answer": "C", "t": "c"}


def shout(t):
    return f"{t}!"


async def test_an_answer_does_not_change_the_key_of_its_row(tmp_path):
    model = Scripted(lambda _: '{"id": 7, "n": 1}')
    await ask([{"id": 1}], "{id}", model=model, to=str(tmp_path / "o.db"), key="id", schema={"type": "object"})
    assert stored(tmp_path / "o.db") == [{"id": 1, "n": 1}]


async def test_a_changed_prompt_is_other_code_and_kept_answers_are_not_paid_again(tmp_path):
    to, model = str(tmp_path / "o.db"), Scripted(str.upper)
    rows = [{"t": "same"}] * 3
    await ask(rows, shout, model=model, to=to, memo=True)
    other = await ask(rows, shout, model=model, to=to, memo=True, run_name="other", table="others")
    assert (other.recalled, other.spent.requests, other.delivered) == (3, 0, 3)
    again = await ask(rows, "{t}!", model=model, to=to, memo=True)
    assert (again.by_other_code, again.changed) == (3, ("prompt",))


async def test_with_memo_a_question_is_asked_once_whatever_else_its_rows_hold(tmp_path):
    """Rows with one prompt that are in flight together wait for one answer, and each keeps its own columns."""
    to, model = str(tmp_path / "o.db"), Scripted(str.upper)
    rows = [{"id": number, "t": "ab"[number % 2]} for number in range(8)]
    first = await ask(rows, "{t}!", model=model, to=to, key="id", keep=True, memo=True, concurrency=8)
    assert sorted(model.asked) == ["a!", "b!"]
    assert (first.delivered, first.recalled, first.spent.requests) == (8, 6, 2)
    assert stored(tmp_path / "o.db")[:2] == [
        {"id": 0, "answer": "A!", "t": "a"},
        {"id": 1, "answer": "B!", "t": "b"},
    ]
    other = await ask(rows, shout, model=model, to=to, key="id", memo=True, run_name="other", table="others")
    assert (other.recalled, other.spent.requests) == (8, 0)  # by another prompt, of the same text
    told = await ask(rows, shout, model=model, to=to, memo=True, system="Be brief", run_name="c", table="c")
    assert (told.recalled, told.spent.requests) == (6, 2)


async def test_with_memo_rows_without_the_column_fail_as_without(tmp_path):
    model = Scripted(str.upper)
    found = await ask([{"t": "a"}, {"x": 1}, {"x": 2}], "{t}", model=model, to=str(tmp_path / "o.db"), memo=True)
    assert (found.delivered, found.dead, model.asked) == (1, 2, ["a"])
    with pytest.raises(FatalError, match="no prompt can be made of the first 10 rows"):
        await ask([{"x": 1}] * 12, "{t}", model=model, to=str(tmp_path / "p.db"), memo=True)


async def test_on_error_raise_names_the_row(tmp_path):
    model = Scripted(lambda prompt: ModelError("no") if prompt == "b" else prompt)
    with pytest.raises(RowFailedError, match=r"prompt raised ModelError\('no'\) \(stage 'ask', item 1"):
        await ask(["a", "b"], "{value}", model=model, to=str(tmp_path / "o.db"), on_error="raise", concurrency=1)
    refused = Scripted(lambda _: AccountError("no credit"))
    with pytest.raises(AccountError, match="no credit"):
        await ask(["a", "b"], "{value}", model=refused, to=str(tmp_path / "p.db"))
    never = Scripted(lambda _: "x")
    with pytest.raises(AnswerError):
        await ask(["a"], "{value}", model=never, schema={"type": "object"})


async def test_tokens_are_charged_before_and_put_right_after():
    model = Scripted(str.lower)
    job = AskJob(["a" * 4000, "b", "c"], "{value}", model=model, tokens="60000/min", concurrency=1)
    await job.answers()
    assert job.spent == Spending(3, 0, 30, 15)
    assert job._limits.tokens.n == 60_000


def test_a_model_with_limits_of_its_own_is_refused():
    limits = {"requests": penstock.RateLimit(5, 60)}
    with pytest.raises(OptionError, match="model must have no limits of its own here"):
        AskJob(["a"], "{value}", model=OpenAIChat("m", limits=limits))
    with pytest.raises(OptionError, match="base_url is for a model that is named"):
        AskJob(["a"], "{value}", model=Scripted(str), base_url="http://127.0.0.1")


def test_prices():
    assert Price.of("1/2") == Price(1, 2, 1)
    assert Price.of((1, 2, 0.5)).of_spending(Spending(1, 0, 2_000_000, 1_000_000, 1_000_000)) == 3.5
    assert Spending.of_note("nonsense") == Spending()
    assert Spending.of_note({"requests": 2, "x": 1, "failed": "y"}) == Spending(2)
