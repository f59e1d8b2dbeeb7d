"""Searching an index."""

import asyncio
import os
import random
import string
import subprocess
import sys
from collections import Counter

import apsw
import pytest

from penstock import OptionError
from penstock.durable.store_errors import StoreError
from penstock.sinks.vectors import SqliteVectors
from penstock.sources.keyed import keyed
from penstock.sources.walking import FoundFile
from penstock.workflows import HashEmbedder, search
from penstock.workflows.documents.chunking import split
from penstock.workflows.documents.embedding import Embedded, Embedding
from penstock.workflows.documents.reading import Document
from penstock.workflows.documents.search import snippet

TEXTS = {
    "gzip.py": 'def compress(data):\n    """Compress bytes in one shot."""\n',
    "shell.md": "# Arguments\n\nHow the command line is parsed.\n",
    "c.txt": "C++ is a language. AND so is C.\n",
    "letters.txt": "Ein Straßenname mit Umlaut: Größe.\n",
}


def embeddable(document):
    return [Embedded(piece) for piece in document.pieces()]


def empty(path, embedder):
    """Make an index without rows."""
    SqliteVectors(path, embedder=embedder.name, dimensions=embedder.dimensions).open("process").close()


@pytest.fixture
def index(tmp_path):
    embedder = HashEmbedder()
    documents = [Document(FoundFile("/docs", name, 0, 0), tuple(split(name, text))) for name, text in TEXTS.items()]
    pieces = keyed(documents, key=lambda document: document.file.path).flat_map(embeddable)
    sink = SqliteVectors(tmp_path / "i.db", embedder=embedder.name)
    asyncio.run(Embedding(embedder).of(pieces, "raise").to(sink, run="embed"))
    return tmp_path / "i.db"


def test_a_hit_says_where_it_is(index):
    best = search(index, "compress bytes")[0]
    assert (best.path, best.first_line, best.last_line, best.heading) == ("/docs/gzip.py", 1, 2, "compress")
    assert best.text == TEXTS["gzip.py"].rstrip()
    assert best.snippet == '"""Compress bytes in one shot."""'


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("parsing the command line", "shell.md"),
        ("COMPRESSION of byte strings", "gzip.py"),
        ("C++", "c.txt"),
        ("grosse strassen", "letters.txt"),
    ],
)
def test_the_right_document_comes_first(index, question, name):
    assert search(index, question)[0].path == f"/docs/{name}"


@pytest.mark.parametrize(
    "question",
    [
        '"',
        "'",
        '"unbalanced',
        "C++",
        "AND",
        "a AND",
        "NOT x",
        "NEAR(a b)",
        "title:x",
        "^x",
        "x*",
        "(",
        "-- ; DROP TABLE files",
        "%_",
        "\\",
        "+-*/",
        "漢字",
        "🙂",
        "a\0b",
        "\udcff",
        "x" * 100_000,
        " ".join(f"w{n}" for n in range(10_000)),
    ],
    ids=repr,
)
def test_any_text_is_a_question(index, question):
    assert isinstance(search(index, question), list)


@pytest.mark.slow
def test_random_text_is_a_question(index):
    pick = random.Random(1)
    for _ in range(200):
        search(index, "".join(pick.choices(string.printable + "äß漢🙂\x00", k=pick.randint(1, 30))))


@pytest.mark.parametrize("question", ["", " ", "\n\t"])
def test_an_empty_question_finds_nothing(index, question):
    assert search(index, question) == []


def test_k_bounds_the_hits(index):
    assert len(search(index, "a", k=2)) == 2
    assert len(search(index, "a", k=100)) == len(TEXTS)
    with pytest.raises(OptionError, match="k must be an int >= 1, got 0"):
        search(index, "a", k=0)


@pytest.fixture
def made(tmp_path):
    """A function that makes an index of files and their texts."""

    def make(texts):
        embedder = HashEmbedder()
        documents = [Document(FoundFile("/docs", name, 0, 0), tuple(split(name, text))) for name, text in texts.items()]
        pieces = keyed(documents, key=lambda document: document.file.path).flat_map(embeddable)
        sink = SqliteVectors(tmp_path / "m.db", embedder=embedder.name)
        asyncio.run(Embedding(embedder).of(pieces, "raise").to(sink, run="embed"))
        return tmp_path / "m.db"

    return make


def test_of_the_first_five_hits_two_are_of_one_file_at_most(made):
    """A long file that says it a hundred times hid all others."""
    long = "\n\n".join(f"# Part {n}\n\n{'compress bytes ' * 40}" for n in range(100))
    path = made({"long.md": long, **{f"{n}.txt": f"to compress bytes, see {n}" for n in range(3)}})
    for k in (2, 5, 20):
        hits = search(path, "compress bytes", k=k)
        assert len(hits) == k
        assert max(Counter(hit.path for hit in hits[:5]).values()) <= 2
    assert len({(hit.path, hit.first_line) for hit in search(path, "compress bytes", k=200)}) == 103


def test_where_no_other_file_has_any_all_may_be_of_one(made):
    path = made({"long.md": "\n\n".join(f"# Part {n}\n\n{'compress bytes ' * 40}" for n in range(10))})
    assert len(search(path, "compress bytes", k=5)) == 5


def test_an_empty_index_has_no_hits(tmp_path):
    empty(tmp_path / "i.db", HashEmbedder())
    assert search(tmp_path / "i.db", "compress") == []


def test_a_snippet_begins_at_the_line_with_most_of_the_words():
    text = "first line\n\n  the Bytes to compress  \nlast"
    assert snippet(text, ["compress", "bytes"]) == "the Bytes to compress last"
    assert snippet("word " * 100, ["word"]).endswith("word ...")
    assert len(snippet("word " * 100, [])) <= 204
    assert snippet("", ["x"]) == ""


def test_an_index_with_another_embedder_is_refused(tmp_path, fake):
    empty(tmp_path / "i.db", fake)
    with pytest.raises(StoreError, match="made with the embedder fake"):
        search(tmp_path / "i.db", "x")
    assert search(tmp_path / "i.db", "abc", embedder=fake) == []


def test_what_is_no_index_is_refused(tmp_path):
    (tmp_path / "text.db").write_text("x" * 10_000)
    for name, message in (("none.db", "no such index"), ("text.db", "not an SQLite database"), (".", "a directory")):
        with pytest.raises(StoreError, match=message):
            search(tmp_path / name, "x")
    assert not (tmp_path / "none.db").exists()


def test_searching_changes_no_byte(index):
    before = index.read_bytes()
    search(index, "compress")
    assert index.read_bytes() == before
    assert sorted(path.name for path in index.parent.iterdir()) == ["i.db", "i.db.lock"]


def as_a_user(code, *arguments):
    """Run Python code as a user whom permissions bind, which is not so for root."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    return subprocess.run(command, capture_output=True, text=True, check=False)


FIND = "import sys; from penstock.workflows import search; print(search(sys.argv[1], 'compress bytes')[0].path)"


@pytest.fixture
def locked(index):
    """A function that makes the index and its directory unwritable, for the time of the test."""
    yield lambda: [path.chmod(0o444) for path in index.parent.iterdir()] and index.parent.chmod(0o555)
    index.parent.chmod(0o755)


def test_a_read_only_directory_can_be_searched(index, locked):
    locked()
    done = as_a_user(FIND, index)
    assert (done.stdout, done.stderr) == ("/docs/gzip.py\n", "")


def test_a_read_only_directory_can_be_searched_when_the_last_run_was_killed(index, locked):
    """WAL mode without its -wal and -shm: SQLite alone says that it cannot open the file."""
    connection = apsw.Connection(str(index))
    connection.pragma("journal_mode", "wal")
    connection.close()
    assert index.read_bytes()[18:20] == b"\2\2"
    assert sorted(path.name for path in index.parent.iterdir()) == ["i.db", "i.db.lock"]
    locked()
    done = as_a_user(FIND, index)
    assert (done.stdout, done.stderr) == ("/docs/gzip.py\n", "")


KILLED = """
import asyncio, os, signal, sys
from penstock.sinks.vectors import SqliteVectors, VectorStore
from penstock.sources.keyed import keyed
from penstock.workflows import HashEmbedder
VectorStore.close = lambda store: os.kill(os.getpid(), signal.SIGKILL)
row = {"vector": HashEmbedder().embed(["compress bytes"])[0], "title": "new", "text": "compress bytes"}
rows = keyed([row], key=lambda row: "/docs/new.txt")
asyncio.run(rows.to(SqliteVectors(sys.argv[1], embedder="hash-1"), run="more"))
"""


@pytest.mark.slow
def test_rows_that_only_the_wal_has_are_found_or_missed_aloud(index, locked):
    """Opened as immutable, the newest rows would be hidden without a word."""
    subprocess.run([sys.executable, "-c", KILLED, str(index)], check=False)
    assert (index.parent / "i.db-wal").stat().st_size > 0
    locked()
    assert as_a_user(FIND, index).stdout == "/docs/new.txt\n"
    index.parent.chmod(0o755)
    (index.parent / "i.db-shm").unlink()
    index.parent.chmod(0o555)
    done = as_a_user(FIND, index)
    assert done.stdout == ""
    assert "i.db: cannot be opened" in done.stderr
