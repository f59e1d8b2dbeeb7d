"""The job: files stream into an index."""

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest

from penstock import OptionError
from penstock.durable.lock import HeldError
from penstock.durable.sqlite import StoreError, StoreFullError
from penstock.sources.files import PathError
from penstock.workflows import DocumentError, EmbedJob, HashEmbedder, embed
from penstock.workflows.documents.report import LISTED, Listed, peak_memory
from penstock.workflows.documents.store import Store

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


async def test_every_file_is_stored_once_with_what_it_became(docs, tmp_path, rows):
    report = await embed(docs, tmp_path / "i.db")
    assert (report.files, report.chunks, report.failed, report.unchanged) == (23, 22, 0, 0)
    assert [(stage.name, stage.taken, stage.delivered) for stage in report.stages] == [
        ("read", 23, 23),
        ("embed", 23, 23),
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
    assert rows(tmp_path / "i.db")[0][7] == "B"


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


async def test_batches_stay_inside_a_document(docs, tmp_path):
    batches = []

    class Watched(HashEmbedder):
        def embed(self, texts):
            batches.append([text.split("\n")[0].split()[0] for text in texts])
            return super().embed(texts)

    (docs / "long.txt").write_text("\n\n".join(f"paragraph {n} {'word ' * 150}" for n in range(200)))
    await embed(docs, tmp_path / "i.db", embedder=Watched())
    assert all(len(set(batch)) == 1 and len(batch) <= 64 for batch in batches)
    assert sum(batch[0] == "long" for batch in batches) > 2


async def test_a_full_disk_ends_the_run_and_keeps_what_was_stored(docs, tmp_path, rows, monkeypatch):
    """It is not the failure of one document: it is not collected 22 times."""
    prepare = Store._prepare

    def with_little_room(store, embedder):
        prepare(store, embedder)
        store._writer.pragma("max_page_count", store._writer.pragma("page_count") + 12)

    monkeypatch.setattr(Store, "_prepare", with_little_room)
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
    assert taken <= 2 * (2 + 2 + 2)
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
    with Store(str(tmp_path / "i.db"), HashEmbedder()), pytest.raises(HeldError, match="is writing to it"):
        await embed(docs, tmp_path / "i.db")


async def test_the_index_does_not_index_itself(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    for _ in range(2):
        report = await embed(tmp_path, tmp_path / "i.db", glob="*")
        assert (report.files + report.unchanged, report.failed) == (1, 0)


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


async def test_one_look_into_the_index_per_directory(docs, tmp_path, monkeypatch):
    await embed(docs, tmp_path / "i.db")
    looks, known = [], Store.known
    monkeypatch.setattr(Store, "known", lambda store, directory: looks.append(directory) or known(store, directory))
    await embed(docs, tmp_path / "i.db")
    assert looks == [str(docs), str(docs / "sub")]
    looks.clear()
    await embed((docs / "sub").iterdir(), tmp_path / "i.db")
    assert looks == [str(docs / "sub")]


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


def test_a_job_in_an_unwritable_place_says_so(docs):
    with pytest.raises(StoreError, match="its directory does not exist"):
        Store("/nowhere/i.db", HashEmbedder())


def test_listed_counts_all_and_keeps_the_newest():
    listed = Listed()
    for number in range(LISTED + 5):
        listed.add(number)
    assert listed.count == LISTED + 5
    assert list(listed) == list(range(5, LISTED + 5))
