"""`embed` on engines: the same index from each, and what is lost when a worker or the driver is killed."""

import asyncio
import os
from functools import partial
from pathlib import Path

import pytest

from penstock import OptionError
from penstock.engines import Threads, processes
from penstock.workflows import DocumentError, EmbedJob, HashEmbedder, embed

from .in_workers import die_at, hang_at

pytestmark = [pytest.mark.real_time, pytest.mark.slow]

BATCH = 64


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent.parent))


@pytest.fixture
def docs(tmp_path):
    """Documents of no chunk, of one, and of more than are embedded at once; one of them is no text."""
    root = tmp_path / "docs"
    root.mkdir()
    for number in range(8):
        (root / f"{number}.md").write_text(f"# Title {number}\n\ntext\n")
    (root / "long.txt").write_text("\n\n".join(f"{number} " + "word " * 150 for number in range(2 * BATCH)))
    (root / "empty.rst").touch()
    (root / "latin.html").write_bytes(b"<meta charset=utf-8><script>\xff</script>")
    (root / "binary.txt").write_bytes(b"\0")
    return root


def counts(report):
    return {
        "files": report.files,
        "chunks": report.chunks,
        "failures": report.failures,
        "replaced": (report.replaced, report.replaced_characters),
        "stages": [(stage.name, stage.taken, stage.delivered, stage.failed) for stage in report.stages],
    }


@pytest.fixture
def expected(docs, tmp_path, rows):
    """What an index of the documents holds, and the report of it."""
    report = asyncio.run(embed(docs, tmp_path / "expected.db"))
    assert (report.files, report.failed, report.replaced) == (11, 1, 1)
    return rows(tmp_path / "expected.db"), counts(report)


@pytest.mark.parametrize("memo", [False, True])
@pytest.mark.parametrize("engine", ["inline", "process", partial(Threads, 2)], ids=["inline", "process", "threads"])
async def test_every_engine_makes_the_same_index(*, docs, tmp_path, rows, expected, engine, memo):
    """P12: rows, failures and statistics are the same."""
    given = engine if isinstance(engine, str) else engine()
    report = await embed(docs, tmp_path / "i.db", engine=given, memo=memo)
    if not isinstance(engine, str):
        await given.aclose()
    assert (rows(tmp_path / "i.db"), counts(report)) == expected
    assert report.recalled == 0


async def test_an_embedder_of_ones_own_stays_in_this_process(docs, tmp_path):
    """It may hold what cannot be pickled: a model, a connection."""
    called = set()

    class Own(HashEmbedder):
        def embed(self, texts):
            called.add(os.getpid())
            return super().embed(texts)

    assert (await embed(docs, tmp_path / "i.db", engine="process", embedder=Own())).files == 11
    assert called == {os.getpid()}


async def test_a_link_out_of_the_paths_is_not_read_by_a_process_either(docs, tmp_path):
    (tmp_path / "secret.md").write_text("secret")
    (docs / "link.md").symlink_to(tmp_path / "secret.md")
    engines = [await embed(docs, tmp_path / f"{engine}.db", engine=engine) for engine in ("thread", "process")]
    assert counts(engines[0]) == counts(engines[1])


async def test_a_file_whose_worker_is_killed_is_stored_once(docs, tmp_path, rows, expected):
    """P10: a worker that is killed costs no file, and gives none twice."""
    marks = tmp_path / "marks"
    marks.mkdir()
    async with processes(2, partial(die_at, "4.md", 1, str(marks))) as engine:
        report = await embed(docs, tmp_path / "i.db", engine=engine)
    assert len(list(marks.iterdir())) == 1
    assert (rows(tmp_path / "i.db"), counts(report)) == expected


async def test_a_file_that_kills_its_worker_fails_by_name_and_the_next_run_does_it(docs, tmp_path, rows, expected):
    marks = tmp_path / "marks"
    marks.mkdir()
    async with processes(2, partial(die_at, "4.md", 2, str(marks))) as engine:
        report = await embed(docs, tmp_path / "i.db", engine=engine)
        assert (report.files, report.failed) == (10, 2)
        (lost,) = [failure for failure in report.failures if failure.path == str(docs / "4.md")]
        assert "ran twice, and its worker died both times" in lost.reason
        report = await embed(docs, tmp_path / "i.db", engine=engine)
    assert (report.files, report.unchanged) == (1, 10)
    assert rows(tmp_path / "i.db") == expected[0]


async def test_stop_gives_up_what_a_process_reads(docs, tmp_path):
    """A process needs no patience: the worker is killed, and the file is no failure."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with processes(2, partial(hang_at, "4.md", str(fifo))) as engine:
        job = EmbedJob(docs, tmp_path / "i.db", engine=engine)
        running = asyncio.ensure_future(job.run())
        assert await asyncio.to_thread(fifo.read_text) == "reading"
        job.stop(grace=0)
        report = await running
        assert report.interrupted
        assert str(docs / "4.md") not in {failure.path for failure in report.failures}
    again = await embed(docs, tmp_path / "i.db")
    assert (again.files + again.unchanged, again.failed) == (11, 1)


async def test_on_error_raise_ends_with_the_file_that_failed_in_a_process(docs, tmp_path):
    with pytest.raises(DocumentError, match=r"binary\.txt: not text: a NUL byte at 0") as raised:
        await embed(docs, tmp_path / "i.db", engine="process", on_error="raise")
    assert raised.value.path == str(docs / "binary.txt")


@pytest.mark.parametrize("engine", ["processes", 2, False])
def test_what_is_no_engine_is_refused_before_anything_is_written(docs, tmp_path, engine):
    with pytest.raises(OptionError, match="engine must be"):
        EmbedJob(docs, tmp_path / "i.db", engine=engine)
    assert not (tmp_path / "i.db").exists()
