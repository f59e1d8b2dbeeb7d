# ruff: noqa: ASYNC240 -- nothing else runs meanwhile
"""`Files`: rows as files below a directory, exactly once."""

import errno
import os
import shutil
import tempfile
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

import penstock
from penstock.durable import HeldError, StoreError, StoreFullError, dead_roots, forget, redo, runs
from penstock.sinks import directory, sqlite_store, target_tree

from ..durable.dying import life  # noqa: TID252 -- tests are no package to name
from .stepping_outside import Steps

pytestmark = pytest.mark.real_time


@pytest.fixture
def sink(tmp_path):
    return penstock.Files(tmp_path / "out")


def run(sink, roots, **options):
    """Deliver roots: each a mapping of names to contents."""
    source = penstock.keyed(list(roots), key=str, version=lambda key: str(roots[key]), name="roots")
    return source.map(lambda key: list(roots[key].items())).flatten().to(sink, run="r", **options)


def there(sink):
    root = Path(sink.root)
    found = [path for path in root.rglob("*") if path.is_file() and ".penstock" not in path.parts]
    return {str(path.relative_to(root)): path.read_text() for path in found}


async def dead(sink, roots, **options):
    """Deliver, and return the errors of the roots that died."""
    await run(sink, roots, on_error="collect", **options)
    return {root.key: root.letters[0].error for root in dead_roots(sink)}


FIRST = {"a": {"a.txt": "1", "sub/deep/a": "1"}, "b": {"b": "1"}, "c": {"sub/c": "1"}, "d": {"d/e/f": "1"}}
SECOND = {"a": {"a.txt": "2", "sub/other": "2"}, "b": {"b": "1"}, "c": {"sub/c": "1", "new": "2"}, "e": {"b2": "1"}}


def all_of(roots):
    return {name: content for files in roots.values() for name, content in files.items()}


async def test_rows_are_files_and_a_second_run_touches_none(sink):
    report = await run(sink, FIRST)
    assert (report.delivered, report.rows, report.guarantee) == (4, 5, "exactly once")
    assert there(sink) == all_of(FIRST)
    before = {path: path.stat() for path in Path(sink.root).rglob("*") if path.is_file()}
    assert (await run(sink, FIRST)).already_done == 4
    redo(sink, run="r", which="all")
    assert (await run(sink, FIRST)).redone == 4
    after = {path: path.stat() for path in before}
    touched = [path for path in before if before[path].st_ino != after[path].st_ino]
    assert [path for path in touched if ".penstock" not in path.parts] == []
    assert dict(sink.rows()) == {name: content.encode() for name, content in all_of(FIRST).items()}


async def test_a_changed_root_loses_the_files_that_it_does_not_give_any_more(sink):
    await run(sink, FIRST)
    report = await run(sink, SECOND, on_missing="delete")
    assert (report.redone, report.removed) == (2, 1)
    assert there(sink) == all_of(SECOND)
    assert not Path(sink.root, "sub", "deep").exists()
    assert not Path(sink.root, "d").exists()
    assert list(Path(sink.root, ".penstock").glob("*.part")) == []


async def test_a_run_can_be_forgotten_with_its_files_or_without(sink):
    await run(sink, FIRST)
    forget(sink, run="r", rows="remove")
    assert [path.name for path in Path(sink.root).iterdir()] == [".penstock"]
    await run(sink, FIRST)
    forget(sink, run="r", rows="keep")
    assert there(sink) == all_of(FIRST)


@pytest.mark.parametrize(
    "name",
    [
        *("", "/etc/passwd", "../out", "a/../../b", "a/..", ".", "./a", "a//b", "a/", "a\0b", "\ud800", 7, None),
        *(".penstock/journal.db", ".PENSTOCK/x", "x" * 300, "/".join("x" * 200 for _ in range(30))),
    ],
)
async def test_a_name_that_is_none_is_the_failure_of_its_root(sink, name):
    errors = await dead(sink, {"a": {"a": "1"}, "b": {name: "2"}})
    assert errors.keys() == {"b"}
    assert errors["b"].startswith("RowError: ")
    assert "name of a file" in errors["b"]
    assert there(sink) == {"a": "1"}


@pytest.mark.parametrize("content", [None, 1, [1], "\ud800", {"a": 1}])
async def test_a_content_that_is_none_is_the_failure_of_its_root(sink, content):
    errors = await dead(sink, {"a": {"a": "1"}, "b": {"b": content}})
    assert errors["b"].startswith("RowError: the content of a file must be bytes, or text that UTF-8 can hold, got ")
    source = penstock.keyed(["x"], key=str, name="roots").map(lambda _: "no pair")
    report = await source.to(sink, run="s", on_error="collect")
    assert report.causes[0].error.startswith("RowError: a row must be a pair of a name and a content, got 'no pair'")


async def test_bytes_text_paths_and_views_are_written(sink):
    rows = {"a": [(Path("p"), bytearray(b"1")), ("t", "\xe9\r\n"), ["v", memoryview(b"123")[1:]], ("empty", b"")]}
    await penstock.keyed(["a"], key=str).flat_map(rows.get).to(sink, run="r")
    assert dict(sink.rows()) == {"p": b"1", "t": "\xe9\r\n".encode(), "v": b"23", "empty": b""}


async def test_no_link_is_followed(sink, tmp_path):
    """Whoever may write to the directory cannot have other files overwritten."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_text("of others")
    root = Path(sink.root)
    root.mkdir()
    (root / "dir").symlink_to(tmp_path / "secret")
    (root / "link").symlink_to(tmp_path / "secret" / "file")
    (root / "nowhere").symlink_to(tmp_path / "secret" / "new")
    (root / "folder").mkdir()
    os.mkfifo(root / "pipe")
    names = ("dir/file", "dir/new", "link", "nowhere", "folder", "pipe", "link/x")
    errors = await dead(sink, {name: {name: "1"} for name in names})
    assert errors.keys() == set(names)
    assert all("cannot be the name of a file" in error for error in errors.values()), errors
    assert {path.name: path.read_text() for path in (tmp_path / "secret").iterdir()} == {"file": "of others"}


async def test_a_directory_that_became_a_link_is_left_alone(sink, tmp_path):
    await run(sink, {"a": {"d/a": "1"}, "b": {"b": "1"}})
    shutil.move(Path(sink.root, "d"), tmp_path / "elsewhere")
    Path(sink.root, "d").symlink_to(tmp_path / "elsewhere")
    assert (await dead(sink, {"a": {"d/a": "2"}, "b": {"b": "1"}})).keys() == {"a"}
    assert (tmp_path / "elsewhere" / "a").read_text() == "1"


async def test_a_file_that_no_run_has_written_stays_unless_it_is_the_same(sink):
    Path(sink.root).mkdir()
    Path(sink.root, "same").write_text("1")
    Path(sink.root, "other").write_text("of others")
    errors = await dead(sink, {"a": {"same": "1"}, "b": {"other": "1"}})
    assert errors == {"b": "RowError: 'other' is there with another content, and no run has written it"}
    assert there(sink) == {"same": "1", "other": "of others"}
    await run(sink, {"a": {}}, on_missing="delete", on_error="collect")
    assert there(sink) == {"other": "of others"}


@pytest.mark.parametrize(("first", "second"), [("x", "x"), ("x", "x/y"), ("x/y", "x"), ("x/y/z", "x"), ("x", "x/y/z")])
async def test_two_roots_cannot_have_one_file(sink, first, second):
    errors = await dead(sink, {"a": {first: "1"}, "b": {second: "2"}})
    whose = "it" if first == second else repr(first)
    assert errors == {"b": f"RowError: {second!r} cannot be a file of this root: root 'a' has {whose}"}
    assert there(sink) == {first: "1"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [([("x", "1"), ("x", "2")], "two files of one root are named 'x'"), ([("x", "1"), ("x/y", "2")], "'x' cannot be")],
)
async def test_nor_can_two_rows_of_one(sink, rows, message):
    source = penstock.keyed(["a"], key=str, name="roots").flat_map(lambda _: rows)
    with pytest.raises(penstock.sinks.RowError, match=message):
        await source.to(sink, run="r")
    assert there(sink) == {}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": {"x": "1"}, "b": {"y": "1"}}, {"a": {"y": "1"}, "b": {"x": "1"}}),  # they swap
        ({"a": {"x": "1"}}, {"b": {"x": "2"}}),  # it moves to a new root
        ({"a": {"x": "1"}}, {"b": {"x/y": "2"}}),  # and becomes a directory
        ({"a": {"x/y": "1"}}, {"b": {"x": "2"}}),  # and the other way round
        ({"a": {"x": "1"}}, {"a": {"x/y": "2"}}),  # of one root
        ({"a": {"x/y": "1", "x/z": "1"}}, {"a": {"x": "2"}}),
    ],
)
async def test_files_may_move_from_root_to_root(sink, before, after):
    await run(sink, before)
    await run(sink, after, on_missing="delete")
    assert there(sink) == all_of(after)


async def test_names_that_differ_in_case_are_one_where_the_disk_says_so(sink, monkeypatch):
    assert await dead(sink, {"a": {"A": "1"}, "b": {"a": "2"}}) == {}
    folding = penstock.Files(f"{sink.root}2")
    monkeypatch.setattr(target_tree.TargetTree, "_is_own", lambda self, name: True)
    errors = await dead(folding, {"a": {"A\xe9": "1"}, "b": {"ae\u0301": "2"}})
    assert errors == {"b": "RowError: 'ae\u0301' cannot be a file of this root: root 'a' has 'A\xe9'"}


async def test_files_that_others_removed_are_told_and_done_again_on_demand(sink, caplog):
    await run(sink, FIRST)
    Path(sink.root, "b").unlink()
    Path(sink.root, "sub", "c").write_text("longer")
    await run(sink, FIRST)
    assert "somebody has removed rows of 2 roots" in caplog.text
    assert redo(sink, run="r", which="missing rows").roots == 2
    await run(sink, FIRST)
    assert there(sink) == all_of(FIRST)
    shutil.rmtree(Path(sink.root, "sub"))
    for name in ("a.txt", "b"):
        Path(sink.root, name).unlink()
    shutil.rmtree(Path(sink.root, "d"))
    with pytest.raises(StoreError, match="somebody has removed all rows of run 'r'"):
        await run(sink, FIRST)


async def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(StoreError, match="out: its directory does not exist"):
        await run(penstock.Files(tmp_path / "no" / "out"), FIRST)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file: not a directory"):
        await run(penstock.Files(tmp_path / "file"), FIRST)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / ".penstock").symlink_to(tmp_path)
    with pytest.raises(StoreError, match="linked: not a directory"):
        await run(penstock.Files(tmp_path / "linked"), FIRST)
    with pytest.raises(penstock.OptionError, match="root must be"):
        penstock.Files(7)


async def test_the_directory_itself_may_be_a_link_and_may_move(sink, tmp_path):
    (tmp_path / "real").mkdir()
    Path(sink.root).symlink_to("real")
    await run(sink, FIRST)
    moved = penstock.Files(shutil.move(tmp_path / "real", tmp_path / "moved"))
    assert (await run(moved, FIRST)).already_done == 4
    with closing(moved.open("process")), pytest.raises(HeldError):
        await run(moved, FIRST)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_directory_of_somebody_else_is_named():
    async def main():
        os.setgid(65534)
        os.setuid(65534)
        with pytest.raises(StoreError, match="out: permission denied"):
            await run(penstock.Files(out), FIRST)
        os.umask(0o022)
        await run(penstock.Files(f"{folder}/own"), FIRST)
        assert Path(folder, "own", "b").stat().st_mode & 0o777 == 0o644
        Path(folder, "own", "sub").chmod(0o500)
        with pytest.raises(StoreError, match="own/sub/other: permission denied"):
            await run(penstock.Files(f"{folder}/own"), SECOND)
        Path(folder, "own", "sub").chmod(0o700)
        await run(penstock.Files(f"{folder}/own"), SECOND, on_missing="delete")
        assert there(penstock.Files(f"{folder}/own")) == all_of(SECOND)

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        out = Path(folder, "out")
        out.mkdir(0o755)
        assert life(main) == 0


async def test_a_full_disk_ends_the_run_and_leaves_no_part_of_a_file(sink, monkeypatch):
    class Disk:
        def __getattr__(self, name):
            return getattr(os, name)

        def write(self, file, data):
            if len(data) > 3:
                return os.write(file, data[:3])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(target_tree, "os", Disk())
    with pytest.raises(StoreFullError, match=r"out/\.penstock: the disk is full"):
        await run(sink, {"a": {"a": "123456"}})
    assert list(Path(sink.root).rglob("*.part")) == []
    monkeypatch.undo()
    await run(sink, {"a": {"a": "123456"}})
    assert there(sink) == {"a": "123456"}


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["process", "power"])
def test_killed_at_any_step_there_are_no_files_but_those_of_each_root(memory, durability):
    """P11: before a call of the system, in the middle of a write, before and after a commit; also twice in a row."""

    def live(sink, roots, dies_at):
        async def main():
            steps.watch(directory, target_tree)
            sqlite_store.LARGEST = 2  # some commits, not one
            await run(sink, roots, durability=durability, on_missing="delete")

        steps = Steps(dies_at, but={"open"} if durability == "power" else {"fsync"})
        return life(main)

    first = {"a": {"a": "1", "sub/deep/a": "1"}, "b": {"b": "1"}}
    second = {"a": {"a": "2", "new/a": "2"}, "c": {"sub/c": "1"}}
    each = 2 if durability == "process" else 5
    for n in count(1, each):
        sink = penstock.Files(memory / f"{n}")
        died = 0
        for roots, after in ((first, first), (second, first), (first, second), (second, second)):
            for _ in range(1 if durability == "process" else 2):
                died += live(sink, roots, n) != 0
            assert live(sink, after, 0) == 0
            assert there(sink) == all_of(after), n
            assert list(Path(sink.root).rglob("*.part")) == []
        if not died:
            break
    assert n > 20
    assert [each.done for each in runs(sink)] == [2]
