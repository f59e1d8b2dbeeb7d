"""Files of a tree, found lazily."""

import itertools
import os

import pytest

from penstock.sources.selection import selection
from penstock.sources.walking import PathError, inside, roots, walk

TEXTS = selection(["*.txt"])


def make(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def found(*paths, chosen=TEXTS):
    """Paths and sizes that a walk finds; it must meet no error."""
    errors = []
    listings = list(walk(roots([os.fspath(path) for path in paths]), chosen, lambda *error: errors.append(error)))
    assert errors == []
    return [file.path for listing in listings for file in listing.files]


def test_files_come_sorted_directory_by_directory(tmp_path):
    make(tmp_path, "b.txt", "a.txt", "c/z.txt", "c/a/y.txt", "a.d/x.txt", "no.bin")
    names = [inside(str(tmp_path), path) for path in found(tmp_path)]
    assert names == ["a.txt", "b.txt", "a.d/x.txt", "c/z.txt", "c/a/y.txt"]


def test_only_one_directory_is_read_ahead(tmp_path):
    """A tree is found lazily: what is made below after the first listing is still found."""
    make(tmp_path, "a.txt", "sub/b.txt")
    listings = walk(roots([str(tmp_path)]), TEXTS, pytest.fail)
    first = next(listings)
    make(tmp_path, "sub/c.txt")
    later = [file.name for listing in listings for file in listing.files]
    assert [file.name for file in first.files] == ["a.txt"]
    assert later == ["b.txt", "c.txt"]


def test_size_and_mtime_are_the_version(tmp_path):
    make(tmp_path, "a.txt")
    os.utime(tmp_path / "a.txt", ns=(1, 1_234_567_890_123_456_789))
    ((file,),) = [listing.files for listing in walk(roots([str(tmp_path)]), TEXTS, pytest.fail)]
    assert file.version == (5, 1_234_567_890_123_456_789)


def test_a_file_named_by_several_paths_is_found_once(tmp_path):
    make(tmp_path, "a/b/one.txt", "a/two.txt")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    places = [
        tmp_path / "a",
        tmp_path / "a" / "b",
        tmp_path / "a" / "b" / "one.txt",
        tmp_path / "a" / ".." / "a",
        tmp_path / "link",
        tmp_path / "link" / "b" / "one.txt",
    ]
    for order in itertools.permutations(places, 3):
        paths = found(*order)
        assert len(paths) == len(set(paths))
    assert sorted(found(*places)) == [str(tmp_path / "a" / "b" / "one.txt"), str(tmp_path / "a" / "two.txt")]


def test_equal_names_under_several_paths_stay_distinct(tmp_path):
    make(tmp_path, "x/same.txt", "y/same.txt")
    assert len(set(found(tmp_path / "x", tmp_path / "y"))) == 2


def test_a_nested_root_is_walked_even_where_the_outer_walk_would_not_go(tmp_path):
    make(tmp_path, "a.txt", "left/b.txt", "left/deep/c.txt")
    chosen = selection(["*.txt"], ["left"])
    names = [inside(str(tmp_path), path) for path in found(tmp_path, tmp_path / "left", chosen=chosen)]
    assert names == ["a.txt", "left/b.txt", "left/deep/c.txt"]


def test_files_that_are_named_come_directory_by_directory(tmp_path):
    make(tmp_path, "b/2.txt", "a/1.txt", "b/1.txt")
    named = [str(tmp_path / name) for name in ("b/2.txt", "a/1.txt", "b/1.txt")]
    listings = walk(roots(named), TEXTS, pytest.fail)
    assert [[file.name for file in listing.files] for listing in listings] == [["1.txt"], ["1.txt", "2.txt"]]


def test_a_named_file_is_taken_whatever_its_name(tmp_path):
    make(tmp_path, ".hidden", "Makefile")
    assert found(tmp_path / ".hidden", tmp_path / "Makefile") == [str(tmp_path / ".hidden"), str(tmp_path / "Makefile")]


def test_loops_of_links_hold_nothing(tmp_path):
    """A link to a directory is not followed but counted; a link to itself is no directory and no file."""
    make(tmp_path, "sub/a.txt")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "me").symlink_to(tmp_path / "me")
    listings = list(walk(roots([str(tmp_path)]), TEXTS, pytest.fail))
    assert [file.name for listing in listings for file in listing.files] == ["a.txt"]
    assert [listing.links for listing in listings] == [0, 1]


def test_a_link_to_a_file_is_followed_under_its_own_name(tmp_path):
    make(tmp_path, "docs/data/real.bin", "docs/x.txt")
    (tmp_path / "docs" / "link.txt").symlink_to(tmp_path / "docs" / "data" / "real.bin")
    assert found(tmp_path / "docs") == [str(tmp_path / "docs" / "link.txt"), str(tmp_path / "docs" / "x.txt")]


def test_broken_links_with_a_wanted_name_are_errors(tmp_path):
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    (tmp_path / "other.bin").symlink_to(tmp_path / "nowhere")
    errors = []
    list(walk(roots([str(tmp_path)]), TEXTS, lambda path, error: errors.append((path, error.strerror))))
    assert errors == [
        (str(tmp_path / "gone.txt"), "No such file or directory"),
        (str(tmp_path / "loop.txt"), "Too many levels of symbolic links"),
    ]


def test_what_is_no_file_is_passed_over(tmp_path):
    """A pipe would hang its reader for ever."""
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "dir.txt").mkdir()
    assert found(tmp_path) == []


def test_a_directory_that_vanishes_meanwhile_is_an_error(tmp_path):
    make(tmp_path, "a.txt", "sub/b.txt")
    errors = []
    listings = walk(roots([str(tmp_path)]), TEXTS, lambda path, _: errors.append(path))
    next(listings)
    (tmp_path / "sub" / "b.txt").unlink()
    (tmp_path / "sub").rmdir()
    (listing,) = listings
    assert errors == [str(tmp_path / "sub")]
    assert listing.names is None


@pytest.mark.parametrize("name", ["missing", "loop", "pipe"])
def test_a_path_that_cannot_be_walked_is_named(tmp_path, name):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PathError, match=f"{name}: (no such file|too many levels|neither a directory)"):
        roots([str(tmp_path / name)])


def test_names_that_are_no_utf_8_are_kept(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")
    path.touch()
    assert found(tmp_path) == [str(path)]


def test_a_path_is_told_relative_to_its_root():
    assert inside("/", "/a/b") == "a/b"
    assert inside("/a", "/a/b/c") == "b/c"
    assert inside("/a", "/a") == ""
