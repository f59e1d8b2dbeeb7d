"""The commands: what they print, and their exit codes."""

import os
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

pytestmark = pytest.mark.slow


def test_a_question_needs_no_quotes(penstock, docs, indexed):
    indexed(docs)
    one, several = (penstock("search", "index.db", *words) for words in (["compress bytes"], ["compress", "bytes"]))
    assert one.out == several.out
    assert one.out.startswith("1. docs/gzip.py:1")
    assert penstock("search", "index.db", "-k", "1", "how", "are", "--json", "bytes").json[0]["path"]
    assert penstock("search", "index.db", "--", "--help").code == 0


@pytest.mark.quick
def test_embed_then_search(penstock, docs):
    done = penstock("embed", "docs", "--to", "index.db")
    assert done.code == 0
    assert done.out.startswith("index.db: 3 files and 3 chunks stored in ")
    assert (done.out + done.err).count("first document stored") <= 1
    assert "peak memory" in done.out
    found = penstock("search", "index.db", "compress bytes", "-k", "1")
    assert found.code == 0
    assert found.out.startswith("1. docs/gzip.py:1  compress  (0.0")
    assert found.out.count("\n") == 2
    assert found.err == ""


def test_a_second_run_skips_what_is_unchanged(penstock, docs, indexed):
    indexed(docs)
    (docs / "note.txt").unlink()
    done = penstock("embed", "docs", "--to", "index.db")
    assert done.code == 0
    assert re.match(r"index\.db: 0 files and 0 chunks stored in \d+\.\d s\n", done.out)
    assert "  2 files unchanged, skipped\n" in done.out
    assert "  1 file gone since, still in the index (--prune removes them):\n    docs/note.txt\n" in done.out


@pytest.mark.quick
def test_json_is_one_document_and_nothing_else(penstock, docs):
    (docs / "bad.txt").write_bytes(b"\0")
    done = penstock("embed", "docs", "--to", "index.db", "--json")
    assert done.code == 1
    assert (done.json["files"], done.json["failed"], done.json["interrupted"]) == (3, 1, False)
    assert done.json["failures"] == [{"path": str(docs / "bad.txt"), "reason": "not text: a NUL byte at 0"}]
    assert done.json["files_per_second"] > 0
    hits = penstock("search", "index.db", "C++", "--json").json
    assert hits[0]["path"] == str(docs / "note.txt")
    assert set(hits[0]) == {"path", "first_line", "last_line", "heading", "score", "snippet", "text"}


def test_the_options_reach_the_job(penstock, docs):
    options = ["--glob", "*.md", "--glob", "*.py", "--exclude", "gz*", "--concurrency", "1", "--max-file-size", "45"]
    report = penstock("embed", "docs", "--to", "index.db", *options, "--json").json
    assert (report["files"], report["failed"]) == (1, 0)
    report = penstock("embed", "docs", "--to", "other.db", "--max-file-size", "30", "--json").json
    assert (report["files"], report["failed"]) == (1, 2)


def test_memo_spares_what_has_not_changed(penstock, docs):
    parts = [f"# Part {n}\n\n" + "word " * 200 for n in range(5)]
    (docs / "parts.md").write_text("\n\n".join(parts))
    first = penstock("embed", "docs", "--to", "index.db", "--memo", "--json").json
    (docs / "parts.md").write_text("\n\n".join(["# Before\n\nThe new part.", *parts]))
    done = penstock("embed", "docs", "--to", "index.db", "--memo")
    assert first["recalled"] == 0
    assert f"  {first['chunks'] - 3} chunks not embedded again: their vectors were kept\n" in done.out


def test_on_error_raise_ends_with_the_first_failure(penstock, docs):
    (docs / "bad.txt").write_bytes(b"\0")
    done = penstock("embed", "docs", "--to", "index.db", "--on-error", "raise")
    assert done.code == 1
    assert "penstock: " in done.err
    assert "bad.txt: not text: a NUL byte at 0\n" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "docs"], "Missing option '--to'"),
        (["embed", "--to", "i.db"], "Missing argument 'PATH"),
        (
            ["embed", "docs", "--to", "i.db", "--concurrency", "0"],
            "penstock: --concurrency must be an int >= 1, got 0\n",
        ),
        (["embed", "docs", "--to", "i.db", "--concurrency", "x"], "Error: Invalid value for '--concurrency'"),
        (
            ["embed", "docs", "--to", "i.db", "--on-error", "skip"],
            "penstock: --on-error must be one of 'collect', 'raise', got 'skip'",
        ),
        (
            ["embed", "docs", "--to", "i.db", "--max-file-size", "0"],
            "penstock: --max-file-size must be an int >= 1, got",
        ),
        (["embed", "docs", "--to", ""], "penstock: --to must be a path, got ''\n"),
        (["search", "", "x"], "penstock: INDEX must be a path, got ''\n"),
        (["search", "i.db", ""], "penstock: the question is empty: nothing was asked\n"),
        (["search", "i.db", " ", "--json"], "penstock: the question is empty: nothing was asked\n"),
        (["embed", "docs", "nowhere", "--to", "i.db"], "penstock: nowhere: no such file or directory\n"),
        (["search", "i.db", "x"], "penstock: i.db: no such index; `penstock embed PATH --to i.db` makes one\n"),
        (["search", "docs", "x"], "penstock: docs: a directory, not a database\n"),
        (["search", "docs/note.txt", "x"], "penstock: docs/note.txt: not "),
        (["search", "i.db", "x", "-k", "0"], "penstock: -k must be an int >= 1, got 0\n"),
        (["nonsense"], "No such command"),
    ],
)
def test_bad_usage_is_one_clear_line_and_2(penstock, docs, tmp_path, arguments, message):
    done = penstock(*arguments)
    assert done.code == 2
    assert message in done.err
    assert done.out == ""
    assert not (tmp_path / "i.db").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "matches *.md *.txt *.rst *.py *.html (--glob)\n"),
        (["--glob", "*.a", "--glob", "*.b"], "matches *.a *.b (--glob)\n"),
        (["--exclude", "*.md"], "(--glob) and is not left out (--exclude)\n"),
    ],
)
def test_where_nothing_matches_it_says_so(penstock, tmp_path, options, words):
    (tmp_path / "empty").mkdir()
    done = penstock("embed", "empty", "--to", "index.db", *options)
    assert done.code == 1
    assert done.err.startswith("penstock: no file under empty matches ")
    assert done.err.endswith(words)


@pytest.mark.parametrize("question", ['"C++ AND', "NEAR(", "caf\udce9 🙂"])
def test_any_text_is_a_question(penstock, docs, indexed, question):
    indexed(docs)
    done = penstock("search", "index.db", question)
    assert done.code == 0
    assert done.out.startswith("1. ")


def test_what_is_printed_holds_no_control_characters(penstock, docs):
    """A file name or a document must not write to the terminal by itself."""
    (docs / "\x1b[31mred\n.txt").write_text("escape \x1b[2J sequences \x07 ring")
    (docs / "caf\udce9.txt").write_text("a name that is no UTF-8")
    assert penstock("embed", "docs", "--to", "index.db").code == 0
    found = penstock("search", "index.db", "escape sequences ring", "-k", "1").out
    assert "\x1b" not in found
    assert "docs/\\x1b[31mred\\n.txt:1" in found
    assert "escape \\x1b[2J sequences \\x07 ring" in found
    assert "docs/caf\\udce9.txt:1" in penstock("search", "index.db", "a name that is no UTF-8", "-k", "1").out


def test_output_fits_any_encoding(penstock, docs, indexed):
    (docs / "grün.md").write_text("# Grün 漢字\n\ncompress bytes\n")
    narrow = {"env": os.environ | {"PYTHONIOENCODING": "latin-1"}, "encoding": "latin-1"}
    indexed(docs)
    done = penstock("search", "index.db", "Grün 漢字", **narrow)
    assert done.code == 0
    assert "docs/grün.md:1  Grün \\u6f22\\u5b57" in done.out


def test_a_reader_that_leaves_early_is_no_error(docs, indexed, tmp_path):
    indexed(docs)
    command = f"{sys.executable} -m penstock search index.db compress | true"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_the_version_is_that_of_the_package(penstock):
    assert penstock("--version").out == f"penstock {version('penstock')}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["embed", "--help"], ["search", "-h"]])
def test_help_shows_examples_and_needs_nothing_heavy(penstock, arguments):
    """Help must be quick: what takes long to import comes with the work."""
    code = (
        "import sys\nfrom penstock.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "print(sorted({'rich', 'numpy', 'apsw', 'lxml', 'httpx', 'pydantic', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")
    assert "Usage: " in done.stdout
    assert "penstock" in done.stdout
    assert re.search(r"\n +penstock \w+ \w+.*(\.db|--to)", done.stdout)


@pytest.mark.parametrize(
    "arguments", [["runs", "none.db"], ["search", "none.db", "x"], ["export", "none.db", "--to", "x.csv"]]
)
def test_values_are_checked_without_pydantic(tmp_path, arguments):
    """It takes longer to load than most commands run."""
    code = (
        "import sys\nfrom penstock.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert end.code\n"
        "print(sorted({'rich', 'lxml', 'httpx', 'pydantic'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "[]\n"


@pytest.mark.skipif(sys.platform != "linux" or os.cpu_count() == 1, reason="threads are counted in /proc")
def test_a_search_starts_no_threads_of_numpy(penstock, tmp_path):
    """They take 0.12 s of processor time before they have done anything."""
    (tmp_path / "page.md").write_text("# Words\n\nto compress bytes")
    assert penstock("embed", "page.md", "--to", "words.db").code == 0
    code = (
        "import os, sys\nfrom penstock.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "assert 'numpy' in sys.modules\nprint(len(os.listdir('/proc/self/task')))"
    )
    command = [sys.executable, "-c", code, "search", "words.db", "bytes"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "1"


@pytest.mark.parametrize(
    ("command", "usage"), [("search", "INDEX QUESTION..."), ("status", "DB [RUN]"), ("embed", "PATH...")]
)
def test_the_usage_shows_what_may_be_left_out_and_what_repeated(penstock, command, usage):
    assert penstock(command, "--help").out.startswith(f"Usage: penstock {command} [OPTIONS] {usage}\n")


def test_no_command_is_the_help(penstock):
    done = penstock()
    assert "Usage: " in done.out + done.err
    assert "embed" in done.out + done.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("click", ["--help"], "cli"),
        ("numpy", ["embed", ".", "--to", "i.db"], "embed"),
        ("apsw", ["search", "i.db", "x"], "embed"),
        ("sqlite_vec", ["search", "i.db", "x"], "embed"),
        ("lxml", ["embed", ".", "--to", "i.db"], "embed"),
        ("markdown_it", ["embed", ".", "--to", "i.db"], "embed"),
        ("webencodings", ["embed", ".", "--to", "i.db"], "embed"),
        ("httpx", ["embed", ".", "--to", "i.db", "--embedder", "openai:m", "--base-url", "http://h"], "openai"),
        ("httpx", ["search", "i.db", "x", "--embedder", "openai:m", "--base-url", "http://h"], "openai"),
        ("numpy", ["embed", ".", "--to", "i.db", "--embedder", "openai:m"], "embed"),
    ],
)
def test_a_missing_library_says_what_to_install(tmp_path, missing, arguments, extra):
    code = f"import sys; sys.modules[{missing!r}] = None; from penstock.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert f"needs {missing}: pip install 'penstock[{extra}]'" in done.stderr
    assert list(tmp_path.iterdir()) == []
