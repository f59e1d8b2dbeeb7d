"""Pipelines in YAML files: what each key means, references, and where mistakes are told."""

import json
import textwrap
from itertools import count

import pytest

from penstock import OptionError, stream
from penstock.flow import Cron, Event, PipelineEngine, load, to_streaming
from penstock.flow.pipeline_file import FileError

from .model_server import ModelServer, openai_document, whole

pytestmark = pytest.mark.slow


NUMBERS = count()

JOBS = """
from dataclasses import dataclass, field

@dataclass(frozen=True)
class Topic:
    name: str
    tags: list = field(default_factory=list)

def topic(value): return Topic(value["name"], ["a", "b"])
async def tags(topic): return topic.tags
def edit(text): return text + "!"
def is_good(text): return text.endswith("!!")
def check(text):
    if "bad" in text: raise ValueError("bad")
def kind(text): return len(text) > 3
def shout(text): return text.upper()
def headings(text): return text.split(",")
NUMBER = 5
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file with its jobs; `jobs` stands for their module, which is another one in each test."""
    module = f"jobs_of_yaml_{next(NUMBERS)}"
    (tmp_path / f"{module}.py").write_text(JOBS)
    monkeypatch.chdir(tmp_path)

    def written(text, name="p.yaml"):
        (tmp_path / name).write_text(textwrap.dedent(text).replace("jobs:", f"{module}:"))
        return name

    written.module = module
    return written


@pytest.fixture
def run(write, tmp_path):
    async def go(text, value=None):
        return await PipelineEngine(tmp_path / "work").run(load(write(text)), value, run_id="r")

    return go


def steps(text):
    return "pipeline: p\nsteps:\n" + textwrap.indent(textwrap.dedent(text).strip(), "  ") + "\n"


@pytest.mark.quick
@pytest.mark.real_time
async def test_all_kinds_of_steps_in_one(run, write, tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_TEST_SECRET", "hidden")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "facts").write_text('#!/bin/sh\necho "$1 $MODE ${#TOKEN}"; cat\n')
    (tmp_path / "bin" / "facts").chmod(0o700)
    with ModelServer(*[whole(openai_document(text=text)) for text in ("x,y", "on a", "on b")]) as server:
        result = await run(
            f"""
            pipeline: article
            models:
              small: {{openai: gpt-x, key: PENSTOCK_TEST_SECRET, base_url: "{server.url}", request: {{temperature: 0}}}}
            steps:
              - {{name: topic, python: "jobs:topic"}}
              - name: both
                concurrency: 2
                parallel:
                  - name: facts
                    run: [./facts, "${{{{ input.name }}}}"]
                    stdin: "${{{{ input }}}} $X ${{X}} {{}} $$ ${{{{ '${{{{' }}}}"
                    env: {{MODE: "m-${{{{ outputs.topic.tags[1] }}}}", TOKEN: "${{{{secrets.PENSTOCK_TEST_SECRET}}}}"}}
                    cwd: bin
                    retry: {{attempts: 2, initial: 0, jitter: 0}}
                  - name: outline
                    prompt: |
                      Outline ${{{{ input.name }}}}
                    model: small
                    system: Be brief.
                    max_tokens: 512
                    parse: jobs:headings
              - {{name: again, run: [echo, "${{{{ outputs[\\"both/facts\\"] }}}}", "${{{{ input[1] }}}}"]}}
              - {{name: list, steps: [{{name: back, python: "jobs:headings"}}]}}
              - {{name: tags, run: [echo, "${{{{ outputs.topic.tags[0] }}}},b"]}}
              - {{name: split, python: "jobs:headings"}}
              - name: sections
                map: [{{name: write, prompt: "On ${{{{ input }}}}, of ${{{{ outputs.topic.name }}}}", model: small}}]
                concurrency: 1
                on_error: collect
              - {{name: joined, run: [echo, -n, "${{{{ input }}}}"]}}
              - name: refine
                loop: [{{name: edit, python: "jobs:edit"}}]
                until: jobs:is_good
                max_rounds: 5
              - name: route
                choose: jobs:kind
                branch:
                  true: [{{name: shout, python: "jobs:shout"}}]
                otherwise: [{{name: drop, python: "jobs:edit"}}]
            """,
            {"name": "N"},
        )
    assert result.error is None
    state = dict(result.outputs)
    seen = '{"name": "N", "tags": ["a", "b"]} $X ${X} {} $$ ${{'
    assert state["both"] == [f"N m-b 6\n{seen}", ["x", "y"]]
    assert state["again"] == f'N m-b 6\n{seen} ["x", "y"]\n'
    assert state["sections"] == ["on a", "on b"]
    assert result.output == '["ON A", "ON B"]!!'
    assert [request["messages"][-1]["content"] for request in server.requests] == [
        "Outline N\n",
        "On a, of N",
        "On b\n, of N",
    ]
    first = server.requests[0]
    assert (first["temperature"], first["max_tokens"], first["messages"][0]["content"]) == (0, 512, "Be brief.")
    paths = {each.path for each in result.steps}
    assert {"both/facts", "list/back", "sections[0]/write", "refine[1]/edit", "route/true/shout"} <= paths


@pytest.mark.quick
@pytest.mark.real_time
async def test_a_review_waits_and_checks(run, write, tmp_path):
    text = steps('- {name: editor, review: , check: "jobs:check"}')
    assert (await run(text, "fine")).status == "paused"
    engine = PipelineEngine(tmp_path / "work")
    with pytest.raises(ValueError, match="bad"):
        engine.approve("r", value="bad", pipeline=load("p.yaml"))
    engine.approve("r")
    assert (await run(text, "fine")).output == "fine"


@pytest.mark.real_time
async def test_a_key_that_is_not_there_fails_the_step(run):
    result = await run(steps('- {name: a, run: [echo, "${{ input.nam }}"]}'), {"name": 1, "other": 2})
    assert result.error.code == "STEP_FAILED"
    assert "${{ input.nam }}: there is no 'nam', there are 'name', 'other'" in str(result.error)


def test_triggers_and_source(write, tmp_path):
    steps_of = 'steps: [{name: a, python: "jobs:edit"}]\n'
    assert load(write("pipeline: p\ntrigger: {cron: '0 6 * * *'}\n" + steps_of)).trigger == Cron("0 6 * * *")
    assert load(write("pipeline: p\ntrigger: {event: made}\n" + steps_of)).trigger == Event("made")
    loaded = load(write("pipeline: p\n" + steps_of))
    assert (loaded.trigger, loaded.source, loaded.takes) == ("manual", str(tmp_path / "p.yaml"), None)


def test_texts_are_what_stands_there(write):
    loaded = load(write(steps('- {name: no, run: [echo, yes, no, 1_000, ~, 0x10, 1e3, "", 2030-01-01]}')))
    assert loaded.steps[0].name == "no"
    assert loaded.steps[0].argv == ("echo", "yes", "no", "1_000", "~", "0x10", "1e3", "", "2030-01-01")


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", "1:1", "the file is empty"),
        ("# only a comment\n", "1:1", "the file is empty"),
        ("- a\n", "1:1", "the file must be a mapping, got a list"),
        ("pipeline: p\n", "1:1", "the file must have the key 'steps'"),
        ("pipeline: p\nsteps: [", "2:9", "the file is no YAML"),
        ("pipeline: p\nsteps: {a: 1}\n", "2:8", "steps must be a list, got a mapping"),
        ("pipeline: p\nsteps:\n", "2:7", "steps must be a list, got nothing"),
        ("pipeline: p\nstep: []\n", "2:1", "unknown key 'step': did you mean 'steps'?"),
        ("pipeline: p\npipeline: q\nsteps: []\n", "2:1", "the key 'pipeline' stands twice"),
        ("pipeline: a/b\nsteps: []\n", "1:11", "pipeline must be a str of 1 to 100 printable characters"),
        ("pipeline: p\ntrigger: daily\nsteps: []\n", "2:10", "trigger must be a mapping, got 'daily'"),
        ("pipeline: p\nmodels: {m: {openai: x, idle: soon}}\nsteps: []\n", "2:31", "idle must be a number, got 'soon'"),
        ("pipeline: p\nmodels: {m: {openai: x, idle: 0}}\nsteps: []\n", "2:31", "idle must be a finite number of"),
        (
            "pipeline: p\nmodels: {m: {stream: yes}}\nsteps: []\n",
            "2:13",
            "a model must have one of the keys openai",
        ),
        ("pipeline: p\nmodels: {m: {openai: x, stream: yes}}\nsteps: []\n", "2:33", "stream must be true or false"),
        (steps("- {name: a, python: nowhere:f}"), "3:23", "there is no module 'nowhere'"),
        (steps("- {name: a, python: jobs:toopic}"), "3:23", "has no 'toopic': did you mean 'topic'?"),
        (steps("- {name: a, python: jobs:NUMBER}"), "3:23", "must be callable, got 5"),
        (steps("- {name: a, python: just_a_word}"), "3:23", "python must be module:function, got 'just_a_word'"),
        (steps("- {name: a, pyton: jobs:edit}"), "3:15", "unknown key 'pyton' of a step: did you mean 'python'?"),
        (steps("- {name: a}"), "3:5", "a step must have one of the keys python, run, prompt"),
        (steps("- {name: a, run: [b], python: jobs:edit}"), "3:25", "a step must be of one kind, got run and python"),
        (steps("- {name: a, python: jobs:edit, stdin: x}"), "3:34", "unknown key 'stdin' of a step of kind python"),
        (steps("- {python: jobs:edit}"), "3:5", "a step of kind python must have the key 'name'"),
        (steps("- {name: a, run: [b]}\n- {name: a, run: [b]}"), "4:12", "the name 'a' stands twice"),
        (steps("- {name: a, run: b c}"), "3:20", "run must be a list, got 'b c'"),
        (steps("- {name: a, run: []}"), "3:20", "run must be a program and its arguments"),
        (steps("- {name: a, run: [b], timeout: 0}"), "3:34", "timeout must be a finite number of seconds > 0"),
        (steps("- {name: a, run: [b], timeout: 1_000}"), "3:34", "timeout must be a number, got '1_000'"),
        (steps("- {name: a, run: [b], ok: 0}"), "3:29", "ok must be a list, got '0'"),
        (steps("- {name: a, run: [b], ok: [x]}"), "3:30", "an item of ok must be a whole number, got 'x'"),
        (steps("- {name: a, run: [b], retry: {attempts: 0}}"), "3:43", "attempts must be an int >= 1, got 0"),
        (steps("- {name: a, run: [b], memo: yes}"), "3:31", "memo must be true or false, got 'yes'"),
        (steps("- {name: a, run: [b], on_interrupted: never}"), "3:41", "on_interrupted must be again or ask"),
        (steps("- {name: a, prompt: b, model: m}"), "3:33", "there is no model 'm': there are none"),
        (steps("- {name: a, prompt: b}"), "3:5", "a step of kind prompt must have the key 'model'"),
        (steps("- {name: a, review: yes}"), "3:23", "review must be empty, got 'yes'"),
        (steps("- {name: a, map: [], on_error: return}"), "3:34", "on_error must be collect or raise, got 'return'"),
        (steps("- {name: a, loop: [], max_rounds: 3}"), "3:5", "must have the key 'until'"),
        (steps("- {name: a, loop: [], until: jobs:is_good, max_rounds: 0}"), "3:58", "max_rounds must be an int >= 1"),
        (steps("- {name: a, parallel: []}"), "3:25", "parallel must have at least one step"),
        (steps('- {name: a, run: ["${{ input. }}"]}'), "3:21", "is no reference"),
        (steps('- {name: a, run: ["${{ env.HOME }}"]}'), "3:21", "it must begin with input"),
        (steps('- {name: a, run: ["${{ input"]}'), "3:21", "is no reference"),
        (steps('- {name: a, run: ["${{ 1 + 1 }}"]}'), "3:21", "is no reference"),
        (steps('- {name: a, run: ["${{ outputs.b }}"]}'), "3:21", "'b' is no step before this one: there are none"),
        (steps('- {name: a, run: ["${{ secrets.B }}"]}'), "3:21", "a secret can only be a whole value of env"),
        (
            steps('- {name: a, parallel: [{name: b, run: [c]}, {name: d, run: ["${{ outputs.b }}"]}]}'),
            "3:63",
            "'b' is no step before this one",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(write, text, place, message):
    with pytest.raises(FileError) as caught:
        load(write(text))
    shift = len(write.module) - len("jobs")  # columns behind the name of the module
    said = str(caught.value)
    line, column = place.split(":")
    if "jobs:" in [*text.splitlines(), ""][int(line) - 1][: int(column) - 1]:
        column = int(column) + shift
    assert said.startswith(f"p.yaml:{line}:{column}: "), said
    assert message in said


def test_what_cannot_be_read_is_named(write, tmp_path):
    for name in ("none.yaml", "."):
        with pytest.raises(FileError, match=r"^(none\.yaml|\.): the file cannot be read: "):
            load(name)
    (tmp_path / "bytes.yaml").write_bytes(b"pipeline: p\nsteps: \xff\n")
    with pytest.raises(FileError, match=r"^bytes\.yaml:2:8: the file is no UTF-8"):
        load("bytes.yaml")
    (tmp_path / "control.yaml").write_text("pipeline: \x01\n")
    with pytest.raises(FileError, match=r"^control\.yaml:1:11: the file is no YAML"):
        load("control.yaml")
    with pytest.raises(OptionError):
        load(5)


def test_a_module_that_raises_is_named(write, tmp_path):
    (tmp_path / "raises_at_import.py").write_text("1 / 0\n")
    with pytest.raises(FileError, match=r"module 'raises_at_import' cannot be imported: ZeroDivisionError"):
        load(write(steps("- {name: a, python: raises_at_import:f}")))


@pytest.mark.real_time
async def test_an_answer_that_does_not_fit_the_schema_of_a_file_or_of_the_step_is_asked_again(run, tmp_path):
    (tmp_path / "label.json").write_text('{"type": "object", "required": ["n"]}')
    given = ["no", '{"n": 1}', '{"n": "x"}', '{"n": 2}']
    with ModelServer(*[whole(openai_document(text=text)) for text in given]) as server:
        result = await run(
            f"""
            pipeline: p
            models: {{small: {{openai: m, key: , base_url: "{server.url}"}}}}
            steps:
              - {{name: a, prompt: "Say", model: small, schema: label.json}}
              - name: b
                prompt: "${{{{ input.n }}}} and?"
                model: small
                schema: {{type: object, properties: {{n: {{type: integer, minimum: 2}}}}}}
                asks: 2
            """,
            None,
        )
    assert (result.error, result.output, len(server.requests)) == (None, {"n": 2}, 4)
    assert "It does not fit: at $.n: 'x' is not of type 'integer'" in server.requests[3]["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("options", "place", "message"),
    [
        ("schema: none.json", "4:42", "schema must be in a file that can be read, got '"),
        ("schema: {type: no}", "4:42", "schema must be a JSON schema"),
        ("schema: [a]", "4:42", "schema must be a text, got a list"),
        ("schema: {}, parse: jobs:edit", "4:53", "parse must not be given with schema"),
        ("asks: 0", "4:40", "asks must be an int >= 1, got 0"),
    ],
)
def test_a_mistake_in_a_schema_is_told_with_its_place(write, options, place, message):
    text = "pipeline: p\nmodels: {m: {openai: m}}\nsteps:\n- {name: a, prompt: b, model: m, " + options + "}\n"
    with pytest.raises(FileError) as caught:
        load(write(text))
    assert str(caught.value).startswith(f"p.yaml:{place}: {message}")


@pytest.mark.parametrize(
    "text",
    [
        "pipeline: p\nsteps: &a [{name: x, steps: *a}]\n",
        "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
        ) + "pipeline: p\nsteps: []\n",
        "pipeline: p\nmodels: {m: {openai: x, request: {a: &a [" + ",".join("x" * 300) + "], b: &b ["
        + ",".join(["*a"] * 300) + "], c: [" + ",".join(["*b"] * 300) + "]}}}\nsteps: []\n",
        "pipeline: p\nsteps: " + "[" * 5000 + "]" * 5000,
    ],
    ids=["circle", "laughs", "laughs in a request", "deep"],
)  # fmt: skip
def test_files_that_mean_ill_are_refused(write, text):
    with pytest.raises(FileError):
        load(write(text))


def test_two_directories_may_have_a_module_of_one_name(tmp_path, monkeypatch):
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "jobs_twice.py").write_text(f"def f(value): return {number}\n")
        (tmp_path / str(number) / "p.yaml").write_text(steps("- {name: a, python: jobs_twice:f}"))
    assert [load(tmp_path / number / "p.yaml").steps[0].fn(None) for number in "12"] == [1, 2]


def test_code_of_templates_is_what_stands_in_them(write):
    def code(words, **more):
        text = json.dumps({"name": "a", "run": words} | more)
        return repr(load(write(steps(f"- {text}"))).steps[0].code()[1])

    one = code(["echo", "${{ input.a }}"])
    assert one == code(["echo", "${{ input.a }}"])
    assert one != code(["echo", "${{ input.b }}"])
    assert code(["a"], stdin="${{ input }}") != code(["a"], stdin="${{ input.x }}")


def test_a_reference_to_an_output_is_refused_in_a_stream(write):
    """When it is built, not at the first item: outputs of steps are not kept there."""
    first = 'pipeline: p\nsteps:\n  - {name: a, run: [cat], stdin: "${{ input }}"}\n'
    assert to_streaming(load(write(first))).name == "p"
    for key in (
        'run: [echo, "${{ outputs.a }}"]',
        'run: [cat], stdin: "${{ outputs.a }}"',
        'run: [env], env: {A: "${{ outputs.a }}"}',
    ):
        refused = load(write(f"{first}  - {{name: b, {key}}}\n"))
        for build in (stream(["x"]).add, to_streaming):
            with pytest.raises(OptionError, match="step 'b' cannot be part of a stream: outputs of steps are not kept"):
                build(refused)
