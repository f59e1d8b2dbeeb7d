"""Ctrl-C, and worse."""

import signal

import pytest

from penstock.workflows.documents.chunking import split

pytestmark = pytest.mark.slow


@pytest.fixture
def many(tmp_path):
    """So many documents that no machine is through before a signal comes."""
    root = tmp_path / "many"
    root.mkdir()
    for number in range(1_500):
        (root / f"{number:04}.txt").write_text(f"document {number}\n")
    return root


@pytest.fixture
def long(tmp_path):
    """Documents that take a while each, after a first one that does not."""
    root = tmp_path / "long"
    root.mkdir()
    (root / "00.txt").write_text("short")
    for number in range(1, 5):
        (root / f"{number:02}.txt").write_text(
            "\n\n".join(f"{number} {line} " + "word " * 150 for line in range(2_400))
        )
    return root


@pytest.mark.parametrize(
    ("number", "code", "again"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_a_signal_finishes_what_is_in_flight_and_says_how_to_go_on(
    *, many, penstock, started_penstock, stored, number, code, again
):
    running = started_penstock("embed", "many", "--to", "index.db")
    running.wait_for("first document stored")
    running.process.send_signal(number)
    done = running.finish()
    assert done.code == code
    assert f"stopping: what is in flight is finished and stored; {again} again aborts\n" in done.err
    assert " stopped " in penstock("runs", "index.db").out
    assert "ended early; what was stored is in index.db, and the same command goes on from there\n" in done.err
    some = len(stored())
    assert 0 < some < 1_500
    assert f"index.db: {some:,} file" in done.out
    again = penstock("embed", "many", "--to", "index.db", "--json")
    assert (again.code, again.json["unchanged"], again.json["files"]) == (0, some, 1_500 - some)


def test_an_interrupted_run_still_prints_one_json_document(many, started_penstock, stored):
    running = started_penstock("embed", "many", "--to", "index.db", "--json")
    running.wait_for("first document stored")
    running.process.send_signal(signal.SIGINT)
    done = running.finish()
    assert done.code == 130
    assert done.json["interrupted"]
    assert done.json["files"] == len(stored())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_aborts_and_loses_nothing(*, long, penstock, started_penstock, stored, number, code):
    """It prints no report, with `--json` neither: nothing may hold up the end."""
    running = started_penstock("embed", "long", "--to", "index.db", "--json")
    running.wait_for("first document stored")
    running.process.send_signal(signal.SIGINT)
    running.wait_for("stopping:")
    running.process.send_signal(number)
    done = running.finish()
    assert done.code == code
    assert done.err.endswith("penstock: aborted; what was stored stays, and the same command goes on from there\n")
    assert done.out == ""
    some = {row.name for row in stored()}
    assert "00.txt" in some
    again = penstock("embed", "long", "--to", "index.db", "--json")
    assert (again.code, again.json["unchanged"]) == (0, len(some))


@pytest.fixture
def pages(tmp_path):
    """Documents of several chunks, so that half of one would show."""
    root = tmp_path / "pages"
    root.mkdir()
    for number in range(60):
        (root / f"{number:03}.md").write_text(
            "\n\n".join(f"# {number} part {part}\n\n" + f"{number} " * 250 for part in range(12))
        )
    return root


def test_a_run_that_is_killed_leaves_whole_documents_and_the_next_one_ends_alike(
    *, pages, penstock, started_penstock, indexed, stored, tmp_path
):
    """Killed at any instant: every document is there whole or not at all, and the rest comes with the next run."""
    for number in range(60, 1_000):  # more than are stored while the kill is on its way
        (pages / f"{number:03}.md").write_text((pages / f"{number % 60:03}.md").read_text())
    for _ in range(2):
        running = started_penstock("embed", "pages", "--to", "index.db")
        running.wait_for("first document stored")
        running.process.kill()
        running.process.wait()
        found = stored()
        names = {row.name for row in found}
        assert 0 < len(names) < 1_000
        for name in names:
            chunks = split(name, (pages / name).read_text())
            assert [row.text for row in found if row.name == name] == [chunk.text for chunk in chunks]
            assert all(len(row.vector) == 4 * 1_024 for row in found if row.name == name)
    assert penstock("search", "index.db", "part 7").out.startswith("1. pages/")
    assert penstock("embed", "pages", "--to", "index.db", "--json").json["unchanged"] == len(names)
    killed = stored()
    (tmp_path / "index.db").unlink()
    indexed(pages)
    assert killed == stored()
