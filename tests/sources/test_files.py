"""`penstock.files`: what it finds, in which order, in which version, and what counts as missing from it."""

import logging
import os
import random
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

import penstock
from penstock.durable.status import runs
from penstock.sinks.table import SqliteTable
from penstock.sources import files as module
from penstock.sources.paths import key_of, path_of
from penstock.sources.walking import PathError

pytestmark = pytest.mark.real_time

NOBODY = 65_534


def make(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


@pytest.fixture
def docs(tmp_path):
    root = tmp_path / "docs"
    root.mkdir()
    return root


@pytest.fixture
def table(tmp_path):
    return SqliteTable(tmp_path / "out.db", "files")


def row(file):
    return {"key": file.key, "text": file.read_text()}


async def keys(stream):
    return [file.key for file in await stream.to_list()]


def stored(table):
    return {row["key"]: row["text"] for row in table.rows()}


@pytest.fixture
def open_place():
    """A directory that all may enter, which pytest's own is not."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@contextmanager
def closed(place, directory, mode):
    """Give a directory that mode; root, whom no mode stops, steps down meanwhile, and owns `place` as such."""
    (place / directory).chmod(mode)
    is_root = os.geteuid() == 0
    if is_root:
        for path in (place, *place.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        (place / directory).chmod(0o755)


async def test_a_file_tells_where_it_is_and_what_is_in_it(docs):
    make(docs, "a/b.txt")
    (file,) = await penstock.files(docs).to_list()
    status = (docs / "a/b.txt").stat()
    assert file == penstock.File(str(docs / "a/b.txt"), "a/b.txt", f"{status.st_size}-{status.st_mtime_ns}")
    assert (file.read_bytes(), file.read_text()) == (b"a/b.txt", "a/b.txt")
    (docs / "a/b.txt").write_bytes(b"caf\xe9")
    assert file.read_text("latin-1") == "caf\xe9"
    assert file.read_text(errors="replace") == "caf\ufffd"


async def test_files_come_in_the_order_of_their_keys(docs):
    """So that a resume reads the index along with them; a directory sorts as its name with a `/`."""
    dice = random.Random(1)
    letters = ["a", "b", "-", ".x", "0", "~", "\xe9", "\U0001f600", "\uffee", " "]
    names = {"/".join("n" + dice.choice(letters) for _ in range(dice.randint(1, 4))) + ".f" for _ in range(300)}
    make(docs, *names)
    found = await keys(penstock.files(docs))
    assert found == sorted(names)
    assert found == sorted(names, key=str.encode)


async def test_only_one_directory_is_read_ahead(docs):
    """Names are listed when their directory is next: what is made there meanwhile is still found."""
    make(docs, *(f"a/{number:03}.txt" for number in range(2 * 256 + 10)), "b/old.txt")
    async with penstock.files(docs).open() as items:
        await anext(items)
        make(docs, "b/new.txt")
        rest = [file.key async for file in items]
    assert rest[-2:] == ["b/new.txt", "b/old.txt"]


@pytest.mark.parametrize(
    ("glob", "exclude", "found"),
    [
        ("**/*", (), ["a.md", "a/b.md", "a/c.txt", "d.txt"]),
        ("*.md", (), ["a.md", "a/b.md"]),
        (["*.md", "d.*"], (), ["a.md", "a/b.md", "d.txt"]),
        ("a/*", (), ["a/b.md", "a/c.txt"]),
        ("**/*", "a", ["a.md", "d.txt"]),
        ("**/*", ["*.md"], ["a/c.txt", "d.txt"]),
    ],
)
async def test_globs_say_what_is_taken_and_what_is_left(docs, glob, exclude, found):
    make(docs, "a.md", "a/b.md", "a/c.txt", "d.txt", ".git/e.md", "a/.f.md")
    assert await keys(penstock.files(docs, glob, exclude=exclude)) == found


async def test_links_to_files_are_followed_and_links_to_directories_are_not(docs, tmp_path):
    make(tmp_path, "other/real.txt")
    (docs / "link.txt").symlink_to(tmp_path / "other/real.txt")
    (docs / "hidden.txt").symlink_to(docs / ".env")
    make(docs, ".env")
    (docs / "dir.txt").symlink_to(tmp_path / "other")
    (docs / "up").symlink_to(docs)
    os.mkfifo(docs / "pipe")
    assert await keys(penstock.files(docs)) == []
    hidden, file = await penstock.files(docs, follow_links=True).to_list()
    assert (hidden.key, hidden.read_text()) == ("hidden.txt", ".env")
    assert (file.key, file.read_text()) == ("link.txt", "other/real.txt")


async def test_links_within_the_tree_are_followed(docs):
    make(docs, "a.md", "sub/b.md")
    (docs / "sub/link.md").symlink_to("../a.md")
    assert await keys(penstock.files(docs)) == ["a.md", "sub/b.md", "sub/link.md"]


@pytest.mark.parametrize("version", ["stat", "hash"])
async def test_a_link_that_is_put_there_meanwhile_is_not_read(docs, tmp_path, version):
    make(docs, "a.txt")
    make(tmp_path, "secret")
    (file,) = await penstock.files(docs, version=version).to_list()
    (docs / "a.txt").unlink()
    (docs / "a.txt").symlink_to(tmp_path / "secret")
    for read in (file.read_text, file.read_bytes):
        with pytest.raises(PathError, match="leads out of its tree"):
            read()
    (docs / "a.txt").unlink()
    os.mkfifo(docs / "a.txt")
    with pytest.raises(PathError, match="no longer a regular file"):
        file.read_bytes()


async def test_names_that_are_no_utf_8_have_keys_too(docs, table):
    (docs / os.fsdecode(b"caf\xe9.txt")).write_text("latin")
    (docs / "caf\xe9.txt").write_text("utf-8")
    stream = penstock.files(docs).map(row)
    report = await stream.to(table, run="r")
    assert report.delivered == 2
    assert stored(table) == {"caf\\xe9.txt": "latin", "caf\xe9.txt": "utf-8"}
    assert (await stream.to(table, run="r")).already_done == 2


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (rb"a\b/c\x41\xgg", r"a\b/c\x41\xgg"),
        (b"caf\xe9", r"caf\xe9"),
        (rb"caf\xe9", r"caf\\xe9"),
        (rb"caf\\xe9", r"caf\\\\xe9"),
        (b"a\\\xe9", r"a\\\xe9"),
        (rb"a\b/" + b"\xe9/c\\d", r"a\b/\xe9/c\d"),
    ],
)
def test_no_two_paths_have_one_key(path, key):
    assert key_of(os.fsdecode(path)) == key
    assert path_of(key) == os.fsdecode(path)


async def test_a_place_may_have_a_name_that_is_no_utf_8(docs, table):
    place = docs / os.fsdecode(b"caf\xe9")
    place.mkdir()
    (place / "a").write_text("x")
    stream = penstock.files(place, [os.fsdecode(b"\xe9"), "a"]).map(row)
    assert (await stream.to(table, run="r")).delivered == 1
    assert (await stream.to(table, run="r")).already_done == 1
    assert runs(table.path)[0].source == rf"files \xe9, a in {docs}/caf\xe9"


async def test_a_changed_file_is_done_again(docs, table):
    make(docs, "a", "b")
    stream = penstock.files(docs).map(row)
    await stream.to(table, run="r")
    (docs / "a").write_text("new")
    make(docs, "c")
    report = await stream.to(table, run="r")
    assert (report.delivered, report.redone, report.already_done) == (2, 1, 1)
    assert stored(table) == {"a": "new", "b": "b", "c": "c"}


async def test_a_file_that_changes_after_its_version_was_taken_is_done_again(docs, table):
    """The version is that from before the content: what is written meanwhile is found by the next run."""
    make(docs, "a")

    def edited(file):
        (docs / "a").write_text("edited meanwhile")
        return row(file)

    await penstock.files(docs).map(edited).to(table, run="r")
    report = await penstock.files(docs).map(row).to(table, run="r")
    assert (report.redone, report.already_done) == (1, 0)


async def test_a_digest_sees_what_the_times_hide(docs, table):
    make(docs, "a", "b")
    before = (docs / "a").stat()
    for version, redone in (("stat", 0), ("hash", 1)):
        (docs / "a").write_text("a")
        stream = penstock.files(docs, version=version).map(row)
        await stream.to(table, run=version)
        (docs / "a").write_text("z")
        os.utime(docs / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
        (docs / "b").touch()
        report = await stream.to(table, run=version)
        assert (report.redone, report.already_done) == ((1, 1) if redone else (2, 0))
        os.utime(docs / "a", ns=(before.st_atime_ns, before.st_mtime_ns))


async def test_the_database_of_the_sink_is_no_file_of_the_source(docs):
    """Else every run would change its own source, and opening the database would drop the locks on it."""
    make(docs, "a", "out.db.txt")
    table = SqliteTable(docs / "out.db", "files")
    stream = penstock.files(docs).map(lambda file: {"key": file.key})
    assert (await stream.to(table, run="r")).delivered == 2
    assert (await stream.to(table, run="r")).already_done == 2
    assert (docs / "out.db.lock").exists()


async def test_a_run_keeps_to_its_place(docs, table, tmp_path, monkeypatch):
    """The same place by another path is the same source; another place, or another glob, is not."""
    make(docs, "a")
    make(tmp_path, "other/a")
    (tmp_path / "link").symlink_to(docs)
    await penstock.files(docs).map(row).to(table, run="r")
    monkeypatch.chdir(tmp_path)
    assert (await penstock.files("link").map(row).to(table, run="r")).already_done == 1
    with pytest.raises(penstock.PenstockError, match=r"is over files \*\*/\* in .*docs, not over files .*other"):
        await penstock.files("other").map(row).to(table, run="r")
    with pytest.raises(penstock.PenstockError, match=r"not over files \*\.md in"):
        await penstock.files(docs, "*.md").map(row).to(table, run="r")


async def test_missing_files_are_kept_or_deleted(docs, table):
    make(docs, "a", "b", "c/d")
    stream = penstock.files(docs).map(row)
    await stream.to(table, run="r")
    (docs / "a").unlink()
    (docs / "c/d").unlink()
    (docs / "c").rmdir()
    report = await stream.to(table, run="r")
    assert (report.missing, report.removed, len(stored(table))) == (2, 0, 3)
    report = await stream.to(table, run="r", on_missing="delete")
    assert (report.missing, report.removed, stored(table)) == (2, 2, {"b": "b"})


async def test_what_cannot_be_looked_at_ends_the_run(open_place):
    make(open_place, "docs/a", "docs/closed/b")
    table = SqliteTable(open_place / "out.db", "files")
    stream = penstock.files(open_place / "docs").map(row)
    await stream.to(table, run="r")
    with closed(open_place, "docs/closed", 0):
        with pytest.raises(PathError, match=r"docs/closed: permission denied"):
            await stream.to(table, run="r", on_missing="delete")
        with pytest.raises(penstock.SourceError, match=r"docs/closed: permission denied"):
            await stream.drain()
    assert len(stored(table)) == 2


@pytest.mark.parametrize(("mode", "unread"), [(0, "closed"), (0o444, "closed/b")], ids=["directory", "file"])
async def test_what_lies_where_nobody_could_look_is_not_missing(open_place, caplog, mode, unread):
    """With `on_error="skip"` nothing below a directory that cannot be listed is removed; what is gone elsewhere is."""
    make(open_place, "docs/a", "docs/closed/b", "docs/d")
    table = SqliteTable(open_place / "out.db", "files")
    stream = penstock.files(open_place / "docs", on_error="skip").map(row)
    await stream.to(table, run="r")
    (open_place / "docs/d").unlink()
    with closed(open_place, "docs/closed", mode), caplog.at_level(logging.WARNING, "penstock"):
        report = await stream.to(table, run="r", on_missing="delete")
    assert (report.missing, report.removed, report.unread) == (1, 1, 1)
    assert "1 place of the source not read" in str(report)
    assert stored(table) == {"a": "docs/a", "closed/b": "docs/closed/b"}
    assert f"passed over: {open_place}/docs/{unread}: permission denied" in caplog.text


@pytest.mark.slow
async def test_where_very_much_cannot_be_read_nothing_is_missing(docs, table, monkeypatch):
    """Of a thousand places a list is kept; of more, the number."""
    make(docs, "a", "b", *(f"{number:04}" for number in range(1100)))
    stream = penstock.files(docs).map(row)
    await stream.to(table, run="r")
    (docs / "a").unlink()
    listing = module.in_order

    def vanishing(*args):
        for number in range(1100):
            (docs / f"{number:04}").unlink()
            (docs / f"{number:04}").symlink_to("nowhere")
        return listing(*args)

    monkeypatch.setattr(module, "in_order", vanishing)
    report = await stream.to(table, run="r", on_missing="delete")
    assert (report.missing, report.unread, len(stored(table))) == (0, 1100, 1102)


async def test_an_empty_root_removes_nothing(docs, table, caplog):
    """So looks a place where nothing is mounted."""
    make(docs, "a")
    stream = penstock.files(docs).map(row)
    await stream.to(table, run="r")
    (docs / "a").unlink()
    with caplog.at_level(logging.WARNING, "penstock"):
        report = await stream.to(table, run="r", on_missing="delete")
    assert (report.missing, stored(table)) == (0, {"a": "a"})
    assert "empty: nothing of it counts as missing" in caplog.text


async def test_a_file_that_vanishes_before_its_turn_is_passed_over(docs, monkeypatch, caplog):
    """And a directory, and a link that leads nowhere."""
    make(docs, "a", "b", "c/d", "e")
    (docs / "broken").symlink_to(docs / "nowhere")
    listing = module.in_order

    def vanishing(*args):
        for number, found in enumerate(listing(*args)):
            if not number:
                (docs / "b").unlink()
                (docs / "c/d").unlink()
                (docs / "c").rmdir()
            yield found

    monkeypatch.setattr(module, "in_order", vanishing)
    with caplog.at_level(logging.WARNING, "penstock"):
        assert await keys(penstock.files(docs)) == ["a", "e"]
    assert [record.getMessage() for record in caplog.records] == [
        f"passed over: {docs / name}: no such file or directory" for name in ("b", "broken", "c")
    ]


async def test_a_tree_that_goes_away_meanwhile_removes_nothing(docs, table, monkeypatch):
    """What vanishes during the walk is missing to the next run only: it may be an unmounted disk."""
    make(docs, *(f"{letter}/f" for letter in "abcd"))
    stream = penstock.files(docs).map(row)
    await stream.to(table, run="r")
    listing = module.in_order

    def unmounted(root, *args):
        found = listing(root, *args)
        yield next(found)
        docs.rename(docs.with_name("elsewhere"))
        docs.mkdir()
        yield from found

    monkeypatch.setattr(module, "in_order", unmounted)
    report = await stream.to(table, run="r", on_missing="delete")
    assert (report.missing, len(stored(table))) == (0, 4)


async def test_a_root_that_is_no_directory_is_named(docs):
    make(docs, "a")
    with pytest.raises(PathError, match=r"docs/a: not a directory"):
        await penstock.files(docs / "a").drain()
    with pytest.raises(PathError, match=r"docs/b: no such directory"):
        await penstock.files(docs / "b", on_error="skip").drain()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": 3}, "root must be a path, got 3"),
        ({"root": b"docs"}, "root must be a path, got b'docs'"),
        ({"glob": []}, "glob must have at least one pattern, got none"),
        ({"glob": ["*.md", ""]}, "glob must be a non-empty str, got ''"),
        ({"exclude": [3]}, "exclude must be a non-empty str, got 3"),
        ({"version": "mtime"}, "version must be one of 'stat', 'hash', got 'mtime'"),
        ({"on_error": "collect"}, "on_error must be one of 'raise', 'skip', got 'collect'"),
    ],
)
def test_options_are_checked_when_the_stream_is_made(options, message):
    with pytest.raises(penstock.OptionError, match=message):
        penstock.files(**({"root": "docs"} | options))


async def test_a_stream_over_files_can_be_run_again_and_joined(docs, table, tmp_path):
    make(docs, "a")
    make(tmp_path, "other/a", "other/b")
    stream = penstock.files(docs)
    assert await keys(stream) == await keys(stream) == ["a"]
    both = penstock.merge(stream, penstock.files(tmp_path / "other")).map(row)
    assert (await both.to(table, run="both")).delivered == 3
    assert (await both.to(table, run="both")).already_done == 3
