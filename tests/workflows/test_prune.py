"""Files that are gone leave the index when it is asked for, and no others."""

import asyncio
import os
import shutil
import threading
from pathlib import Path

import apsw
import pytest

from penstock import OptionError
from penstock.durable.sqlite.journal import SqliteJournal
from penstock.durable.store_errors import StoreError
from penstock.sources.walking import PathError
from penstock.workflows import DocumentError, EmbedJob, HashEmbedder, embed, search
from penstock.workflows.documents import file_set

pytestmark = pytest.mark.real_time


@pytest.fixture
def docs(tmp_path):
    root = tmp_path / "docs"
    for name in ("a.md", "b.py", "c.txt", "sub/d.md", "sub/deep/e.md", "other/f.md"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}\n")
    return root


@pytest.fixture
def index(docs, tmp_path):
    asyncio.run(embed(docs, tmp_path / "i.db"))
    return tmp_path / "i.db"


@pytest.fixture
def names(rows, index, docs):
    """A function that gives the files in the index, relative to the root."""
    return lambda: {Path(row.directory, row.name).relative_to(docs).as_posix() for row in rows(index)}


ALL = {"a.md", "b.py", "c.txt", "sub/d.md", "sub/deep/e.md", "other/f.md"}


async def test_gone_files_and_directories_are_removed_with_all_their_rows(docs, index, names):
    (docs / "a.md").unlink()
    shutil.rmtree(docs / "sub")
    report = await embed(docs, index, prune=True)
    assert (report.gone, report.removed, report.unchanged, report.failed) == (3, 3, 3, 0)
    assert names() == ALL - {"a.md", "sub/d.md", "sub/deep/e.md"}
    connection = apsw.Connection(str(index))
    counts = [
        connection.execute(f"SELECT count(*) FROM {table}").get
        for table in ("penstock_roots", "entries", "vectors", "words")
    ]
    assert counts == [3, 3, 3, 3]
    connection.close()
    again = await embed(docs, index, prune=True)
    assert (again.gone, again.removed) == (0, 0)


async def test_without_prune_they_stay(docs, index, names):
    (docs / "a.md").unlink()
    report = await embed(docs, index)
    assert (report.gone, report.removed) == (1, 0)
    assert names() == ALL


async def test_only_what_the_paths_and_globs_cover_is_removed(docs, index, names):
    for name in ("a.md", "b.py", "sub/d.md", "other/f.md"):
        (docs / name).unlink()
    assert (await embed(docs / "sub", index, prune=True)).removed == 1
    assert names() == ALL - {"sub/d.md"}
    assert (await embed(docs, index, glob="*.md", exclude="other", prune=True)).removed == 1
    assert names() == ALL - {"sub/d.md", "a.md"}
    assert (await embed(docs / "c.txt", index, prune=True)).removed == 0
    assert (await embed(docs, index, prune=True)).removed == 2
    assert names() == {"c.txt", "sub/deep/e.md"}


async def test_files_that_are_there_but_not_taken_stay(docs, index, names):
    assert (await embed(docs, index, glob="*.py", exclude="sub", prune=True)).removed == 0
    (docs / "c.txt").write_bytes(b"\0")
    assert (await embed(docs, index, prune=True)).failed == 1
    (docs / "c.txt").unlink()
    (docs / "c.txt").symlink_to("nowhere")
    assert (await embed(docs, index, prune=True)).removed == 0
    assert names() == ALL


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
@pytest.mark.parametrize("examined", [True, False])
async def test_what_cannot_be_examined_is_not_gone(*, docs, index, names, monkeypatch, error, examined):
    """A share that went away, a directory without permission: nobody knows what is in it."""
    real_scan, real_stat = file_set.os.scandir, file_set.os.lstat

    def failing(real):
        def look(path, *args, **kwargs):
            if str(path).startswith(str(docs / "sub")):
                raise error
            return real(path, *args, **kwargs)

        return look

    monkeypatch.setattr(file_set.os, "scandir", failing(real_scan))
    if examined:
        monkeypatch.setattr(file_set.os, "lstat", failing(real_stat))
    (docs / "sub" / "d.md").unlink()
    report = await embed(docs, index, prune=True)
    monkeypatch.undo()
    assert (report.failed, report.gone, report.removed) == (1, 0, 0)
    assert names() == ALL


async def test_a_path_that_is_missing_is_an_error_and_nothing_is_removed(docs, index, names):
    shutil.rmtree(docs)
    with pytest.raises(PathError, match="no such file or directory"):
        await embed(docs, index, prune=True)
    assert names() == ALL


@pytest.mark.parametrize("on_error", ["collect", "raise"])
async def test_a_path_that_is_empty_fails_and_nothing_is_removed(docs, index, names, on_error):
    """So looks a place where nothing is mounted."""
    shutil.rmtree(docs)
    docs.mkdir()
    job = EmbedJob([docs, index.parent], index, prune=True, on_error=on_error)
    if on_error == "raise":
        with pytest.raises(DocumentError, match="is it mounted"):
            await job.run()
    else:
        report = await job.run()
        assert [failure.path for failure in report.failures] == [str(docs)]
        assert "empty, while the index has files of it" in report.failures[0].reason
    assert job.report().removed == 0
    assert names() == ALL


async def test_an_empty_path_of_which_the_index_has_nothing_is_no_error(docs, index):
    (docs.parent / "new").mkdir()
    assert (await embed([docs, docs.parent / "new"], index, prune=True)).failed == 0


async def test_an_empty_path_inside_another_keeps_its_files(docs, index, names):
    (docs / "a.md").unlink()
    shutil.rmtree(docs / "sub")
    (docs / "sub").mkdir()
    report = await embed([docs, docs / "sub"], index, prune=True)
    assert (report.failed, report.removed) == (1, 1)
    assert names() == ALL - {"a.md"}


async def test_a_run_that_is_stopped_removes_nothing(docs, index, names):
    (docs / "a.md").unlink()
    for name in ("b.py", "c.txt", "sub/d.md"):
        (docs / name).write_text("changed")
    started, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    class Slow(HashEmbedder):
        def embed(self, texts):
            loop.call_soon_threadsafe(started.set)
            release.wait()
            return super().embed(texts)

    job = EmbedJob(docs, index, embedder=Slow(), prune=True)
    running = asyncio.ensure_future(job.run())
    await started.wait()
    job.stop()
    release.set()
    assert ((await running).interrupted, job.report().removed) == (True, 0)
    assert names() == ALL
    assert (await embed(docs, index, prune=True)).removed == 1


async def test_a_run_that_fails_removes_nothing(docs, index, names):
    (docs / "a.md").unlink()
    (docs / "b.py").write_bytes(b"\0")
    with pytest.raises(DocumentError):
        await embed(docs, index, prune=True, on_error="raise")
    assert names() == ALL


async def test_a_removal_that_fails_takes_back_its_whole_transaction(docs, index, names, monkeypatch):
    """All files of a transaction go, or none."""
    for name in ("a.md", "b.py", "c.txt"):
        (docs / name).unlink()
    forget, forgotten = SqliteJournal.forget, []

    def refuse(self, root):
        forgotten.append(forget(self, root))
        if len(forgotten) == 3:
            raise StoreError("no")
        return forgotten[-1]

    monkeypatch.setattr(SqliteJournal, "forget", refuse)
    with pytest.raises(StoreError, match="no"):
        await embed(docs, index, prune=True)
    assert names() == ALL


async def test_more_files_than_one_transaction_holds_are_removed(docs, index):
    for number in range(600):
        (docs / f"{number}.txt").touch()
    await embed(docs, index)
    for number in range(600):
        (docs / f"{number}.txt").unlink()
    assert (await embed(docs, index, prune=True)).removed == 600


async def test_a_name_that_is_no_utf_8_is_gone_when_its_file_is(docs, index):
    """The key shows its bytes; a file that is called like the key is another one."""
    odd, like_its_key = docs / os.fsdecode(b"caf\xe9.txt"), docs / "caf\\xea.txt"
    odd.write_text("text")
    like_its_key.write_text("text")
    report = await embed(docs, index, prune=True)
    assert (report.files, report.removed) == (2, 0)
    assert search(index, "text", k=20)
    again = await embed(docs, index, prune=True)
    assert (again.unchanged, again.removed) == (len(ALL) + 2, 0)
    assert {hit.path for hit in search(index, "text", k=20)} >= {str(odd)}
    odd.unlink()
    assert (await embed(docs, index, prune=True)).gone_files == (str(odd),)


def test_prune_is_a_flag(docs, tmp_path):
    with pytest.raises(OptionError, match="prune must be True or False, got 'yes'"):
        EmbedJob(docs, tmp_path / "i.db", prune="yes")
