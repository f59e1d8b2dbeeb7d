"""Reading a file into a document: its text at one moment."""

import codecs
import os

import pytest
from webencodings.labels import LABELS

from penstock.sources.walking import FoundFile
from penstock.workflows.documents.encodings import decode
from penstock.workflows.documents.reading import DocumentError, read

LIMIT = 1_000_000


def listed(path):
    status = path.stat()
    return FoundFile(str(path.parent), path.name, status.st_size, status.st_mtime_ns)


def reason(file, **options):
    with pytest.raises(DocumentError) as caught:
        read(file, **{"max_size": LIMIT} | options)
    assert str(caught.value) == f"{file.path}: {caught.value.reason}"
    assert "\n" not in str(caught.value)
    return caught.value.reason


def test_a_document_has_the_version_of_the_moment_it_was_read(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    before = listed(path)
    path.write_text("newer")
    document = read(before, max_size=LIMIT)
    assert document.chunks[0].text == "newer"
    assert document.file == listed(path)


def test_an_empty_file_is_a_document_without_chunks(tmp_path):
    (tmp_path / "a.txt").touch()
    assert read(listed(tmp_path / "a.txt"), max_size=LIMIT).chunks == ()


def test_a_vanished_file_is_named(tmp_path):
    (tmp_path / "a.txt").touch()
    file = listed(tmp_path / "a.txt")
    (tmp_path / "a.txt").unlink()
    assert reason(file) == "gone since its directory was listed"


def test_a_file_over_the_limit_is_not_read(tmp_path):
    (tmp_path / "a.txt").write_text("x" * 11)
    assert reason(listed(tmp_path / "a.txt"), max_size=10) == "11 bytes, more than the limit of 10"
    assert read(listed(tmp_path / "a.txt"), max_size=11).chunks


def test_a_file_that_keeps_changing_is_refused(tmp_path):
    """The version must be that of the content: or the next run would not see that it holds something else."""
    path = tmp_path / "a.txt"
    path.write_text("x")

    def change_and_open(name, flags):
        path.write_text(path.read_text() + "x")
        return os.open(name, flags)

    assert reason(listed(path), opener=change_and_open) == "changes while it is read; run again when it is at rest"


def test_a_file_that_changed_once_is_read_again(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("torn")
    changes = iter(["whole"])

    def change_once_and_open(name, flags):
        for content in changes:
            path.write_text(content)
        return os.open(name, flags)

    document = read(listed(path), max_size=LIMIT, opener=change_once_and_open)
    assert document.chunks[0].text == "whole"
    assert document.file == listed(path)


def test_a_file_that_was_replaced_while_it_was_read_is_read_again(tmp_path):
    """Same size and time, another file: only the inode tells."""
    path, other = tmp_path / "a.txt", tmp_path / "b.txt"
    for place, content in ((path, "one"), (other, "two")):
        place.write_text(content)
        os.utime(place, ns=(0, 0))

    def open_and_replace(name, flags):
        descriptor = os.open(name, flags)
        if other.exists():
            other.rename(path)
        return descriptor

    assert read(listed(path), max_size=LIMIT, opener=open_and_replace).chunks[0].text == "two"


def test_what_became_a_pipe_is_not_opened(tmp_path):
    path = tmp_path / "a.txt"
    path.touch()
    file = listed(path)
    path.unlink()
    os.mkfifo(path)
    assert reason(file) == "no longer a regular file"


def test_a_failure_keeps_nothing_of_the_file(tmp_path):
    """A run keeps 1,000 failures: their tracebacks must not hold 1,000 files."""
    (tmp_path / "a.txt").write_bytes(b"\0" * 1_000)
    with pytest.raises(DocumentError) as caught:
        read(listed(tmp_path / "a.txt"), max_size=LIMIT)
    traceback = caught.value.__traceback__
    held = []
    while traceback is not None:
        if traceback.tb_frame.f_code is read.__code__:
            held += [value for value in traceback.tb_frame.f_locals.values() if isinstance(value, str | bytes)]
        traceback = traceback.tb_next
    assert max(map(len, held)) < 100
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("data", "text", "replaced"),
    [
        ("grün".encode(), "grün", 0),
        (codecs.BOM_UTF8 + "grün".encode(), "grün", 0),
        ("grün".encode("utf-16"), "grün", 0),
        (codecs.BOM_UTF32_BE + "grün".encode("utf-32-be"), "grün", 0),
        ("grün".encode("cp1252"), "gr\ufffdn", 1),
        ("# -*- coding: latin-1 -*-\ngrün".encode("latin-1"), "# -*- coding: latin-1 -*-\ngrün", 0),
        ('<meta charset="cp1251">да'.encode("cp1251"), '<meta charset="cp1251">да', 0),
        (b"coding: nonsense \xff", "coding: nonsense \ufffd", 1),
        (b"coding: rot13 \xff", "coding: rot13 \ufffd", 1),
        (b"coding: latin-1 but utf-8: \xc3\xbc", "coding: latin-1 but utf-8: ü", 0),
        (codecs.BOM_UTF16_LE + b"a", "\ufffd", 1),
        (b"# coding: unicode_escape\n'\\ud800' \xff", "# coding: unicode_escape\n'\\ud800' \ufffd", 1),
        (b"", "", 0),
        (codecs.BOM_UTF8 + b'<meta charset="gbk">\xe4\xb8\x80', '<meta charset="gbk">一', 0),
        ('<meta charset="gbk">一'.encode("gbk"), '<meta charset="gbk">一', 0),
        (b"<meta charset=euc-jp>\xad\xa1\xb0\xa1", "<meta charset=euc-jp>①亜", 0),
        (b"<meta charset=iso-2022-jp>\x1b$B-!F|\x1b(B", "<meta charset=iso-2022-jp>①日", 0),
        (b"<meta charset=hz>~{VPND~}", "<meta charset=hz>中文", 0),
        (b"<meta charset=latin1>\x81\x93", "<meta charset=latin1>\x81“", 0),
        (b'<meta charset=sjis>\x81"\x82\xa0\x81', '<meta charset=sjis>\ufffd"あ\ufffd', 2),
        (codecs.BOM_UTF16_BE + b"\xd8\0\0a\xdc\0\0b", "\ufffda\ufffdb", 2),
    ],
)
def test_bytes_become_text(data, text, replaced):
    assert decode(data) == (text, replaced)


SAMPLES = {"utf-8": "grün", "shift_jis": "①", "euc-kr": "똠", "gbk": "镕", "big5": "香", "windows-874": "ก"}
CODECS = {"shift_jis": "cp932", "euc-kr": "cp949", "big5": "big5hkscs", "windows-874": "cp874"}


def test_every_label_of_the_web_has_its_encoding():
    """`replacement` is for what browsers refuse; where Python can read that, so do we."""
    for label in sorted(set(LABELS) - {"replacement", "iso-2022-cn", "iso-2022-cn-ext"}):
        name = LABELS[label]
        head = f'<meta charset="{label.upper()}">'.encode()
        if name in ("utf-16le", "utf-16be"):
            name = "utf-8"  # as these bytes are not
        sample = SAMPLES.get(name, "x")
        data = sample.encode(CODECS.get(name, name)) if sample != "x" else b"x"
        assert decode(head + data) == (head.decode() + sample, 0), label


@pytest.mark.parametrize(
    "head",
    [
        "<!-- <meta charset=koi8-r> -->",
        "<script>'<meta charset=koi8-r>'</script>",
        "<title><meta charset=koi8-r></title>",
        "<a title='<meta charset=koi8-r>'>",
        "<meta content='text/html; charset=koi8-r'>",
        "</meta charset=koi8-r>",
        "<metal charset=koi8-r>",
        "<!-- <meta charset=koi8-r>",
        " " * 1_024 + "<meta charset=koi8-r>",
    ],
)
def test_what_only_looks_like_a_declaration_is_none(head):
    assert decode(f"{head}да".encode(), "a.html") == (f"{head}да", 0)


@pytest.mark.parametrize(
    "head",
    [
        "<meta charset=koi8-r>",
        "<!--><meta charset=koi8-r>",
        "<META HTTP-EQUIV=Content-Type CONTENT='text/html; charset=koi8-r'>",
        "<meta charset='nonsense'><meta charset=' KOI8-R '>",
        "<?xml version='1.0' encoding='koi8-r'?>",
        "<script>1 < 2</script><meta/charset=koi8-r>",
    ],
)
def test_html_declares_its_encoding(head):
    assert decode(f"{head}да".encode("koi8-r"), "a.html") == (f"{head}да", 0)


def test_a_declaration_counts_where_it_is_one():
    """Python obeys its own coding line, HTML its `meta`; elsewhere text about encodings is text."""
    assert decode("# coding: latin-1\nü".encode(), "a.py") == ("# coding: latin-1\nÃ¼", 0)
    assert decode(b"x = 1\n# coding: latin-1\n\xfc", "a.py") == ("x = 1\n# coding: latin-1\n\ufffd", 1)
    assert decode("# coding: latin-1\nü".encode(), "a.md") == ("# coding: latin-1\nü", 0)
    assert decode(b".. -*- coding: latin-1-unix -*-\n\xfc", "a.rst") == (".. -*- coding: latin-1-unix -*-\nü", 0)
    assert decode("# coding: gbk\nü".encode(), "a.html") == ("# coding: gbk\nü", 0)


@pytest.mark.parametrize("data", [codecs.BOM_UTF8 + b"a\0b", "a\0b".encode("utf-16"), "a\0b".encode("utf-32")])
def test_a_nul_behind_a_byte_order_mark_is_one(data):
    with pytest.raises(ValueError, match=r"^not text: a NUL character at 1$"):
        decode(data)


@pytest.mark.parametrize("data", [b"\x7fELF\0\0", b"\0", "grün".encode("utf-16-le")])
def test_bytes_that_are_no_text_are_refused(data):
    with pytest.raises(ValueError, match=r"^not text: a NUL byte at \d+$"):
        decode(data)


def test_a_pipe_that_is_put_there_meanwhile_does_not_hold(tmp_path):
    path = tmp_path / "a.txt"
    path.touch()

    def exchange_and_open(name, flags):
        path.unlink()
        os.mkfifo(path)
        return os.open(name, flags)

    assert reason(listed(path), opener=exchange_and_open) == "no longer a regular file"


@pytest.mark.parametrize("exchanged", ["file", "directory"])
def test_a_link_that_is_put_there_meanwhile_is_not_followed(tmp_path, exchanged):
    for name in ("docs", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    path = tmp_path / "docs" / "a.txt"

    def exchange_and_open(name, flags):
        place = path if exchanged == "file" else path.parent
        place.rename(tmp_path / "away")
        place.symlink_to(tmp_path / "other" / "a.txt" if exchanged == "file" else tmp_path / "other")
        return os.open(name, flags)

    said = reason(
        listed(path), opener=exchange_and_open, allows=lambda place: place.startswith(str(tmp_path / "docs/"))
    )
    assert said == "a link that leads out of its tree, not followed"


def test_a_name_with_control_characters_is_one_line(tmp_path):
    """A terminal does what is in a name, and a log has one line for one event."""
    path = tmp_path / "a\x1b[31m\nb.txt"
    path.write_text("text")
    document = read(listed(path), max_size=LIMIT)
    (piece,) = document.pieces()
    assert (piece.title, "\n" in repr(piece)) == (r"a\x1b[31m\nb", False)
    path.unlink()
    with pytest.raises(DocumentError, match=r"a\\x1b\[31m\\nb\.txt: gone since"):
        read(document.file, max_size=LIMIT)
