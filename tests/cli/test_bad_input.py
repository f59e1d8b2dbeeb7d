"""Bad input: one clear line each, nothing lost, no traceback (the fixture looks)."""

import contextlib
import os
import resource
from contextlib import closing

import apsw
import pytest

from penstock.sinks.vectors import SqliteVectors
from penstock.workflows.documents.chunking import split

from .conftest import make_room

pytestmark = pytest.mark.slow


def test_an_unreadable_file_is_listed_and_the_others_stored(bound_penstock, docs):
    (docs / "note.txt").chmod(0)
    done = bound_penstock("embed", "docs", "--to", "index.db")
    assert done.code == 1
    assert "2 files and 2 chunks stored" in done.out
    assert "  1 file failed:\n    docs/note.txt: permission denied\n" in done.out


def test_an_unreadable_directory_is_listed_and_what_the_index_has_of_it_stays(bound_penstock, docs, indexed, stored):
    (docs / "sub").mkdir()
    (docs / "sub" / "a.txt").write_text("text")
    indexed(docs)
    (docs / "sub").chmod(0)
    done = bound_penstock("embed", "docs", "--to", "index.db")
    (docs / "sub").chmod(0o755)
    assert done.code == 1
    assert "    docs/sub: permission denied\n" in done.out
    assert "gone" not in done.out
    assert len(stored()) == 4


def test_bytes_that_are_no_utf_8_are_replaced_and_counted(penstock, docs, stored):
    (docs / "note.txt").write_bytes("grün und blöd".encode("cp1252"))
    done = penstock("embed", "docs", "--to", "index.db")
    assert done.code == 0
    assert "  1 file with bytes that are no text in their encoding, replaced by 2 U+FFFD\n" in done.out
    assert "gr\ufffdn und bl\ufffdd" in [row.text for row in stored()]


@pytest.mark.quick
def test_files_that_cannot_be_indexed_are_listed_and_the_others_stored(penstock, docs):
    (docs / "binary.txt").write_bytes(b"\x7fELF\0")
    (docs / "large.txt").write_text("x" * 101)
    (docs / "loop.txt").symlink_to("loop.txt")
    (docs / "broken.txt").symlink_to("nowhere")
    done = penstock("embed", "docs", "--to", "index.db", "--max-file-size", "100")
    assert done.code == 1
    assert "3 files and 3 chunks stored" in done.out
    assert "  4 files failed:\n" in done.out
    for line in (
        "docs/binary.txt: not text: a NUL byte at 4",
        "docs/large.txt: 101 bytes, more than the limit of 100",
        "docs/loop.txt: too many levels of symbolic links",
        "docs/broken.txt: no such file or directory",
    ):
        assert f"\n    {line}\n" in done.out


def test_an_empty_file_is_done(penstock, docs, stored):
    (docs / "empty.txt").touch()
    assert penstock("embed", "docs", "--to", "index.db").code == 0
    assert penstock("embed", "docs", "--to", "index.db", "--json").json["unchanged"] == 4
    assert [row.name for row in stored() if row.text is None] == ["empty.txt"]


def test_loops_of_links_end(penstock, docs):
    (docs / "up").symlink_to(docs)
    (docs / "me").symlink_to("me")
    os.mkfifo(docs / "pipe.txt")
    done = penstock("embed", "docs", "docs/up", "--to", "index.db")
    assert done.code == 0
    assert "3 files and 3 chunks stored" in done.out
    assert "  1 link to directories, not followed\n" in done.out


def test_a_file_that_vanishes_meanwhile_is_listed(docs, started_penstock):
    for number in range(1_500):
        (docs / f"{number:04}.txt").write_text(f"text {number}\n")
    (docs / "zzz.txt").write_text("the last of its directory, which is listed as a whole")
    running = started_penstock("embed", "docs", "--to", "index.db")
    running.wait_for("first document stored")
    (docs / "zzz.txt").unlink()
    done = running.finish()
    assert done.code == 1
    assert "  1 file failed:\n    docs/zzz.txt: gone since its directory was listed\n" in done.out


def test_many_failures_are_counted_and_the_newest_listed(penstock, docs):
    for number in range(60):
        (docs / f"bad{number:02}.txt").write_bytes(b"\0")
    done = penstock("embed", "docs", "--to", "index.db")
    assert done.code == 1
    assert "  60 files failed:\n    ... 10 more, then\n    docs/bad" in done.out
    assert done.out.count("not text") == 50


# The target


def test_a_read_only_index_is_refused(bound_penstock, docs, tmp_path, indexed, stored):
    indexed(docs / "note.txt")
    (tmp_path / "index.db").chmod(0o444)
    done = bound_penstock("embed", "docs", "--to", "index.db")
    assert (done.code, done.out) == (3, "")
    assert done.err == "penstock: index.db: cannot be written\n"
    assert len(stored()) == 1


def test_a_read_only_directory_is_refused_but_can_be_searched(bound_penstock, docs, tmp_path, indexed):
    indexed(docs)
    (tmp_path / "index.db.lock").unlink()
    tmp_path.chmod(0o555)
    try:
        done = bound_penstock("embed", "docs", "--to", "index.db")
        found = bound_penstock("search", "index.db", "compress bytes")
    finally:
        tmp_path.chmod(0o755)
    assert (done.code, done.err) == (3, "penstock: index.db: cannot be written: permission denied\n")
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("1. docs/gzip.py:1")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("docs", "docs: a directory, not a database"),
        ("docs/text.db", "docs/text.db: not an SQLite database"),
        ("docs/other.db", "docs/other.db: not an index of penstock"),
        ("nowhere/index.db", "nowhere/index.db: its directory does not exist"),
        ("nowhere/", "nowhere/: a directory, not a database"),
        ("/dev/null", "/dev/null: not a regular file"),
    ],
)
def test_a_target_that_is_no_index_is_refused_and_left_alone(penstock, docs, target, message):
    (docs / "text.db").write_text("a text " * 1_000)
    connection = apsw.Connection(str(docs / "other.db"))
    connection.execute("CREATE TABLE mine (x); INSERT INTO mine VALUES (1)")
    connection.close()
    before = {path.name: path.read_bytes() for path in docs.iterdir()}
    done = penstock("embed", "docs", "--to", target)
    assert (done.code, done.out, done.err) == (2, "", f"penstock: {message}\n")
    assert {path.name: path.read_bytes() for path in docs.iterdir()} == before


def test_an_index_of_another_embedder_is_refused(penstock, docs, tmp_path):
    SqliteVectors(tmp_path / "index.db", embedder="other", dimensions=1_024).open("process").close()
    message = "made with the embedder other (1024 dimensions), not hash-1 (1024); use that one, or name another index"
    done = penstock("embed", "docs", "--to", "index.db")
    assert (done.code, done.out, done.err) == (2, "", f"penstock: index.db: {message}\n")


@pytest.fixture
def empty(tmp_path):
    """An index without rows."""
    return SqliteVectors(tmp_path / "index.db", embedder="hash-1", dimensions=1_024)


@pytest.mark.parametrize(("version", "advice"), [(2, "; make another one"), (4, "")])
def test_an_index_of_another_format_is_refused_and_left_alone(*, penstock, docs, tmp_path, empty, version, advice):
    empty.open("process").close()
    connection = apsw.Connection(empty.path)
    connection.pragma("user_version", version)
    connection.close()
    before = (tmp_path / "index.db").read_bytes()
    for done in (penstock("search", "index.db", "x"), penstock("embed", "docs", "--to", "index.db")):
        assert (done.code, done.out) == (2, "")
        message = f"an index of format {version}; this penstock reads format 3{advice}"
        assert done.err == f"penstock: index.db: {message}\n"
    assert (tmp_path / "index.db").read_bytes() == before


@pytest.mark.parametrize("command", [["embed", "docs", "--to", "index.db"], ["search", "index.db", "x"]])
def test_an_index_that_is_damaged_is_told(penstock, docs, tmp_path, indexed, command):
    indexed(docs)
    index = bytearray((tmp_path / "index.db").read_bytes())
    index[100:] = b"\xff" * (len(index) - 100)
    (tmp_path / "index.db").write_bytes(index)
    done = penstock(*command)
    assert (done.code, done.out, done.err) == (3, "", "penstock: index.db: the database is damaged\n")


def test_two_runs_on_one_index_are_told_of_each_other(penstock, docs, tmp_path, empty):
    with closing(empty.open("process")):
        done = penstock("embed", "docs", "--to", "index.db")
        assert (done.code, done.out) == (3, "")
        assert f"penstock: index.db: process {os.getpid()} " in done.err
        assert "is writing to it" in done.err
        assert penstock("search", "index.db", "x").code == 0
    assert penstock("embed", "docs", "--to", "index.db").code == 0


# No room


@pytest.fixture
def pages(tmp_path):
    """Documents of some 400 KB."""
    root = tmp_path / "pages"
    root.mkdir()
    for number in range(40):
        (root / f"{number:02}.txt").write_text("\n\n".join(f"{number} {line} " + "word " * 150 for line in range(10)))
    return root


def test_a_full_disk_is_told_and_what_was_stored_stays(penstock, pages, small_disk, stored):
    assert penstock("embed", "pages", "--to", "disk/index.db", "--glob", "00*").code == 0
    done = penstock("embed", "pages", "--to", "disk/index.db")
    assert done.code == 3
    assert "penstock: disk/index.db: the disk is full\n" in done.err
    assert "the same command goes on from there\n" in done.err
    assert " failed" not in done.out
    whole = stored(small_disk / "index.db")
    names = {row.name for row in whole}
    assert 0 < len(names) < 40
    for name in names:
        assert [row.text for row in whole if row.name == name] == [
            chunk.text for chunk in split(name, (pages / name).read_text())
        ]
    assert penstock("search", "disk/index.db", "word").code == 0
    make_room(small_disk)
    again = penstock("embed", "pages", "--to", "disk/index.db", "--json")
    assert (again.code, again.json["unchanged"], again.json["files"]) == (0, len(names), 40 - len(names))


def test_a_disk_without_any_room_is_told(penstock, pages, small_disk):
    with contextlib.suppress(OSError):
        (small_disk / "filler").write_bytes(b"x" * 1_000_000)
    done = penstock("embed", "pages", "--to", "disk/index.db")
    assert (done.code, done.out) == (3, "")
    assert done.err.count("\n") == 1
    assert "disk/index.db: " in done.err


def test_a_file_size_limit_is_told_and_what_was_stored_stays(penstock, pages, stored):
    """As a full disk, for those who cannot mount one."""
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))}
    assert penstock("embed", "pages", "--to", "index.db", "--glob", "00*").code == 0
    done = penstock("embed", "pages", "--to", "index.db", **limit)
    assert done.code == 3
    assert "penstock: index.db: " in done.err
    some = len({row.name for row in stored()})
    assert 0 < some < 40
    assert penstock("embed", "pages", "--to", "index.db", "--json").json["unchanged"] == some
