"""docs/patterns.md says what is true: each of its programs prints what stands below it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = (Path(__file__).parent.parent / "docs" / "patterns.md").read_text()
PROSE = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
HEADINGS = re.findall(r"^##+ (.+)$", PROSE, re.MULTILINE)


def programs():
    """Each with what it prints, under the heading that it stands below and its number there."""
    for section in re.split(r"^##+ ", TEXT, flags=re.MULTILINE)[1:]:
        title = anchor(section.partition("\n")[0])
        found = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        for number, (program, printed) in enumerate(found, 1):
            yield pytest.param(program, printed, id=f"{title}-{number}")


def anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.slow
@pytest.mark.parametrize(("program", "printed"), list(programs()))
def test_a_program_prints_what_stands_below_it(program, printed, tmp_path):
    """In a file and a process of its own, with warnings as errors and nothing on stderr."""
    path = tmp_path / "program.py"
    path.write_text(program)
    command = [sys.executable, "-W", "error", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", printed)


def test_every_program_is_run():
    assert len(list(programs())) == len(re.findall(r"^```python$", TEXT, re.MULTILINE)) >= 25


def test_links_within_the_page_lead_somewhere():
    links = re.findall(r"\]\(#([^)]+)\)", PROSE)
    assert links
    assert set(links) <= {anchor(heading) for heading in HEADINGS}
