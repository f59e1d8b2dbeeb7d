"""Any text finds itself: texts and questions become words in one way."""

import asyncio
import unicodedata
from contextlib import closing

import apsw
import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from penstock.sinks import SqliteVectors
from penstock.sinks.words import MOST, TOKENIZER, asked, indexed
from penstock.sources.keyed import keyed


@pytest.fixture(scope="module")
def table():
    """A connection with an index of words, as an index of vectors has it."""
    with closing(apsw.Connection(":memory:")) as connection:
        connection.execute(f"CREATE VIRTUAL TABLE words USING fts5(title, text, content='', tokenize='{TOKENIZER}')")
        yield connection


def finds(table, text, question):
    """Whether a row of this text is found by the question."""
    with table:
        table.execute("INSERT INTO words(words) VALUES ('delete-all')")
        table.execute("INSERT INTO words(rowid, title, text) VALUES (1, '', ?)", (indexed(text),))
        words = [word.match for word in asked(table, question)]
        return bool(words and table.execute("SELECT 1 FROM words WHERE words MATCH ?", (" OR ".join(words),)).get)


def has_words(text):
    """Whether it has a letter, a digit or a symbol; marks, punctuation and what nobody sees are no words."""
    return any(unicodedata.category(char)[0] in "LN" for char in text)


TEXT = some.text(some.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
LETTERS = some.text(some.characters(categories=["L", "N", "M"]), min_size=1, max_size=12)


@given(TEXT | LETTERS)
@example("e\u0301")
@example("\u13a0\uab70")  # Cherokee: folded to capitals
@example("\u19b0")
@example("a\0b")
@example("\u200dक्\u200dष")
def test_any_text_finds_itself(table, text):
    if has_words(text):
        assert finds(table, text, text)


@given(LETTERS, some.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_any_text_is_found_in_every_normal_form(table, text, form):
    other = unicodedata.normalize(form, text)
    if has_words(text) and form in {"NFC", "NFD"}:
        assert finds(table, text, other)
        assert finds(table, other, text)


@given(TEXT)
def test_any_question_can_be_asked(table, question):
    finds(table, "x", question)


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("die Straße", "STRASSE"),
        ("die STRASSE", "straße"),
        ("oﬃce", "office"),
        ("İzmir", "izmir"),
        ("Μαΐου", "ΜΑΪΟΥ"),
        ("ὁ λόγος", "λογοσ"),
        ("déjà vu", "deja"),
        ("don't do it", "don't"),
        ("don\u2019t do it", "don't"),
        ("read_chunks(size)", "read_chunks"),
        ("C++ and .NET", ".NET"),
        ("naïve co\xadoperation", "cooperation"),
        ("\uff21\uff22\uff23\uff11\uff12\uff13", "abc123"),
        ("系统支持中文搜索功能", "中文"),
        ("系统支持中文搜索功能", "搜索"),
        ("系统支持中文搜索功能", "功"),
        ("系统支持中文搜索功能", "能"),
        ("我有一只猫。", "猫"),
        ("支持Python3的中文", "python3"),
        ("日本語の全文検索エンジン", "検索"),
        ("日本語の全文検索エンジン", "エンジン"),
        ("ｴﾝｼﾞﾝ", "エンジン"),
        ("한국어 검색을 합니다", "검색"),
        (unicodedata.normalize("NFD", "한국어 검색을 합니다"), "검색"),
        ("ภาษาไทยเป็นภาษาที่ไม่มีช่องว่าง", "ไทย"),
        ("ภาษาไทยเป็นภาษาที่ไม่มีช่องว่าง", "ภาษา"),
        ("हिन्दी में खोज", "खोज"),
        ("well done 🎉", "🎉"),
        ("5 € each", "€"),
    ],
)
def test_a_word_is_found_in_its_other_forms(table, text, question):
    assert finds(table, text, question)


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("हिन्दी", "हो"),
        ("系统支持", "统系"),
        ("系统支持", "中"),
        ("🎉", "🙂"),
        ("path of os", '"os" NEAR "path"x'),
        ("x", "-+*/"),
    ],
)
def test_other_words_are_not(table, text, question):
    words = [word for word in asked(table, question) if word.written not in {"os", "path", "near"}]
    assert not any(word.is_in(text) for word in words)
    assert question.startswith('"os"') or not finds(table, text, question)


def test_of_a_question_so_many_words_are_looked_for(table):
    assert len(asked(table, " ".join(f"w{number}" for number in range(1_000)))) == MOST
    assert len(asked(table, "系统支持中文搜索功能" * 1_000)) <= MOST
    assert len(asked(table, "a." * 100_000)) == 1


def test_what_is_written_as_one_is_also_a_phrase(table):
    assert [word.match for word in asked(table, "os.path, don't")] == [
        '"os path"',
        '"os"',
        '"path"',
        '"don t"',
        '"don"',
        '"t"',
    ]


def test_a_word_is_in_a_text_as_a_whole(table):
    (word,) = asked(table, "branched")
    assert word.is_in("it Branched.")
    assert not word.is_in("branches, xbranched, branched_off")
    phrase = asked(table, "read_chunks()")[0]
    assert phrase.is_in("def READ_CHUNKS(size)")
    assert not phrase.is_in("read chunks, read_chunks_of")


def test_texts_without_spaces_are_found_in_an_index(tmp_path):
    texts = ["系统支持中文搜索功能", "日本語の全文検索", "한국어 검색을 합니다", "ภาษาไทย"]
    index = SqliteVectors(tmp_path / "w.db")
    asyncio.run(keyed(texts, key=str).map(lambda text: {"vector": [1.0], "text": text}).to(index, run="r"))
    for word, text in zip(("中文", "検索", "검색", "ไทย"), texts, strict=True):
        assert [found.row["text"] for found in index.matching(word)] == [text]
