"""`penstock run` and the commands that answer, stop and look at runs of pipelines."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter

import pytest

from .conftest import make_room

pytestmark = [pytest.mark.real_time, pytest.mark.slow]

JOBS = """
from dataclasses import dataclass
from datetime import date
from penstock.flow import Pipeline, command

@dataclass(frozen=True)
class Draft:
    text: str
    day: date | None = None

def up(draft: Draft) -> Draft:
    assert isinstance(draft, Draft)
    return Draft(draft.text.upper(), draft.day)

def check(draft):
    if "BAD" in draft.text:
        raise ValueError("bad words")

def fail(value):
    print("printed by a step")
    raise ValueError("no")

article = (
    Pipeline("article", takes=Draft).step("up", up).review("editor", check=check)
    .step("publish", lambda draft: f"{draft.text} {draft.day}")
)
failing = Pipeline("failing", [Pipeline("in", takes=object).step("fail", fail)])
slow = Pipeline("slow", [command("sleep", ["sh", "-c", "echo begun > begun; sleep 1000"], cwd=".")])
missing = Pipeline("missing", [command("gone", ["penstock-has-none"])])
empty = Pipeline("empty", takes=int)
sleeping = ["sh", "-c", "echo begun > begun; sleep 1000"]

def grow(number):
    with open("calls", "a") as file:
        print(number, file=file)
    return "x" * 40_000

each = Pipeline("each").step("grow", grow)
long = Pipeline("long").step("begin", lambda _: list(range(40))).map("all", each, concurrency=4)
asking = Pipeline("asking", [command("once", sleeping, cwd=".", on_interrupted="ask")])
"""


@pytest.fixture(autouse=True)
def jobs(tmp_path):
    (tmp_path / "jobs.py").write_text(JOBS)


DRAFT = '{"text": "abc", "day": "2030-01-02"}'


def test_a_run_that_completes_says_its_steps(penstock, tmp_path):
    (tmp_path / "p.yaml").write_text("pipeline: p\nsteps:\n  - {name: a, run: [echo, '${{ input.x }}']}\n")
    done = penstock("run", "p.yaml", "-i", '{"x": 5}', "--run-id", "r")
    assert (done.code, done.out, done.err[:1]) == (0, "a: completed\nrun r: completed\n", "r"), done.err
    assert "a: completed" in done.err
    again = penstock("run", "p.yaml", "-i", '{"x": 5}', "--run-id", "r", "--json")
    assert again.json["output"] == "5\n"
    assert set(again.json) == {
        "run_id", "pipeline", "status", "output", "error", "errors", "changed", "usage", "pending", "steps",
    }  # fmt: skip
    assert again.json["steps"][0]["attempts"] == 1
    assert penstock("run", "p.yaml", "-i", '{"x": 6}', "--run-id", "r").code == 2


def test_a_review_is_answered_from_any_directory(penstock, tmp_path):
    paused = penstock("run", "jobs:article", "-i", DRAFT, "--run-id", "r", "-w", "work")
    assert paused.code == 4
    assert "run r: paused\n" in paused.out
    assert "penstock approve work r editor" in paused.out
    (tmp_path / "elsewhere").mkdir()
    elsewhere = {"cwd": tmp_path / "elsewhere"}
    refused = penstock("approve", "../work", "r", "--value", '{"text": "BAD"}', **elsewhere)
    assert (refused.code, refused.out) == (2, "")
    assert "the check refuses it: ValueError: bad words" in refused.err
    assert penstock("approve", "../work", "r", "--value", '"text"', **elsewhere).code == 2
    given = '{"text": "better", "day": "2031-02-03"}'
    assert penstock("approve", "../work", "r", "editor", "--value", given, "--by", "ann", **elsewhere).code == 0
    assert penstock("approve", "../work", "r", **elsewhere).code == 2
    resumed = penstock("resume", "../work", "r", "--json", **elsewhere)
    assert (resumed.code, resumed.json["output"]) == (0, "better 2031-02-03")
    assert [step["by"] for step in resumed.json["steps"]] == [None, "ann", None]


def test_a_rejected_review_fails_and_a_fork_asks_again(penstock):
    penstock("run", "jobs:article", "-i", DRAFT, "--run-id", "r")
    assert penstock("reject", ".penstock", "r").code == 2
    assert penstock("reject", ".penstock", "r", "--reason", "dull").code == 0
    failed = penstock("resume", ".penstock", "r")
    assert failed.code == 1
    assert "REVIEW_REJECTED at editor" in failed.out
    assert "dull" in failed.out
    forked = penstock("fork", ".penstock", "r", "--at", "editor", "--output", 'up={"text": "other"}')
    assert forked.code == 0
    assert penstock("resume", ".penstock", forked.out.strip()).code == 4
    waiting = penstock("status", ".penstock", forked.out.strip(), "--json").json["pending"]
    assert waiting == [{"step": "editor", "value": {"text": "other", "day": None}, "reason": "review", "refused": None}]
    assert [run["status"] for run in penstock("runs", ".penstock", "--json").json] == ["paused", "failed"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["jobs:failing"], 1, "STEP_FAILED at in/fail"),
        (["jobs:missing"], 1, "TASK_CREATION_FAILED at gone"),
        (["jobs:empty", "-i", "3"], 2, "NO_STEPS"),
        (["jobs:empty", "--check"], 2, "no steps"),
        (["jobs:article", "-i", "{"], 2, "--input must be JSON"),
        (["jobs:article", "-i", "rivers"], 2, """a text stands in quotes: '"rivers"'"""),
        (["jobs:article", "-i", '{"txt": 1}'], 2, "--input has no field 'txt': there are 'text', 'day'"),
        (["jobs:article", "-i", '{"text": "x", "day": "soon"}'], 2, "--input.day must be"),
        (["jobs:article", "-i", DRAFT, "--on-change", "never"], 2, "on_change must be one of"),
        (["jobs:article", "-i", DRAFT, "--concurrency", "0"], 2, "--concurrency must be an int >= 1, got 0"),
        (["jobs:article", "-i", DRAFT, "--run-id", "../x"], 2, "../x"),
        (["jobs:nothing"], 2, "module 'jobs' has no 'nothing'"),
        (["jobs:Draft"], 2, "jobs:Draft must be a Pipeline"),
        (["nowhere:p"], 2, "there is no module 'nowhere'"),
        (["words"], 2, "PIPELINE must be a file *.yaml or *.yml, or module:name, got 'words'"),
        (["none.yaml"], 2, "none.yaml: the file cannot be read"),
    ],
)
def test_what_fails_says_why_and_by_its_code_whose_fault_it_is(penstock, arguments, code, message):
    done = penstock("run", *arguments)
    assert done.code == code
    assert message in done.out + done.err


def test_looking_for_mistakes_makes_no_workspace(penstock, tmp_path):
    (tmp_path / "p.yaml").write_text("pipeline: p\nsteps:\n  - {nam: a}\n")
    done = penstock("run", "p.yaml", "--check")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("penstock: p.yaml:3:6: unknown key 'nam'")
    assert penstock("run", "jobs:article", "--check").code == 0
    assert not (tmp_path / ".penstock").exists()


def test_what_is_not_there_is_bad_usage(penstock, tmp_path):
    for command in (
        ["resume"],
        ["approve"],
        ["cancel"],
        ["status"],
        ["reject", "--reason", "x"],
        ["fork", "--at", "a"],
    ):
        (tmp_path / "work").mkdir(exist_ok=True)
        assert penstock(command[0], "work", "none", *command[1:]).code == 2, command
    assert penstock("runs", "work", "--json").code == 2


def test_a_workspace_that_cannot_be_used_is_not_done(penstock, tmp_path):
    (tmp_path / "file").write_text("x")
    assert penstock("run", "jobs:failing", "-w", "file").code == 3


def test_a_full_disk_ends_a_run_and_what_is_finished_is_not_called_again(penstock, small_disk, tmp_path):
    command = ("run", "jobs:long", "-w", "disk/work", "--run-id", "r")
    done = penstock(*command)
    assert done.code == 3
    assert re.fullmatch(
        r"run r: failed: WORKSPACE_ERROR: .*/workspace\.db: the disk is full", done.out.splitlines()[-1]
    )
    make_room(small_disk)
    assert penstock(*command).code == 0
    calls = Counter((tmp_path / "calls").read_text().split())
    assert len(calls) == 40
    assert calls.total() <= 44  # at most those again that were in flight


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_and_says_how_to_go_on(penstock, tmp_path, number, code):
    os.mkfifo(tmp_path / "begun")
    command = [sys.executable, "-W", "always", "-m", "penstock", "run", "jobs:slow", "--run-id", "r"]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert (tmp_path / "begun").read_text() == "begun\n"
    busy = penstock("resume", ".penstock", "r")
    assert busy.code == 3
    assert "ALREADY_RUNNING" in busy.err
    running.send_signal(number)
    out, err = running.communicate()
    assert running.returncode == code
    assert "run r: cancelled: ABORTED" in out
    assert "it goes on with: penstock resume .penstock r" in err
    assert "Traceback" not in err
    assert penstock("status", ".penstock", "r", "--json").json["status"] == "cancelled"


def test_a_run_that_somebody_cancels_says_so(penstock, tmp_path):
    os.mkfifo(tmp_path / "begun")
    command = [sys.executable, "-m", "penstock", "run", "jobs:slow", "--run-id", "r"]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert (tmp_path / "begun").read_text() == "begun\n"
    assert penstock("cancel", ".penstock", "r").code == 0
    running.communicate()
    assert running.returncode == 5
    assert penstock("cancel", ".penstock", "r").code == 2


def test_an_interrupted_step_waits_to_be_told(penstock, tmp_path):
    os.mkfifo(tmp_path / "begun")
    command = [sys.executable, "-m", "penstock", "run", "jobs:asking", "--run-id", "r"]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert (tmp_path / "begun").read_text() == "begun\n"
    running.kill()
    running.communicate()
    waiting = penstock("resume", ".penstock", "r", "--json")
    assert (waiting.code, waiting.json["pending"][0]["reason"]) == (4, "interrupted")
    assert penstock("approve", ".penstock", "r", "--value", "5").code == 2  # its output is a text
    assert penstock("approve", ".penstock", "r", "--value", '"was done"').code == 0
    assert penstock("resume", ".penstock", "r", "--json").json["output"] == "was done"


def test_help_says_all_exit_codes(penstock):
    text = penstock("run", "--help").out
    assert all(f"{code} " in text for code in (0, 1, 2, 3, 4, 5, 130, 143))


def test_stdout_is_one_document_also_of_a_failure(penstock):
    failed = penstock("run", "jobs:failing", "--json", "--run-id", "r")
    assert failed.json["error"] == {
        "code": "STEP_FAILED",
        "step": "in/fail",
        "message": failed.json["error"]["message"],
    }
    assert json.loads(failed.out)["status"] == "failed"
    assert "printed by a step" in failed.err


@pytest.mark.parametrize("arguments", [["runs", "closed"], ["status", "closed", "r"]])
def test_a_workspace_that_cannot_be_looked_into_is_told(bound_penstock, tmp_path, arguments):
    (tmp_path / "closed").mkdir(mode=0)
    done = bound_penstock(*arguments)
    assert (done.code, done.out) == (3, "")
    assert done.err.endswith("closed/workspace.db: permission denied\n")
