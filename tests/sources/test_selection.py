"""Which files of a tree are meant."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.sources.selection import selection


@pytest.mark.parametrize(
    ("glob", "path", "taken"),
    [
        ("*.md", "a.md", True),
        ("*.md", "deep/down/a.md", True),
        ("*.md", "a.md5", False),
        ("*.md", "README.MD", True),
        ("README*", "readme.md", False),
        ("docs/*.md", "docs/a.md", True),
        ("docs/*.md", "docs/deep/a.md", False),
        ("docs/*.md", "more/docs/a.md", False),
        ("docs/**/*.md", "docs/a.md", True),
        ("docs/**/*.md", "docs/x/y/a.md", True),
        ("**/*.md", "a.md", True),
        ("docs/**", "docs/x/y.txt", True),
        ("./docs/*.md", "docs/a.md", True),
        ("?.md", "ab.md", False),
        ("[ab].md", "b.md", True),
        ("[!ab].md", "b.md", False),
        ("[!ab].md", "c.md", True),
        ("a.b", "axb", False),
        ("a[.b", "a[.b", True),
        ("*", ".hidden", False),
    ],
)
def test_a_pattern_without_a_slash_is_about_names_and_one_with_a_slash_about_the_path(glob, path, taken):
    assert selection([glob]).takes(path) is taken


def test_what_is_excluded_is_not_taken():
    chosen = selection(["*.py"], ["test_*", "build/gen.py"])
    assert chosen.takes("a.py")
    assert not chosen.takes("sub/test_a.py")
    assert not chosen.takes("build/gen.py")
    assert chosen.takes("other/build/gen.py")


def test_an_excluded_or_hidden_directory_is_not_entered():
    chosen = selection(["*.py"], ["tests/", "a/vendor"])
    assert not chosen.enters("tests")
    assert not chosen.enters("deep/tests")
    assert not chosen.enters("a/vendor")
    assert chosen.enters("b/vendor")
    assert not chosen.enters(".git")


def test_a_file_is_covered_only_if_the_walk_would_come_to_it():
    chosen = selection(["*.py"], ["tests"])
    assert chosen.covers("a/b/c.py")
    assert not chosen.covers("a/tests/c.py")
    assert not chosen.covers("a/.venv/c.py")
    assert not chosen.covers("a/b/c.txt")


PARTS = ("a", "b", "*", "**", "**/", "/", "?", "[ab]", "[!a]", "A")


def fits(signs, path, fold):
    """Whether a path fits a pattern, by trying everything."""
    if not signs:
        return not path
    sign, *rest = signs
    if sign == "**/":
        return fits(rest, path, fold) or any(fits(rest, path[k + 1 :], fold) for k, c in enumerate(path) if c == "/")
    if sign == "*":
        return fits(rest, path, fold) or (path[:1] not in ("", "/") and fits(signs, path[1:], fold))
    char = path[:1].lower() if fold else path[:1]
    known = {"?": char != "/", "[ab]": char in ("a", "b"), "[!a]": char not in ("a", "/")}
    return bool(char) and known.get(sign, char == sign) and fits(rest, path[1:], fold)


@pytest.mark.slow
@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=7), st.text("abA/", max_size=7))
@settings(deadline=None, max_examples=1_000)
def test_a_pattern_fits_what_it_says(parts, path):
    pattern = "".join(parts)
    wanted = pattern.rstrip("/")
    wanted = re.sub(r"(?<=[^/])\*\*", "*", re.sub(r"\*{3,}", "**", wanted))
    wanted = re.sub(r"\*\*(?!/)", "**/*" if "/" in wanted else "*", wanted)
    signs = re.findall(r"\*\*/|\[.*?\]|.", wanted)
    place = path if "/" in wanted else path.rpartition("/")[2]
    assert (selection([pattern]).taken.match(path) is not None) == fits(signs, place, pattern == pattern.lower())


@pytest.mark.parametrize(
    "glob", ["*a*a*a*a*a*b", "**/*a*/**/*a*/**/*b", "**/**/**/**/b", "x/**a*a*a*b", "?*" * 20 + "b"]
)
def test_a_pattern_takes_linear_time(glob):
    """A name may have 255 characters and a path 4,096; with backtracking these took years."""
    chosen = selection([glob])
    began = time.process_time()
    for path in ("a" * 4_000, "a/" * 2_000, "x/" + "a/" * 2_000 + "a" * 90):
        assert not chosen.taken.match(path)
    assert time.process_time() - began < 1
