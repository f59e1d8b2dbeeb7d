"""examples/migration: moving a program to streams changes less than a tenth of its lines, and not what it prints."""

import difflib
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PLACE = Path(__file__).parent.parent / "examples" / "migration"
PROGRAMS = sorted(path.name.removesuffix("_before.py") for path in PLACE.glob("*_before.py"))
REVIEWS = [
    "I  love it",
    "broken",
    "",
    "love the colour",
    "too loud",
    " \n ",
    *(f"number {n} is fine" for n in range(120)),
]

needs_httpx = pytest.mark.skipif(find_spec("httpx") is None, reason="needs httpx")


def lines(name, form):
    return (PLACE / f"{name}_{form}.py").read_text().splitlines()


def changed(before, after):
    """Lines that are gone, new or different; one that stands for another counts once."""
    steps = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return sum(max(old - a, new - b) for kind, a, old, b, new in steps if kind != "equal")


def run(name, form, *arguments, cwd=None):
    command = [sys.executable, "-W", "error", PLACE / f"{name}_{form}.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


def both(name, *arguments):
    before, after = (run(name, form, *arguments) for form in ("before", "after"))
    assert (before.returncode, before.stdout, before.stderr) == (after.returncode, after.stdout, after.stderr)
    return after


def test_there_are_three_programs_and_a_page_that_shows_them():
    assert len(PROGRAMS) == 3
    page = (PLACE.parents[1] / "docs" / "migrating.md").read_text()
    assert all(f"{name}_{form}.py" in page for name in PROGRAMS for form in ("before", "after"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_less_than_a_tenth_of_the_lines_change(name):
    before, after = lines(name, "before"), lines(name, "after")
    assert 80 <= len(before) <= 150
    assert 0 < changed(before, after) < len(before) / 10


def test_what_counts_as_changed():
    assert changed(["a", "b", "c"], ["a", "x", "c", "d"]) == 2
    assert changed(["a", "b", "c"], ["c"]) == 2


@needs_httpx
def test_price_report_says_the_same(demo_server):
    done = both("price_report", "--url", demo_server, "--products", "9")
    assert done.returncode == 1
    assert done.stderr.split() == ["3", "status", "404", "8", "status", "404", "9", "status", "404"]
    assert len(done.stdout.splitlines()) == 6 + 3


def test_check_links_says_the_same(demo_server, tmp_path):
    page = "".join(f"[{n}](/products/{n})\n" for n in range(1, 40)) + "[x](http://127.0.0.1:1/) [y](http://other.test/)"
    (tmp_path / "page.md").write_text(page)
    done = both("check_links", tmp_path / "page.md", "--base", demo_server, "--skip", "other.test")
    assert done.returncode == 1
    assert "127.0.0.1: 6 well" in done.stdout
    assert "--- URLError http://127.0.0.1:1/" in done.stdout


@needs_httpx
def test_label_reviews_says_and_stores_the_same(demo_server, tmp_path):
    reviews = [{"id": number, "text": text} for number, text in enumerate(REVIEWS)]
    (tmp_path / "reviews.jsonl").write_text("\n".join(map(json.dumps, reviews)))
    for form in ("before", "after"):
        (tmp_path / form).mkdir()
        done = run("label_reviews", form, "../reviews.jsonl", "--url", demo_server, cwd=tmp_path / form)
        assert (done.returncode, done.stdout, done.stderr) == (0, "bad: 122\ngood: 2\n", "")
