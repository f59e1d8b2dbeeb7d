"""Which files of a tree are meant."""

import pytest

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
