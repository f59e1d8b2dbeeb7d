"""The writer of an index."""

import os
import stat
import subprocess
import sys

import apsw
import numpy as np
import pytest

from penstock.durable.lock import HeldError
from penstock.durable.sqlite import StoreError, StoreFullError
from penstock.sources.files import File
from penstock.workflows import HashEmbedder
from penstock.workflows.documents.chunking.pieces import Chunk
from penstock.workflows.documents.reading import Document
from penstock.workflows.documents.store import Store


def document(name="a.txt", *texts, directory="/docs", version=(1, 2)):
    chunks = tuple(Chunk(n, n, f"heading {n}", text) for n, text in enumerate(texts, 1))
    return Document(File(directory, name, *version), chunks)


def vectors(document):
    return np.ones((len(document.chunks), 3), np.float32)


def put(store, *args, **kwargs):
    each = document(*args, **kwargs)
    store.replace(each, vectors(each))


def test_a_document_is_stored_with_its_chunks_vectors_and_words(tmp_path, fake, rows):
    with Store(str(tmp_path / "i.db"), fake) as store:
        put(store, "a.txt", "one", "two")
    assert rows(tmp_path / "i.db") == [
        ("/docs", "a.txt", 1, 2, 0, 1, 1, "heading 1", "one", vectors(document("a", "x")).tobytes()),
        ("/docs", "a.txt", 1, 2, 1, 2, 2, "heading 2", "two", vectors(document("a", "x")).tobytes()),
    ]


def test_a_changed_document_replaces_its_former_rows_everywhere(tmp_path, fake, rows):
    with Store(str(tmp_path / "i.db"), fake) as store:
        put(store, "a.txt", "alpha", "beta")
        put(store, "b.txt", "gamma")
        put(store, "a.txt", "delta", version=(3, 4))
    assert [(row[1], row[8]) for row in rows(tmp_path / "i.db")] == [("a.txt", "delta"), ("b.txt", "gamma")]
    connection = apsw.Connection(str(tmp_path / "i.db"))
    assert connection.execute("SELECT count(*) FROM vectors").get == 2
    for word, count in (("alpha", 0), ("beta", 0), ("gamma", 1), ("delta", 1)):
        assert connection.execute("SELECT count(*) FROM words WHERE words MATCH ?", (word,)).get == count
    connection.execute("INSERT INTO words(words) VALUES ('integrity-check')")
    connection.close()


def test_a_document_without_chunks_is_known(tmp_path, fake):
    with Store(str(tmp_path / "i.db"), fake) as store:
        put(store, "a.txt", version=(0, 5))
        assert store.known("/docs") == {"a.txt": (0, 5)}
        assert store.known("/other") == {}


def test_a_stored_document_is_visible_to_another_process_at_once(tmp_path, fake):
    """A row counts as stored when somebody else can read it."""
    with Store(str(tmp_path / "i.db"), fake) as store:
        put(store, "a.txt", "one")
        code = f"import apsw; print(apsw.Connection({str(tmp_path / 'i.db')!r}).execute('SELECT text FROM chunks').get)"
        seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert seen == "one\n"


def test_a_document_that_fails_leaves_the_former_one(tmp_path, fake, rows):
    with Store(str(tmp_path / "i.db"), fake) as store:
        put(store, "a.txt", "old")
        broken = document("a.txt", "new", "newer", version=(9, 9))
        with pytest.raises(IndexError):
            store.replace(broken, np.ones((1, 3), np.float32))
        put(store, "b.txt", "next")
    assert [row[8] for row in rows(tmp_path / "i.db")] == ["old", "next"]


def test_directories_are_those_below_the_root(tmp_path, fake):
    with Store(str(tmp_path / "i.db"), fake) as store:
        for directory in ("/docs", "/docs/a", "/docs2", "/"):
            put(store, "a.txt", directory=directory)
        assert sorted(store.directories("/docs")) == ["/docs", "/docs/a"]
        assert sorted(store.directories("/")) == ["/", "/docs", "/docs/a", "/docs2"]


def test_names_that_are_no_utf_8_come_back_as_they_were(tmp_path, fake):
    name = os.fsdecode(b"caf\xe9.txt")
    with Store(str(tmp_path / "i.db"), fake) as store:
        put(store, name, directory=os.fsdecode(b"/caf\xe9"))
        put(store, name, directory=os.fsdecode(b"/caf\xe9"))
        assert store.known(os.fsdecode(b"/caf\xe9")) == {name: (1, 2)}
        assert list(store.directories("/")) == [os.fsdecode(b"/caf\xe9")]


def test_a_closed_index_is_one_file_that_a_read_only_directory_can_hold(tmp_path, fake):
    for _ in range(2):
        with Store(str(tmp_path / "i.db"), fake) as store:
            put(store, "a.txt", "one")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["i.db", "i.db.lock"]
    with Store(str(tmp_path / "i.db"), fake):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["i.db", "i.db.lock"]


def test_a_reader_does_not_keep_the_index_from_closing(tmp_path, fake, rows):
    with Store(str(tmp_path / "i.db"), fake) as store:
        put(store, "a.txt", "one")
        reader = apsw.Connection(str(tmp_path / "i.db"), flags=apsw.SQLITE_OPEN_READONLY)
        reading = reader.execute("SELECT * FROM files")
        next(reading)
    reader.close(force=True)
    assert len(rows(tmp_path / "i.db")) == 1


def test_the_second_writer_is_told_who_the_first_is(tmp_path, fake):
    with (
        Store(str(tmp_path / "i.db"), fake),
        pytest.raises(HeldError, match=rf"i\.db: process {os.getpid()} on .* is writing to it, since .*$"),
    ):
        Store(str(tmp_path / "i.db"), fake)


def test_the_lock_goes_with_its_holder(tmp_path, fake):
    """Trap 49: an owner row times out while its owner lives; the kernel knows."""
    for _ in range(2):
        with Store(str(tmp_path / "i.db"), fake):
            pass
    assert (tmp_path / "i.db.lock").read_text().startswith(f"process {os.getpid()} on ")


def test_an_index_of_another_embedder_is_refused_and_left_as_it_is(tmp_path, fake, rows):
    with Store(str(tmp_path / "i.db"), fake) as store:
        put(store, "a.txt", "one")
    with pytest.raises(StoreError, match=r"made with the embedder fake \(3 dimensions\), not hash-1 \(1024\)"):
        Store(str(tmp_path / "i.db"), HashEmbedder())
    assert len(rows(tmp_path / "i.db")) == 1


def test_a_strange_database_is_refused_and_left_as_it_is(tmp_path, fake):
    path = tmp_path / "i.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not an index of penstock"):
        Store(str(path), fake)
    assert path.read_bytes() == before


def test_an_index_of_a_newer_format_is_refused(tmp_path, fake):
    with Store(str(tmp_path / "i.db"), fake):
        pass
    connection = apsw.Connection(str(tmp_path / "i.db"))
    connection.pragma("user_version", 2)
    connection.close()
    with pytest.raises(StoreError, match="an index of format 2; this penstock reads format 1"):
        Store(str(tmp_path / "i.db"), fake)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("x" * 5_000), "not an SQLite database"),
        (lambda path: path.write_text("x"), "not an index of penstock"),
        (lambda path: path.mkdir(), "a directory, not an index"),
    ],
    ids=["text", "one byte", "directory"],
)
def test_what_is_no_database_is_refused(tmp_path, fake, make, message):
    make(tmp_path / "i.db")
    with pytest.raises(StoreError, match=rf"i\.db: {message}$"):
        Store(str(tmp_path / "i.db"), fake)


def test_a_missing_directory_is_named(tmp_path, fake):
    with pytest.raises(StoreError, match=r"none/i\.db: its directory does not exist$"):
        Store(str(tmp_path / "none" / "i.db"), fake)


def test_an_empty_file_becomes_an_index(tmp_path, fake):
    (tmp_path / "i.db").touch()
    with Store(str(tmp_path / "i.db"), fake) as store:
        put(store, "a.txt", "one")


def test_a_full_disk_is_told_and_loses_nothing(tmp_path, fake, rows):
    """What was committed stays, and there is room again when there is room again."""
    with Store(str(tmp_path / "i.db"), fake) as store:
        put(store, "a.txt", "one")
        store._writer.pragma("max_page_count", store._writer.pragma("page_count") + 2)
        with pytest.raises(StoreFullError, match=r"i\.db: the disk is full$"):
            put(store, "b.txt", *["x" * 1_000] * 100)
        store._writer.pragma("max_page_count", 1_000_000)
        put(store, "c.txt", "two")
    assert [row[1] for row in rows(tmp_path / "i.db")] == ["a.txt", "c.txt"]


def test_the_lock_file_is_made_as_other_files_are(tmp_path, fake):
    with Store(str(tmp_path / "i.db"), fake):
        assert stat.S_IMODE((tmp_path / "i.db.lock").stat().st_mode) & 0o600 == 0o600
