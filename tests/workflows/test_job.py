"""The job: files stream into an index."""

import asyncio
import threading
from contextlib import closing
from pathlib import Path

import apsw
import numpy as np
import pytest

from penstock import OptionError
from penstock.durable import discard, runs
from penstock.durable.store_errors import HeldError, StoreError, StoreFullError
from penstock.sinks.vectors import SqliteVectors, VectorStore
from penstock.sources.walking import PathError
from penstock.workflows import (
    DocumentError,
    EmbedderUnavailableError,
    EmbedError,
    EmbedJob,
    HashEmbedder,
    embed,
)
from penstock.workflows.documents.chunking import split
from penstock.workflows.documents.embed_report import LISTED, Listed, peak_memory

pytestmark = pytest.mark.real_time


@pytest.fixture
def docs(tmp_path):
    root = tmp_path / "docs"
    (root / "sub").mkdir(parents=True)
    for number in range(20):
        (root / "sub" / f"{number:02}.txt").write_text(f"text {number}\n")
    (root / "a.md").write_text("# A\n\ntext\n")
    (root / "empty.rst").touch()
    (root / "code.py").write_text("def f():\n    pass\n")
    (root / "image.png").write_bytes(b"\0")
    return root


@pytest.fixture
def letters():
    """A function that gives the dead letters of an index."""

    def letters(path):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        found = connection.execute(
            "SELECT key, stage, error FROM penstock_dead JOIN penstock_roots ON penstock_roots.id = root"
        ).fetchall()
        connection.close()
        return found

    return letters


async def test_every_file_is_stored_once_with_what_it_became(docs, tmp_path, rows):
    report = await embed(docs, tmp_path / "i.db")
    assert (report.files, report.chunks, report.failed, report.unchanged) == (23, 22, 0, 0)
    assert [(stage.name, stage.taken, stage.delivered) for stage in report.stages] == [
        ("read", 23, 23),
        ("embed", 22, 22),
        ("store", 23, 23),
    ]
    assert 0 < report.first_row_seconds <= report.seconds
    assert report.peak_memory == pytest.approx(peak_memory(), rel=0.5)
    found = rows(tmp_path / "i.db")
    assert len(found) == 23
    assert found[0][:2] == (str(docs), "a.md")
    title = "a A"
    assert found[0][-1] == HashEmbedder().embed([f"{title}\n# A\n\ntext"]).tobytes()


async def test_what_is_unchanged_is_skipped_and_what_changed_is_redone(docs, tmp_path, rows):
    await embed(docs, tmp_path / "i.db")
    (docs / "a.md").write_text("# B\n\nother\n")
    (docs / "new.txt").write_text("new")
    report = await embed(docs, tmp_path / "i.db")
    assert (report.files, report.unchanged) == (2, 22)
    assert rows(tmp_path / "i.db")[0].heading == "B"


async def test_an_empty_file_is_done_and_not_redone(docs, tmp_path):
    """Trap 44: what produced nothing is redone for ever."""
    await embed(docs / "empty.rst", tmp_path / "i.db")
    assert (await embed(docs / "empty.rst", tmp_path / "i.db")).unchanged == 1


async def test_gone_files_are_those_under_this_runs_paths_and_globs(docs, tmp_path, rows):
    await embed(docs, tmp_path / "i.db")
    (docs / "a.md").unlink()
    (docs / "code.py").unlink()
    for path in (docs / "sub").iterdir():
        path.unlink()
    (docs / "sub").rmdir()
    everything = await embed(docs, tmp_path / "i.db")
    assert everything.gone == 22
    assert {Path(path).relative_to(docs).as_posix() for path in everything.gone_files} == {
        "a.md",
        "code.py",
        *(f"sub/{number:02}.txt" for number in range(20)),
    }
    assert (await embed(docs, tmp_path / "i.db", glob="*.md")).gone_files == (str(docs / "a.md"),)
    assert (await embed(docs, tmp_path / "i.db", exclude=["sub", "*.py"])).gone_files == (str(docs / "a.md"),)
    assert (await embed(docs / "empty.rst", tmp_path / "i.db")).gone == 0
    assert len(rows(tmp_path / "i.db")) == 23


async def test_excluded_and_unlisted_files_are_not_gone(docs, tmp_path):
    await embed(docs, tmp_path / "i.db")
    assert (await embed(docs, tmp_path / "i.db", exclude="sub")).gone == 0


async def test_paths_that_overlap_store_a_file_once(docs, tmp_path, rows):
    report = await embed([docs, docs / "sub", docs / "sub" / "00.txt", docs / "image.png"], tmp_path / "i.db")
    assert (report.files, report.failed) == (23, 1)
    assert len({row[:2] for row in rows(tmp_path / "i.db")}) == len(rows(tmp_path / "i.db")) == 23


async def test_failures_are_listed_and_the_others_stored(docs, tmp_path):
    (docs / "binary.txt").write_bytes(b"\0")
    (docs / "large.txt").write_text("x" * 1_001)
    (docs / "broken.txt").symlink_to(docs / "nowhere")
    report = await embed(docs, tmp_path / "i.db", max_file_size=1_000)
    assert (report.files, report.failed) == (23, 3)
    assert {(Path(failure.path).name, failure.reason) for failure in report.failures} == {
        ("binary.txt", "not text: a NUL byte at 0"),
        ("large.txt", "1,001 bytes, more than the limit of 1,000"),
        ("broken.txt", "no such file or directory"),
    }


@pytest.mark.parametrize("name", ["binary.txt", "broken.txt"])
async def test_on_error_raise_ends_with_the_file_that_failed(docs, tmp_path, name):
    (docs / "binary.txt").write_bytes(b"\0")
    if name == "broken.txt":
        (docs / "binary.txt").unlink()
        (docs / name).symlink_to(docs / "nowhere")
    job = EmbedJob(docs, tmp_path / "i.db", on_error="raise")
    with pytest.raises(DocumentError, match=name):
        await job.run()
    assert [Path(failure.path).name for failure in job.report().failures] == [name]
    assert job.report().failed == 1
    (docs / name).unlink()
    report = await embed(docs, tmp_path / "i.db", on_error="raise")
    assert report.files + report.unchanged == 23


async def test_a_file_that_fails_keeps_its_former_rows(docs, tmp_path, rows):
    await embed(docs, tmp_path / "i.db")
    before = rows(tmp_path / "i.db")
    (docs / "a.md").write_bytes(b"\0")
    assert (await embed(docs, tmp_path / "i.db")).failed == 1
    assert rows(tmp_path / "i.db") == before
    (docs / "a.md").write_text("# A\n")
    assert (await embed(docs, tmp_path / "i.db")).files == 1


async def test_the_rows_that_a_file_keeps_are_counted(docs, tmp_path, rows):
    """Also when it is given up: nothing of it is taken away."""
    index = str(tmp_path / "i.db")
    await embed(docs, index)
    before = runs(index)[0].rows
    (docs / "a.md").write_bytes(b"\0")
    await embed(docs, index)
    assert (runs(index)[0].dead, runs(index)[0].rows) == (1, before)
    assert len(discard(index)) == 1
    assert (runs(index)[0].dead, runs(index)[0].rows) == (0, before)
    assert before == len([row for row in rows(index) if row.text is not None])


async def test_an_embedder_that_fails_for_a_document_costs_that_document(docs, tmp_path):
    class Picky(HashEmbedder):
        def embed(self, texts):
            if any("text 7" in text for text in texts):
                raise ValueError("no sevens")
            return super().embed(texts)

    report = await embed(docs, tmp_path / "i.db", embedder=Picky())
    assert [(Path(failure.path).name, failure.reason) for failure in report.failures] == [
        ("07.txt", "ValueError: no sevens")
    ]
    assert report.files == 22


async def test_batches_go_across_documents(docs, tmp_path):
    batches = []

    class Watched(HashEmbedder):
        def embed(self, texts):
            batches.append([text.split("\n")[0].split()[0] for text in texts])
            return super().embed(texts)

    (docs / "long.txt").write_text("\n\n".join(f"paragraph {n} {'word ' * 150}" for n in range(200)))
    report = await embed(docs, tmp_path / "i.db", embedder=Watched())
    assert max(map(len, batches)) == 64
    assert sum(map(len, batches)) == report.chunks
    assert any(len(set(batch)) > 2 for batch in batches)
    assert len(batches) <= report.chunks // 64 + 2


async def test_an_embedder_may_say_how_many_texts_it_wants(docs, tmp_path):
    batches = []

    class Small(HashEmbedder):
        batch = 5

        def embed(self, texts):
            batches.append(len(texts))
            return super().embed(texts)

    await embed(docs, tmp_path / "i.db", embedder=Small())
    assert max(batches) == 5


class Refusing(HashEmbedder):
    """Refuses some texts, in the way it is told to; counts its calls."""

    def __init__(self, word, error):
        self.word, self.error, self.calls = word, error, 0

    def embed(self, texts):
        self.calls += 1
        if any(self.word in text for text in texts):
            raise self.error
        return super().embed(texts)


class OnLoop:
    """An embedder, called on the loop."""

    def __init__(self, embedder):
        self._embedder, self.name, self.dimensions = embedder, embedder.name, embedder.dimensions

    async def embed(self, texts):
        return self._embedder.embed(texts)


async def test_a_document_that_is_being_split_is_given_up(tmp_path):
    """It may take seconds; what is left of it is no failure, and the next run does it."""
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(3):
        (docs / f"{number}.md").write_text("- a\n" * 400_000)
    job, begun = EmbedJob(docs, tmp_path / "i.db"), threading.Event()
    check = job._check

    def watched():
        begun.set()
        check()

    job._check = watched
    running = asyncio.ensure_future(job.run())
    await asyncio.to_thread(begun.wait, 60)
    job.stop(grace=0)
    report = await running
    assert (report.interrupted, report.files, report.failed) == (True, 0, 0)
    for number in range(3):
        (docs / f"{number}.md").write_text("- a\n")
    assert (await embed(docs, tmp_path / "i.db")).files == 3


@pytest.mark.parametrize("name", ["a.md", "a.rst", "a.html", "a.py"])
def test_a_check_ends_the_splitting_of_a_document(name):
    calls = []

    def check():
        calls.append(name)
        if len(calls) == 2 or name == "a.py":
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        split(name, "- <p>a\n\n" * 1_000, check)


async def test_a_refused_text_costs_its_document_and_not_its_batch(docs, tmp_path):
    """The batch is halved until the bad text stands alone."""
    report = await embed(docs, tmp_path / "i.db", embedder=Refusing("text 7", EmbedError("no sevens")))
    assert [(Path(failure.path).name, failure.reason) for failure in report.failures] == [("07.txt", "no sevens")]
    assert (report.files, report.failed) == (22, 1)


@pytest.mark.parametrize("on_loop", [False, True])
async def test_a_text_that_fails_for_now_every_time_costs_its_document_and_not_its_batch(docs, tmp_path, on_loop):
    """As a model that gives NaN for one text does: its server says 500, and would for ever."""
    embedder = Refusing("text 7", EmbedError("500", transient=True))
    report = await embed(docs, tmp_path / "i.db", embedder=OnLoop(embedder) if on_loop else embedder)
    assert [(Path(failure.path).name, failure.reason) for failure in report.failures] == [("07.txt", "500")]
    assert (report.files, report.failed) == (22, 1)


@pytest.mark.parametrize("on_loop", [False, True])
async def test_a_server_that_is_in_trouble_is_not_asked_for_each_text(docs, tmp_path, on_loop):
    """It has been tried again already, and another text fares no better: halves of the batch would not, either."""
    embedder = Refusing("", EmbedError("503", transient=True))
    report = await embed(docs / "sub", tmp_path / "i.db", embedder=OnLoop(embedder) if on_loop else embedder)
    assert (report.files, report.failed, embedder.calls) == (0, 20, 2)
    assert {failure.reason for failure in report.failures} == {"503"}


async def test_an_embedder_that_is_gone_when_a_batch_has_failed_ends_the_run(docs, tmp_path):
    class Leaving(Refusing):
        def embed(self, texts):
            if texts == ["penstock"]:
                raise EmbedderUnavailableError("gone")
            return super().embed(texts)

    with pytest.raises(EmbedderUnavailableError, match="gone"):
        await embed(docs / "sub", tmp_path / "i.db", embedder=Leaving("text", EmbedError("503", transient=True)))


async def test_an_embedder_that_cannot_be_used_ends_the_run(docs, tmp_path):
    embedder = Refusing("text", EmbedderUnavailableError("no such model"))
    job = EmbedJob(docs / "sub", tmp_path / "i.db", embedder=embedder)
    with pytest.raises(EmbedderUnavailableError, match="no such model"):
        await job.run()
    assert (embedder.calls, job.report().failed, job.report().files) == (1, 0, 0)


class Counting(HashEmbedder):
    """Counts the texts that it is given; after so many it is not there any more."""

    def __init__(self, after=1_000_000):
        self.after, self.texts = after, []

    def embed(self, texts):
        self.texts += texts
        if len(self.texts) > self.after:
            raise EmbedderUnavailableError("gone")
        return super().embed(texts)


@pytest.fixture
def parts():
    """A document of ten chunks."""
    return [f"# Part {n}\n\n" + f"word {n} " * 130 for n in range(10)]


async def test_with_memo_a_part_that_has_not_changed_is_not_embedded_again(parts, tmp_path, rows):
    path, before, after = tmp_path / "a.md", Counting(), Counting()
    path.write_text("\n\n".join(parts))
    await embed(path, tmp_path / "i.db", memo=True, embedder=before)
    path.write_text("\n\n".join(["# New\n\n" + "other " * 150, *parts]))
    report = await embed(path, tmp_path / "i.db", memo=True, embedder=after)
    assert (len(before.texts), report.chunks, report.recalled) == (10, 11, 10)
    assert [text.split("\n")[0] for text in after.texts] == ["a New"]
    found = rows(tmp_path / "i.db")
    await embed(path, tmp_path / "other.db")
    assert found == rows(tmp_path / "other.db")


async def test_with_memo_what_was_embedded_of_documents_that_were_not_done_is_kept(parts, tmp_path):
    """A plain run in between keeps it, too."""
    path, first = tmp_path / "a.md", Counting(after=7)
    first.batch = 1
    path.write_text("\n\n".join(parts))
    with pytest.raises(EmbedderUnavailableError):
        await embed(path, tmp_path / "i.db", memo=True, embedder=first)
    (tmp_path / "b.md").write_text("# B")
    await embed(tmp_path / "b.md", tmp_path / "i.db")
    again = Counting()
    report = await embed(path, tmp_path / "i.db", memo=True, embedder=again)
    assert report.chunks == 10
    assert report.recalled >= 5
    assert len(again.texts) == 10 - report.recalled


async def test_without_memo_nothing_is_kept(parts, tmp_path):
    path = tmp_path / "a.md"
    path.write_text("\n\n".join(parts))
    await embed(path, tmp_path / "i.db")
    path.write_text("\n\n".join([*parts, "more"]))
    assert (await embed(path, tmp_path / "i.db", memo=True)).recalled == 0


async def test_a_file_that_failed_is_a_dead_letter_until_it_does_better(docs, tmp_path, letters):
    """A later run tries it again, also where the file has not changed: what was in the way may be gone."""
    await embed(docs, tmp_path / "i.db", embedder=Refusing("text 7", ValueError("no sevens")))
    assert letters(tmp_path / "i.db") == [(str(docs / "sub" / "07.txt"), "embed", "ValueError: no sevens")]
    again = await embed(docs / "a.md", tmp_path / "i.db")
    assert (again.unchanged, again.failed) == (1, 0)
    assert len(letters(tmp_path / "i.db")) == 1
    again = await embed(docs, tmp_path / "i.db")
    assert (again.files, again.unchanged, again.failed) == (1, 22, 0)
    assert letters(tmp_path / "i.db") == []


async def test_a_dead_letter_shows_where_not_what(docs, tmp_path):
    await embed(docs, tmp_path / "i.db", embedder=Refusing("text 7", ValueError("no sevens")))
    connection = apsw.Connection(str(tmp_path / "i.db"))
    assert connection.execute("SELECT item FROM penstock_dead").get == f"lines 1 to 1 of {docs / 'sub' / '07.txt'}"
    connection.close()


async def test_a_full_disk_ends_the_run_and_keeps_what_was_stored(docs, tmp_path, rows, monkeypatch):
    """It is not the failure of one document: it is not collected 22 times."""
    prepare = VectorStore.prepare

    def with_little_room(store):
        prepare(store)
        store.connection.pragma("max_page_count", store.connection.pragma("page_count") + 12)

    await embed(docs / "a.md", tmp_path / "i.db")
    monkeypatch.setattr(VectorStore, "prepare", with_little_room)
    job = EmbedJob(docs, tmp_path / "i.db")
    with pytest.raises(StoreFullError, match=r"i\.db: the disk is full"):
        await job.run()
    stored = len({row[:2] for row in rows(tmp_path / "i.db")})
    assert job.opened
    assert job.report().failed == 0
    assert 0 < stored < 23
    monkeypatch.undo()
    assert (await embed(docs, tmp_path / "i.db")).unchanged == stored


async def test_stop_finishes_and_stores_what_is_in_flight(docs, tmp_path, rows):
    """What was taken is stored, nothing more is taken, and the same call goes on."""
    started, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    class Slow(HashEmbedder):
        batch = 2

        def embed(self, texts):
            loop.call_soon_threadsafe(started.set)
            release.wait()
            return super().embed(texts)

    job = EmbedJob(docs, tmp_path / "i.db", embedder=Slow(), concurrency=2)
    running = asyncio.ensure_future(job.run())
    await started.wait()
    job.stop()
    release.set()
    report = await running
    assert report.interrupted
    taken = report.stages[0].taken
    assert report.files == taken == len({row[:2] for row in rows(tmp_path / "i.db")})
    assert taken <= 2 + 2 * (2 + 1) + 2
    assert report.gone == 0
    rest = await embed(docs, tmp_path / "i.db")
    assert (rest.files, rest.unchanged, rest.interrupted) == (23 - taken, taken, False)


async def test_stop_before_the_start_does_nothing(docs, tmp_path):
    job = EmbedJob(docs, tmp_path / "i.db")
    job.stop()
    report = await job.run()
    assert (report.files, report.interrupted) == (0, True)


async def test_a_cancelled_run_leaves_whole_documents_and_no_lock(docs, tmp_path, rows):
    """P4: the caller's cancellation stops the work, awaits it, and closes the index."""
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Told(HashEmbedder):
        def embed(self, texts):
            loop.call_soon_threadsafe(started.set)
            return super().embed(texts)

    running = asyncio.ensure_future(embed(docs, tmp_path / "i.db", embedder=Told()))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    stored = len({row[:2] for row in rows(tmp_path / "i.db")})
    assert (await embed(docs, tmp_path / "i.db")).unchanged == stored


async def test_two_runs_on_one_index_are_told_of_each_other(docs, tmp_path, fake):
    store = SqliteVectors(tmp_path / "i.db", embedder="hash-1", dimensions=1_024).open("process")
    with closing(store), pytest.raises(HeldError, match="is writing to it"):
        await embed(docs, tmp_path / "i.db")


async def test_the_index_does_not_index_itself(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    for _ in range(2):
        report = await embed(tmp_path, tmp_path / "i.db", glob="*")
        assert (report.files + report.unchanged, report.failed) == (1, 0)


async def test_a_file_that_begins_with_the_name_of_the_index_is_indexed(tmp_path, rows):
    for name in ("index.html", "index.md", "index-old.txt"):
        (tmp_path / name).write_text("a")
    for _ in range(2):
        await embed(tmp_path, tmp_path / "index", glob="*")
    assert {row.name for row in rows(tmp_path / "index")} == {"index.html", "index.md", "index-old.txt"}


@pytest.mark.slow
async def test_the_loop_has_its_turn_while_files_are_skipped(tmp_path):
    """P9: a tree without changes is walked without a word to the stream, and others must still run."""
    for number in range(2_000):
        (tmp_path / f"{number}.txt").touch()
    await embed(tmp_path, tmp_path / "i.db")
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.ensure_future(other())
    await embed(tmp_path, tmp_path / "i.db")
    beside.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beside
    assert turns >= 2_000 // 256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency must be an int >= 1, got 0"),
        ({"max_file_size": 0}, "max_file_size must be an int >= 1, got 0"),
        ({"on_error": "skip"}, "on_error must be one of 'collect', 'raise', got 'skip'"),
        ({"glob": []}, r"glob must have at least one pattern, got \[\]"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(docs, tmp_path, options, message):
    with pytest.raises(OptionError, match=message):
        EmbedJob(docs, tmp_path / "i.db", **options)
    assert not (tmp_path / "i.db").exists()


def test_a_job_needs_a_path(tmp_path):
    with pytest.raises(OptionError, match=r"paths must have at least one path, got \[\]"):
        EmbedJob([], tmp_path / "i.db")


def test_a_missing_path_is_refused_before_anything_is_written(docs, tmp_path):
    with pytest.raises(PathError, match="nowhere: no such file or directory"):
        EmbedJob([docs, docs / "nowhere"], tmp_path / "i.db")
    assert list(tmp_path.iterdir()) == [docs]


async def test_vectors_of_a_wrong_shape_are_refused(docs, tmp_path):
    class Wrong(HashEmbedder):
        def embed(self, texts):
            return np.ones((1, 3), np.float32)

    report = await embed(docs / "a.md", tmp_path / "i.db", embedder=Wrong())
    assert "the embedder hash-1 gave an array of (1, 3) for 1 texts, not (1, 1024)" in report.failures[0].reason


async def test_a_job_in_an_unwritable_place_says_so(docs):
    with pytest.raises(StoreError, match="its directory does not exist"):
        await embed(docs, "/nowhere/i.db")


def test_listed_counts_all_and_keeps_the_newest():
    listed = Listed()
    for number in range(LISTED + 5):
        listed.add(number)
    assert listed.count == LISTED + 5
    assert list(listed) == list(range(5, LISTED + 5))


async def test_a_link_out_of_the_paths_is_read_only_if_that_is_asked_for(docs, tmp_path):
    """Who may write to a tree must not be able to have any file of the machine sent to a server."""
    (tmp_path / "secret").write_text("key")
    (docs / ".env.txt").write_text("key")
    (docs / "out.txt").symlink_to(tmp_path / "secret")
    (docs / "hidden.txt").symlink_to(".env.txt")
    (docs / "within.txt").symlink_to("sub/00.txt")
    report = await embed(docs, tmp_path / "i.db")
    assert (report.files, report.links_out, report.failed) == (24, 2, 0)
    assert (await embed(docs, tmp_path / "i.db", follow_links=True)).files == 2
    assert (await embed(docs / "out.txt", tmp_path / "named.db")).files == 1
