"""Rows with vectors: stored exactly once, checked, found again."""

import asyncio
from contextlib import closing

import apsw
import numpy as np
import pytest

import penstock
from penstock import OptionError
from penstock.durable.roots import RootId
from penstock.durable.store_errors import StoreError
from penstock.sinks.finding import fuse
from penstock.sinks.vector_rows import vector_of
from penstock.sinks.vectors import SqliteVectors
from penstock.sources.keyed import keyed

pytestmark = pytest.mark.real_time

ROOTS = {
    "fruit.md": [([1, 0, 0], "apples and pears"), ([0.9, 0.1, 0], "a pear tree")],
    "trees.md": [([0, 1, 0], "an oak tree"), ([0, 0, 0], "nothing at all")],
    "empty.md": [],
}


def rows_of(texts):
    return [{"vector": vector, "text": text, "number": number} for number, (vector, text) in enumerate(texts)]


async def put(sink, roots, run="docs", **versions):
    """Store rows by root; a root has the version that is given, or none."""
    items = [(key, rows) for key, rows in roots.items()]
    source = keyed(items, key=lambda item: item[0], version=lambda item: versions.get(item[0].partition(".")[0], ""))
    return await source.flat_map(lambda item: item[1]).to(sink, run=run)


def stored(sink):
    return [(row["text"], row["number"], row["vector"].tolist()) for row in sink.rows()]


@pytest.fixture
def sink(tmp_path):
    return SqliteVectors(tmp_path / "i.db")


def fill(sink):
    asyncio.run(put(sink, {key: rows_of(texts) for key, texts in ROOTS.items()}))


def counts(sink):
    connection = apsw.Connection(sink.path)
    found = [connection.execute(f"SELECT count(*) FROM {table}").get for table in ("entries", "vectors", "words")]
    connection.execute("INSERT INTO words(words) VALUES ('integrity-check')")
    connection.close()
    return found


async def test_a_number_of_numpy_in_a_column_is_one_of_python(sink):
    await put(
        sink, {"a": [{"vector": np.ones(2, np.float32), "text": "x", "page": np.int64(3), "of": np.float32(0.5)}]}
    )
    ((page, of),) = [(row["page"], row["of"]) for row in sink.rows()]
    assert (page, of) == (3, 0.5)


def test_rows_come_back_as_they_were_given(sink):
    fill(sink)
    assert stored(sink) == [
        ("apples and pears", 0, [1, 0, 0]),
        ("a pear tree", 1, pytest.approx([0.9, 0.1, 0])),
        ("an oak tree", 0, [0, 1, 0]),
        ("nothing at all", 1, [0, 0, 0]),
    ]
    assert (sink.made().embedder, sink.made().dimensions) == (None, 3)


@pytest.mark.parametrize(
    "vector",
    [[1, 2.5], (1, 2.5), np.array([1, 2.5]), np.array([1, 2.5], np.float16), np.array([[1, 9], [2.5, 9]], "f4")[:, 0]],
    ids=["list", "tuple", "float64", "float16", "a column"],
)
async def test_vectors_may_be_any_numbers_in_a_row(sink, vector):
    await put(sink, {"a": [{"vector": vector, "text": "x", "number": 1}]})
    assert stored(sink) == [("x", 1, [1, 2.5])]


async def test_a_changed_root_replaces_its_rows_everywhere(sink):
    await put(sink, {"a": rows_of([([1, 0], "alpha"), ([0, 1], "beta")]), "b": rows_of([([1, 1], "gamma")])})
    report = await put(sink, {"a": rows_of([([1, 2], "delta")]), "b": []}, a="2")
    assert (report.delivered, report.already_done, report.redone) == (1, 1, 1)
    assert sorted(stored(sink)) == [("delta", 0, [1, 2]), ("gamma", 0, [1, 1])]
    assert counts(sink) == [2, 2, 2]
    assert [len(sink.matching(word)) for word in ("alpha", "beta", "gamma", "delta")] == [0, 0, 1, 1]


async def test_more_rows_than_are_inserted_at_once(sink):
    await put(sink, {"a": ({"vector": [number], "text": f"t{number}", "number": number} for number in range(2_500))})
    assert [row["number"] for row in sink.rows()] == list(range(2_500))
    assert counts(sink) == [2_500] * 3


async def test_columns_of_all_kinds(sink):
    row = {"vector": [1], "text": "t", "none": None, "whole": 1, "part": 0.5, "raw": b"\0", "list": [1, "2"]}
    await put(sink, {"a": [row, {"vector": [2], "text": "u"}]})
    first, second = sink.rows()
    assert {**first, "vector": [1]} == {**row, "list": '[1, "2"]', "vector": [1]}
    assert [second[name] for name in ("none", "whole", "part", "raw", "list")] == [None] * 5


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("text", "a row must be a mapping of columns to values, got 'text'"),
        ({"text": "x"}, "row 1 of 'a': it lacks the column 'vector', got the columns 'text'"),
        ({"vector": [1, 2]}, "row 1 of 'a': text must be a str, got none"),
        ({"vector": [1, 2], "text": 3}, "row 1 of 'a': text must be a str, got 3"),
        ({"vector": [1, 2], "text": "a\ud800"}, r"text must be text that UTF-8 can hold, got '\\ud800' at 1"),
        ({"vector": [1, 2, 3], "text": "x"}, "row 1 of 'a': vector has 3 dimensions, those of .*i.db have 2"),
        (
            {"vector": [1, float("nan")], "text": "x"},
            "vector must have finite numbers that a float32 can hold, got nan",
        ),
        ({"vector": [1, 1e300], "text": "x"}, r"finite numbers that a float32 can hold, got 1e\+300 at 1"),
        ({"vector": [], "text": "x"}, r"vector must be a sequence of numbers, got \[\]"),
        ({"vector": ["1", "2"], "text": "x"}, r"vector must be a sequence of numbers, got \['1', '2'\]"),
        ({"vector": [True, False], "text": "x"}, r"vector must be a sequence of numbers, got \[True, False\]"),
        ({"vector": [[1], [1, 2]], "text": "x"}, r"vector must be a sequence of numbers, got \[\[1\], \[1, 2\]\]"),
        ({"vector": None, "text": "x"}, "vector must be a sequence of numbers, got None"),
        ({"vector": np.ones((1, 2)), "text": "x"}, r"sequence of numbers, got an array of float64 \(1, 2\)"),
        ({"vector": [1, 2], "text": "x", "number": 1, "title": 1}, "title must be a str, got 1"),
        ({"vector": [1, 2], "text": "x", "number": 2**63}, "the column 'number' must have .*, got 9223372036854775808"),
        (
            {"vector": np.ones(2), "text": "x", "number": [object]},
            r"the column 'number' must have .*, got \[<class 'object'>\]",
        ),
        (
            {"vector": [1, 2], "text": "x", "number": np.array([1.5])},
            r"the column 'number' must have .*, got array\(\[1\.5\]\)",
        ),
    ],
)
async def test_a_bad_row_is_told_and_its_root_is_not_stored(sink, row, message):
    good = {"vector": [1, 2], "text": "x", "number": 0}
    with pytest.raises(OptionError, match=message):
        await put(sink, {"a": [good, row]})
    assert list(sink.rows()) == []
    assert (await put(sink, {"a": [good]})).delivered == 1


@pytest.mark.parametrize("name", ["id", "penstock_root", "ID", "Vector", "PENSTOCK_ROOT"])
async def test_names_of_our_own_columns_are_refused(sink, name):
    with pytest.raises(OptionError, match=f"a column must not be called '{name}'"):
        await put(sink, {"a": [{"vector": [1], "text": "x", name: 1}]})


def test_a_vector_of_ours_is_not_copied():
    vector = np.ones(3, np.float32)
    assert vector_of(vector) is vector


# What it was made with


async def test_another_embedder_is_refused(tmp_path):
    path = tmp_path / "i.db"
    await put(SqliteVectors(path, embedder="one"), {"a": rows_of([([1, 2], "x")])})
    for sink in (SqliteVectors(path, embedder="two"), SqliteVectors(path, embedder="one", dimensions=3)):
        with pytest.raises(
            StoreError, match=r"i\.db: made with the embedder one \(2 dimensions\), not (two|one \(3\));"
        ):
            await put(sink, {"b": []})
        with pytest.raises(StoreError, match="use that one, or name another index"):
            sink.nearest([1, 2])
    for sink in (SqliteVectors(path), SqliteVectors(path, embedder="one", dimensions=2)):
        await put(sink, {"b": []})
        assert len(sink.nearest([1, 2])) == 1


async def test_a_name_is_not_given_to_vectors_that_are_there(tmp_path):
    await put(SqliteVectors(tmp_path / "i.db"), {"a": rows_of([([1, 2], "x")])})
    with pytest.raises(StoreError, match="made with the embedder of no name"):
        await put(SqliteVectors(tmp_path / "i.db", embedder="one"), {"b": []})


def test_a_strange_database_is_refused_and_left_as_it_is(tmp_path, sink):
    connection = apsw.Connection(sink.path)
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    before = (tmp_path / "i.db").read_bytes()
    with pytest.raises(StoreError, match=r"i\.db: not an index of penstock"):
        sink.open("process")
    assert (tmp_path / "i.db").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["i.db"]


@pytest.mark.parametrize(("version", "advice"), [(2, "; make another one$"), (4, "$")])
def test_an_index_of_another_format_is_refused(sink, version, advice):
    sink.open("process").close()
    connection = apsw.Connection(sink.path)
    connection.pragma("user_version", version)
    connection.close()
    for use in (lambda: sink.open("process"), sink.made, lambda: sink.nearest([1])):
        with pytest.raises(StoreError, match=f"an index of format {version}; this penstock reads format 3{advice}"):
            use()


def test_what_was_begun_and_killed_at_once_can_be_begun_again(sink):
    """A database in WAL mode without a table: so it is between the first two writes."""
    connection = apsw.Connection(sink.path)
    connection.pragma("journal_mode", "wal")
    connection.close()
    fill(sink)
    assert len(stored(sink)) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedder": ""}, "embedder must be"),
        ({"embedder": 1}, "embedder must be"),
        ({"dimensions": 0}, "dimensions must be an int >= 1, got 0"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    with pytest.raises(OptionError, match=message):
        SqliteVectors(tmp_path / "i.db", **options)


def test_a_closed_index_is_one_file_that_a_read_only_directory_can_hold(tmp_path, sink):
    for _ in range(2):
        fill(sink)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["i.db", "i.db.lock"]


def test_a_reader_does_not_keep_the_index_from_closing(sink):
    fill(sink)
    store = sink.open("process")
    reader = apsw.Connection(sink.path, flags=apsw.SQLITE_OPEN_READONLY)
    reading = reader.execute("SELECT * FROM vectors")
    next(reading)
    store.close()
    reader.close(force=True)
    assert len(stored(sink)) == 4


# Finding


def test_nearest_are_those_of_the_smallest_angle(sink):
    fill(sink)
    found = sink.nearest([2, 0, 0], k=2)
    assert [(each.key, each.row["text"]) for each in found] == [
        ("fruit.md", "apples and pears"),
        ("fruit.md", "a pear tree"),
    ]
    assert found[0].score == pytest.approx(1)
    assert found[1].score == pytest.approx(0.9 / np.hypot(0.9, 0.1))
    assert found[0].row == {"text": "apples and pears", "number": 0}


def test_nothing_is_near_to_zeros(sink):
    fill(sink)
    assert len(sink.nearest([1, 1, 1])) == 3
    assert sink.nearest([0, 0, 0]) == []


def test_nearest_agrees_with_numpy(sink):
    pick = np.random.default_rng(1)
    vectors = pick.normal(size=(300, 8)).astype(np.float32)
    asyncio.run(put(sink, {"a": rows_of([(vector, "x") for vector in vectors])}))
    for question in pick.normal(size=(10, 8)):
        cosines = vectors @ question / np.linalg.norm(vectors, axis=1) / np.linalg.norm(question)
        found = sink.nearest(question, k=20)
        assert [each.row["number"] for each in found] == np.argsort(-cosines)[:20].tolist()
        assert [each.score for each in found] == pytest.approx(np.sort(cosines)[::-1][:20].tolist(), abs=1e-5)


@pytest.mark.parametrize("size", [1e-44, 1e-38, 1e-30, 1e-16, 1, 1e16, 1e19, 3e38])
def test_vectors_of_any_length_are_near_by_their_angle(sink, size):
    """The squares of their numbers are beyond a float32: sqlite-vec took them for 0 or infinity."""
    turned = np.array([[1, 0], [1, 1], [0, 1], [-1, 0]], np.float32) * np.float32(size)
    asyncio.run(put(sink, {"a": rows_of([(vector, "x") for vector in turned])}))
    for length in (1e-44, 1, 3e38):
        found = sink.nearest(np.array([1, 0], np.float32) * np.float32(length))
        assert [each.row["number"] for each in found] == [0, 1, 2, 3]
        assert [each.score for each in found] == pytest.approx([1, 0.5**0.5, 0, -1], abs=1e-6)
        assert max(abs(each.score) for each in found) <= 1
    assert [row["vector"].tolist() for row in sink.rows()] == turned.tolist()
    with closing(sink.open("process")) as store:
        with store.transaction():
            store.replace(RootId(1, "a"), [])
        assert not list(store.connection.execute("SELECT * FROM scaled"))


def test_words_are_found_by_their_stems(sink):
    fill(sink)
    assert [each.row["text"] for each in sink.matching("PEAR")] == ["apples and pears", "a pear tree"]
    assert all(each.score > 0 for each in sink.matching("pear tree"))
    assert sink.matching("pear tree")[0].row["text"] == "a pear tree"
    assert sink.matching("") == sink.matching('"*(') == sink.matching("banana") == []


async def test_words_of_a_title_count_more(sink):
    rows = [
        {"vector": [1], "text": "an oak, an oak", "title": "birch"},
        {"vector": [2], "text": "a birch", "title": "oak"},
        {"vector": [3], "text": "a willow, and a beech", "title": None},
    ]
    await put(sink, {"a": rows})
    assert [each.row["title"] for each in sink.matching("birch")] == ["birch", "oak"]


def test_both_ways_are_fused(sink):
    fill(sink)
    found = sink.search([0, 1, 0], "pear", k=3)
    assert {each.row["text"]: each.score for each in found} == {
        "apples and pears": pytest.approx(1 / 61 + 1 / 63),
        "a pear tree": pytest.approx(1 / 62 + 1 / 62),
        "an oak tree": pytest.approx(1 / 61),
    }
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)


def test_rows_that_have_a_rare_word_come_first(sink):
    """Two good ranks for words that all have told more than the one row that has what was asked for."""
    texts = {f"{number:02}": f"how to call a function with a timeout, part {number}" for number in range(30)}
    texts |= {
        "07": "read_chunks(size) and branched, deep in the code of _how and _how_to",
        "08": "branching and branches",
    }
    rows = {key: [{"vector": [1, number], "text": text}] for number, (key, text) in enumerate(texts.items())}
    asyncio.run(put(sink, rows))
    for word in ("read_chunks", "READ_CHUNKS()", "branched", "_how", "_how_to()"):
        found = sink.search([1, 29], f"how do I call {word} with a timeout", k=40)
        assert found[0].key == "07"
        assert found[0].score > 0.05 > found[1].score > 0
    assert sink.search([1, 29], "how do I call a function with a timeout", k=1)[0].score < 0.05


def test_ranks_are_fused_reciprocally():
    """Cormack, Clarke and Buettcher: 1 / (60 + rank), summed."""
    assert fuse([[7, 8], [8, 9]]) == {7: 1 / 61, 8: 1 / 62 + 1 / 61, 9: 1 / 62}


def test_an_index_without_rows_has_nothing(sink):
    with closing(sink.open("process")):
        assert sink.nearest([1]) == sink.matching("x") == sink.search([1], "x") == list(sink.rows()) == []


def test_a_question_that_cannot_be_asked_is_refused(sink):
    fill(sink)
    for ask in (sink.nearest, lambda vector: sink.search(vector, "x")):
        with pytest.raises(OptionError, match=r"vector has 2 dimensions, those of .*i\.db have 3"):
            ask([1, 2])
        with pytest.raises(OptionError, match="vector must be a sequence of numbers, got 'x'"):
            ask("x")
    for ask in (sink.nearest, sink.matching):
        with pytest.raises(OptionError, match="k must be an int >= 1, got 0"):
            ask([1, 2, 3], k=0)


def test_a_missing_index_is_told(tmp_path, sink):
    with pytest.raises(StoreError, match=r"i\.db: cannot be opened"):
        sink.nearest([1])
    assert list(tmp_path.iterdir()) == []


# The whole way


def paragraphs(file):
    return [{"text": text, "part": part} for part, text in enumerate(file.read_text().split("\n\n"))]


def letters(chunks):
    return [{**chunk, "vector": [chunk["text"].count(letter) for letter in "abcde"]} for chunk in chunks]


async def test_files_become_an_index_that_can_be_searched_and_follows_them(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(30):
        (docs / f"{number:02}.md").write_text(
            "\n\n".join(f"{'abcde'[(number + part) % 5]} {number}" for part in range(7))
        )
    index = penstock.SqliteVectors(tmp_path / "index.db", embedder="letters")
    stream = penstock.files(docs, "*.md").flat_map(paragraphs).map_batches(letters, 64, concurrency=4)
    report = await stream.to(index, run="docs")
    assert (report.delivered, report.rows, report.guarantee) == (30, 210, "exactly once")
    (docs / "07.md").write_text("eee new")
    (docs / "08.md").unlink()
    again = await stream.to(index, run="docs", on_missing="delete")
    assert (again.delivered, again.already_done, again.redone, again.removed) == (1, 28, 1, 1)
    found = index.search([0, 0, 0, 0, 1], "new", k=1)
    assert [(each.key, each.row) for each in found] == [("07.md", {"text": "eee new", "part": 0})]
    assert index.matching("8") == []
    assert len(list(index.rows())) == 210 - 7 - 7 + 1
