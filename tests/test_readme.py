"""The README says what is true: its program runs and prints what stands below it; its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", [0, 1], ids=["a first stream", "a run that can be killed"])
def test_a_program_prints_what_the_readme_shows(number, tmp_path):
    command = [sys.executable, "-W", "error", "-c", blocks("python")[number]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == blocks("text")[number]


def test_the_two_commands_stand_alone_and_exist():
    commands = [block.strip() for block in blocks("sh")]
    assert commands == ["make demo", "make test"]
    targets = re.findall(r"^([a-z0-9.-]+):", (README.parent / "Makefile").read_text(), re.MULTILINE)
    assert {command.removeprefix("make ") for command in commands} <= set(targets)


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (README.parent / link).exists(), link


def test_what_it_imports_in_passing_is_there():
    lines = re.findall(r"`(from penstock\S* import [^`]+)`", TEXT)
    assert lines
    for line in lines:
        exec(line, {})
