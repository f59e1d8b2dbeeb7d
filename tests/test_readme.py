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


@pytest.mark.parametrize("number", range(3), ids=["a first stream", "a run that can be killed", "steps"])
def test_a_program_prints_what_the_readme_shows(number, demo_server, tmp_path):
    program = blocks("python")[number].replace("http://127.0.0.1:8000", demo_server)
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == blocks("text")[number + 1]  # before them stands how it is installed


def test_the_table_of_tools_is_short():
    table = TEXT.partition("## Which tool?")[2].partition("\n## ")[0]
    assert 2 < len([line for line in table.splitlines() if line.startswith("|")]) - 2 <= 12


@pytest.mark.parametrize("word", ["root", "settled", "places", "stage"])
def test_the_first_screens_have_no_word_of_the_house(word):
    prose = re.sub(r"^```.*?^```$", "", TEXT.partition("## What it promises")[0], flags=re.MULTILINE | re.DOTALL)
    assert not re.search(rf"\b{word}\b", prose)


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
