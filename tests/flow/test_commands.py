"""The step that runs a program: what it takes, where it runs, what it needs, and what is told of it."""

import logging
from functools import partial

import pytest

from penstock import OptionError
from penstock.durable.held import Held
from penstock.flow.added import CannotBegin
from penstock.flow.commands import command
from penstock.flow.context import StepContext
from penstock.flow.programs import NoSuchProgram, keeping_programs
from penstock.flow.secrets import EnvSecret, secret
from penstock.tasks.tokens import CancelToken

pytestmark = pytest.mark.real_time


@pytest.fixture(autouse=True, scope="module")
def one_keeper():
    with keeping_programs() as keeper:
        keeper.start()
        yield


class Recording:
    run_id, idempotency_key = "r", "k"

    def __init__(self, directory):
        self.workspace = lambda: directory


@pytest.fixture
def context(tmp_path):
    def made(recording=None):
        return StepContext(
            step="c",
            attempt=1,
            state={},
            cancel=CancelToken(),
            log=logging.getLogger("penstock.flow.p.c"),
            recording=recording,
        )

    return partial(made, Recording(tmp_path))


async def test_words_and_stdin_may_be_made_of_the_value(context):
    asked = command(
        "c", lambda value: ["sh", "-c", "cat; echo $1", "sh", str(value)], stdin=lambda value: b"<%d>" % value
    )
    assert await asked.call(7, context()) == "<7>7\n"


async def test_it_runs_in_the_directory_of_the_step(context, tmp_path):
    assert await command("c", ["pwd"]).call(None, context()) == f"{tmp_path}\n"
    (tmp_path / "in").mkdir()
    assert await command("c", ["pwd"], cwd=tmp_path / "in").call(None, context()) == f"{tmp_path}/in\n"


async def test_in_a_stream_it_runs_in_a_temporary_directory(context, tmp_path):
    where = (await command("c", ["pwd"]).call(None, context.func())).strip()
    assert where.startswith("/")
    assert where != str(tmp_path)
    assert await command("c", ["ls", where], ok=[2], env={"LC_ALL": "C"}).call(None, context()) == ""


async def test_lines_go_to_the_log_of_the_step(context, caplog):
    caplog.set_level(logging.INFO, "penstock")
    await command("c", ["sh", "-c", "echo one; echo two >&2"]).call(None, context())
    assert sorted(record.getMessage() for record in caplog.records) == ["one", "two"]
    assert {record.name for record in caplog.records} == {"penstock.flow.p.c"}


def test_what_is_missing_is_known_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.delenv("PENSTOCK_NONE", raising=False)
    monkeypatch.chdir(tmp_path)
    for asked in (
        command("c", ["penstock-has-none"]),
        command("c", ["sh"], env={"PATH": ""}),
        command("c", ["./none"], cwd="."),
        command("c", ["/none/at/all"]),
    ):
        with pytest.raises(NoSuchProgram, match="there is no program"):
            asked.check(None)
    with pytest.raises(CannotBegin, match="there is no secret 'PENSTOCK_NONE'"):
        command("c", ["true"], env={"X": secret("PENSTOCK_NONE")}).check(None)
    command("c", ["./made-by-a-step-before"]).check(None)
    command("c", ["true"]).check(None)


@pytest.mark.parametrize(
    ("argv", "options", "message"),
    [
        ("ls -l", {}, "argv must be a program and its arguments, a sequence of str without NUL, got 'ls -l'"),
        ([], {}, r"argv must be a program .* got \[\]"),
        (["a", 1], {}, "argv must be a program .* got 1 in it"),
        (["a\0"], {}, "argv must be a program .* in it"),
        ([""], {}, "argv must begin with the name of a program, got ''"),
        (["a"], {"stdin": "text"}, "stdin must be callable, got 'text'"),
        (["a"], {"env": ["A"]}, "env must map names to str or secrets, got"),
        (["a"], {"env": {"A=": "x"}}, "got the name 'A='"),
        (["a"], {"env": {"A": 1}}, "got an int for 'A'"),
        (["a"], {"env": {"A": "x\0"}}, "got a NUL in the value for 'A'"),
        (["a"], {"cwd": 1}, "cwd must be a path or None, got 1"),
        (["a"], {"ok": 0}, "ok must be a collection of exit codes, ints, got 0"),
        (["a"], {"ok": [True]}, "ok must be a collection of exit codes"),
        (["a"], {"ok": []}, "ok must be a collection of exit codes"),
        (["a"], {"grace": -1}, "grace must be a finite number of seconds >= 0"),
        (["a"], {"max_output": 0}, "max_output must be an int >= 1, got 0"),
        (["a"], {"engine": "thread"}, "command 'c' has no option 'engine'"),
        (["a"], {"shell": True}, "command 'c' has no option 'shell'"),
    ],
)
def test_bad_options_are_refused_when_it_is_built(argv, options, message):
    with pytest.raises(OptionError, match=message):
        command("c", argv, **options)


async def test_what_functions_give_is_checked(context):
    with pytest.raises(OptionError, match="argv must be a program"):
        await command("c", lambda _: "ls").call(None, context())
    with pytest.raises(OptionError, match="stdin must give a str or bytes, got None"):
        await command("c", ["cat"], stdin=lambda _: None).call(None, context())


def test_its_code_is_what_its_output_depends_on():
    def code(*arguments, **options):
        fn, extra = command("c", *arguments, **options).code()
        return Held().print(fn), repr(extra)

    one = code(["a"])
    assert one == code(("a",), grace=9, timeout=3)
    others = [
        code(["b"]),
        code(["a"], env={"A": "x"}),
        code(["a"], env={"A": secret("x")}),
        code(["a"], cwd="/"),
        code(["a"], ok=[0, 1]),
        code(["a"], max_output=5),
        code(["a"], stdin=str),
        code(lambda _: ["a"]),
        code(lambda _: ["b"]),
        code(lambda _: ["a"], stdin=str),
    ]
    assert len({repr(each) for each in [one, *others]}) == 11


def test_a_secret_is_a_name(monkeypatch):
    monkeypatch.setenv("PENSTOCK_TEST_SECRET", "value")
    given = secret("PENSTOCK_TEST_SECRET")
    assert repr(given) == "secret('PENSTOCK_TEST_SECRET')"
    assert given == EnvSecret("PENSTOCK_TEST_SECRET")
    assert given.reveal() == "value"
    monkeypatch.setenv("PENSTOCK_TEST_SECRET", "another")
    assert given.reveal() == "another"
    for name in ("", "a=b", None, 5, "sk-aaaa\n"):
        with pytest.raises(OptionError, match="the name of a secret must be that of an environment variable"):
            secret(name)
