"""What is not installed is told by the extra that has it, when it is first needed; nothing is written."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import asyncio, os, sys
sys.modules[sys.argv[1]] = None
os.environ["KEY"] = "k"
from penstock.flow import AnthropicMessages, OpenAIChat, Pipeline, PipelineEngine, load, prompt, secret, step
pipeline = Pipeline("p").step("a", str)
engine = PipelineEngine("work")
uses = {
    "apsw": [engine.runs, lambda: engine.approve("x"), lambda: asyncio.run(engine.run(pipeline, 1))],
    "yaml": [lambda: load("p.yaml")],
    "openai": [lambda: asyncio.run(OpenAIChat("m", key=secret("KEY")).ask("Hi"))],
    "anthropic": [lambda: asyncio.run(AnthropicMessages("m", key=secret("KEY")).ask("Hi"))],
}
for use in uses[sys.argv[1]]:
    try:
        use()
    except ModuleNotFoundError as error:
        print(error)
print(os.listdir("."))
for kind in {"openai": OpenAIChat, "anthropic": AnthropicMessages}.get(sys.argv[1]), :
    if kind is not None:
        result = asyncio.run(engine.run(Pipeline("p").add(prompt("a", "Hi", model=kind("m", key=secret("KEY")))), 1))
        print(result.error.code, result.error)
"""

ENGINE = "penstock.flow.PipelineEngine needs apsw: pip install 'penstock[flow]'"
OPENAI = "OpenAIChat needs openai: pip install 'penstock[openai]'"
ANTHROPIC = "AnthropicMessages needs anthropic: pip install 'penstock[anthropic]'"


@pytest.mark.parametrize(
    ("library", "said"),
    [
        ("apsw", [ENGINE, ENGINE, ENGINE, "[]"]),
        ("yaml", ["penstock.flow.load needs yaml: pip install 'penstock[flow]'", "[]"]),
        ("openai", [OPENAI, "[]", f"TASK_CREATION_FAILED step 'a': {OPENAI}"]),
        ("anthropic", [ANTHROPIC, "[]", f"TASK_CREATION_FAILED step 'a': {ANTHROPIC}"]),
    ],
)
def test_a_missing_library_says_what_to_install(tmp_path, library, said):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, library],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (done.stderr, done.stdout.splitlines()) == ("", said)


@pytest.mark.parametrize(
    ("library", "arguments", "message"),
    [
        ("apsw", ["run", "p.yaml"], ENGINE),
        ("yaml", ["run", "p.yaml"], "penstock.flow.load needs yaml: pip install 'penstock[flow]'"),
        ("apsw", ["cancel", "work", "x"], ENGINE),
    ],
)
def test_so_does_the_command_line(tmp_path, library, arguments, message):
    (tmp_path / "p.yaml").write_text("pipeline: p\nsteps: [{name: a, run: [echo]}]\n")
    code = f"import sys; sys.modules[{library!r}] = None; from penstock.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"penstock: {message}\n")
