"""The examples do what their first lines say, and end well when they are interrupted, killed or told nonsense."""

import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from .flow.model_server import ModelServer, openai_document, whole

pytestmark = pytest.mark.slow


EXAMPLES = Path(__file__).parent.parent / "examples"
PROGRAMS = sorted(path for path in EXAMPLES.glob("*.py") if "__main__" in path.read_text())

needs_pillow = pytest.mark.skipif(find_spec("PIL") is None, reason="needs Pillow")
needs_httpx = pytest.mark.skipif(find_spec("httpx") is None, reason="needs httpx")

# fsync waits for the end of stdin: until then, a file is written and not yet in its place
HELD_AT_FSYNC = r"""
import logging, os, runpy, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
os.fsync = lambda file: (os.write(1, b"written\n"), os.read(0, 1))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

# the kernel kills the process in the midst of a write, after so many bytes
KILLED_AT_BYTE = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
sys.argv = sys.argv[1:]
sys.dont_write_bytecode = True
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(name, *arguments):
    return subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def started(*arguments):
    """A program that is killed at the end, if it is still there."""
    command = [sys.executable, "-W", "error", *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        try:
            yield program
        finally:
            program.kill()


@pytest.mark.quick
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_its_first_lines_say_how_to_run_it(path):
    assert f"python examples/{path.name}" in path.read_text().split('"""')[1]


@pytest.mark.slow
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_help_tells_what_it_takes(path):
    for library in re.findall(r"^(?:import|from) (httpx|PIL)\b", path.read_text(), re.MULTILINE):
        pytest.importorskip(library)
    done = run(path.name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {path.name}")


@pytest.mark.parametrize("name", ["index_documents.py", "tidy_files.py"])
def test_without_what_it_needs_it_says_so(name):
    done = run(name)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"usage: {name}")
    assert "the following arguments are required" in done.stderr


@pytest.fixture
def folder(tmp_path):
    """Twenty files of 20 KB that need to be tidied."""
    for number in range(20):
        (tmp_path / f"{number:02}.txt").write_text(untidy(number))
    return tmp_path


def untidy(number):
    return f"line {number} \t \n" * 2000 + "\n\n"


def tidied(number):
    return f"line {number}\n" * 2000


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def texts(folder):
    return [(folder / f"{number:02}.txt").read_text() for number in range(20)]


OLD = [untidy(number) for number in range(20)]
NEW = [tidied(number) for number in range(20)]


def test_tidy_files_tidies_and_a_second_run_finds_nothing_to_do(folder):
    before = names(folder)
    (folder / "00.txt").chmod(0o640)
    done = run("tidy_files.py", folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "20 files, 20 changed, 0 failed\n", "")
    assert (texts(folder), names(folder)) == (NEW, before)
    assert (folder / "00.txt").stat().st_mode & 0o777 == 0o640
    assert run("tidy_files.py", folder).stdout == "20 files, 0 changed, 0 failed\n"


def test_tidy_files_names_what_it_cannot_read_and_goes_on(folder):
    (folder / "bad.txt").write_bytes(b"\xff \n")
    (folder / "sub").mkdir()
    (folder / "sub" / "empty.txt").write_text(" \n")
    (folder / "other.md").write_text("a \n")
    done = run("tidy_files.py", folder)
    assert (done.returncode, done.stdout) == (1, "22 files, 21 changed, 1 failed\n")
    assert done.stderr.startswith(f"{folder / 'bad.txt'}: 'utf-8' codec can't decode")
    assert (folder / "bad.txt").read_bytes() == b"\xff \n"
    assert (folder / "sub" / "empty.txt").read_text() == ""
    assert (folder / "other.md").read_text() == "a \n"


def test_tidy_files_killed_between_write_and_replace_leaves_every_file_whole(folder):
    """SIGKILL with four files written and not in their places: all are as they were, and the next run tidies up."""
    with started("-c", HELD_AT_FSYNC, EXAMPLES / "tidy_files.py", folder, "--concurrency", 4) as program:
        for _ in range(4):
            assert program.stdout.readline() == "written\n"
        program.send_signal(signal.SIGKILL)
        assert program.wait(60) == -signal.SIGKILL
    assert texts(folder) == OLD
    assert len(names(folder)) == 24
    assert run("tidy_files.py", folder).stdout == "20 files, 20 changed, 0 failed\n"
    assert (texts(folder), len(names(folder))) == (NEW, 20)


def test_tidy_files_killed_in_the_midst_of_a_write_leaves_no_half_file(folder):
    with started("-c", KILLED_AT_BYTE, EXAMPLES / "tidy_files.py", folder) as program:
        assert program.wait(60) == -signal.SIGXFSZ
    assert all(text in pair for text, *pair in zip(texts(folder), OLD, NEW, strict=True))
    (half, *_) = [name for name in names(folder) if name.endswith(".unfinished")]
    assert (folder / half).stat().st_size <= 10_000
    run("tidy_files.py", folder)
    assert (texts(folder), len(names(folder))) == (NEW, 20)


def test_tidy_files_finishes_the_files_at_hand_on_ctrl_c(folder):
    with started("-c", HELD_AT_FSYNC, EXAMPLES / "tidy_files.py", folder, "--concurrency", 2) as program:
        assert [program.stdout.readline() for _ in range(2)] == ["written\n"] * 2
        program.send_signal(signal.SIGINT)
        assert program.stdout.readline().startswith("SIGINT: what is in flight is finished")
        out, err = program.communicate(timeout=60)
    assert (program.returncode, out) == (130, "2 files, 2 changed, 0 failed\n")
    assert err == "stopped; start again to go on\n"
    assert sum(text == new for text, new in zip(texts(folder), NEW, strict=True)) == 2
    assert len(names(folder)) == 20


@needs_httpx
def test_user_page_shows_the_four_parts():
    done = run("user_page.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [
        "profile",
        "orders",
        "recommendations",
        "settings",
    ]


@pytest.mark.quick
@needs_httpx
def test_user_page_fails_fast():
    """P4: one part fails, another never comes: the program ends all the same, and shows nothing of a page."""
    done = run("user_page.py", "--user", 2)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"no page for user 2: Server error '500 Internal Server Error' for url .*/users/2/orders'\n", done.stderr
    )


@needs_httpx
def test_check_health_says_of_each_service_how_it_is_and_how_long_that_took():
    done = run("check_health.py")
    assert (done.returncode, done.stderr) == (1, "")
    rows = [re.fullmatch(r"(\w+) +(\d+) ms  (.+)", line).groups() for line in done.stdout.splitlines()]
    assert [(name, status) for name, _, status in rows] == [
        ("shop", "up"),
        ("search", "down: timeout"),
        ("mail", "down: 500 Internal Server Error"),
        ("stock", "down: no connection"),
    ]
    assert int(rows[1][1]) >= 1000


@pytest.mark.slow
@needs_httpx
@needs_pillow
def test_resize_images_uploads_three_sizes_of_each_but_the_broken_one():
    done = run("resize_images.py")
    assert re.fullmatch(r"33 uploaded, \d+ bytes\n", done.stdout)
    assert re.fullmatch(r"stage 'flat_map\(thumbnails\)', item 11: UnidentifiedImageError\(.+\)\n", done.stderr)
    assert done.returncode == 1


@needs_httpx
@needs_pillow
def test_resize_images_names_the_images_that_there_are_not():
    done = run("resize_images.py", "http://127.0.0.1:1", "cat.png")
    assert (done.returncode, done.stdout) == (1, "0 uploaded, 0 bytes\n")
    assert "item 0, attempt 3: ConnectError" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["tidy_files.py", "/nowhere/at/all"], "/nowhere/at/all is not a folder"),
        (["tidy_files.py", EXAMPLES, "--concurrency", "0"], "--concurrency must be at least 1, got 0"),
        (["index_documents.py", "/nowhere/at/all", "what?"], "/nowhere/at/all is not a folder"),
        pytest.param(["check_health.py", "shop"], "a service must be NAME=URL", marks=needs_httpx),
        pytest.param(["check_health.py", "--timeout", "0"], "--timeout must be > 0, got 0.0", marks=needs_httpx),
    ],
)
def test_nonsense_is_refused_in_a_line(command, message):
    done = run(*command)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@needs_httpx
@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://["])
def test_user_page_says_in_a_line_that_there_is_no_server(url):
    done = run("user_page.py", url)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"no page for user 1: .+\n", done.stderr)


@needs_httpx
@pytest.mark.parametrize("name", ["user_page.py", "check_health.py"])
def test_ctrl_c_ends_it_without_a_traceback(name):
    """It waits for a server that has taken the call and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        arguments = [url] if name == "user_page.py" else [f"shop={url}", "--timeout", "600"]
        with started(EXAMPLES / name, *arguments) as program:
            connection, _ = server.accept()
            with connection:
                assert connection.recv(3) == b"GET"
                program.send_signal(signal.SIGINT)
                out, err = program.communicate(timeout=60)
    assert (program.returncode, out, err) == (130, "", "")


def test_load_sales_loads_each_line_once_and_totals_them(tmp_path):
    (tmp_path / "1.csv").write_text("shop,cents\na,100\nb,250\n")
    (tmp_path / "2.csv").write_text("shop,cents\na,50\n")
    options = ["--database", tmp_path / "out.db", "--workspace", tmp_path / "work"]
    totals = "a: 150 cents\nb: 250 cents\nlargest: b, 250 cents\n"
    done = run("load_sales.py", tmp_path, *options)
    assert (done.stderr, done.stdout) == ("", f"2 files are new or have changed\n{totals}")
    done = run("load_sales.py", tmp_path, *options)
    assert (done.returncode, done.stdout) == (0, f"0 files are new or have changed\n{totals}")
    (tmp_path / "2.csv").write_text("day,shop\n")
    done = run("load_sales.py", tmp_path, *options)
    assert (done.returncode, "2.csv must have a column 'cents', got ['day', 'shop']" in done.stderr) == (1, True)


def test_build_pages_compiles_what_has_changed_alone(tmp_path):
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\nsome words\n")
    options = ["--out", tmp_path / "pages.html", "--workspace", tmp_path / "work"]
    done = run("build_pages.py", tmp_path, *options)
    assert (done.stderr, done.stdout.split(":")[0]) == ("", "3 pages, 3 compiled")
    assert "<h1>two</h1><p>some words</p>" in (tmp_path / "pages.html").read_text()
    (tmp_path / "two.txt").write_text("two\nother words\n")
    assert run("build_pages.py", tmp_path, *options).stdout.startswith("3 pages, 1 compiled")


@pytest.mark.slow
def test_write_article_asks_the_model_once_for_each_text_and_the_editor_for_each_draft(tmp_path, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-nothing")
    texts = ["sources\nmouths", "On sources.", "On mouths.", "First draft.", "Second draft."]
    with ModelServer(*(whole(openai_document(text)) for text in texts)) as server:
        options = ["rivers", "--url", f"{server.url}/v1", "--workspace", tmp_path]
        done = run("write_article.py", *options)
        assert (done.returncode, done.stdout) == (4, "First draft.\n"), done.stderr
        done = run("write_article.py", *options, "--feedback", "Shorter.")
        assert (done.returncode, done.stdout) == (4, "Second draft.\n"), done.stderr
        done = run("write_article.py", *options, "--accept")
        assert (done.returncode, done.stdout) == (0, "Second draft.\n"), done.stderr
    assert "5 requests" in done.stderr


@pytest.mark.quick
def test_01_basic_looks_up_what_it_can_and_names_the_rest():
    done = run("01_basic.py")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "192.0.2.1 is in 192.0.2.0/24",
        "192.0.2.2 is in 192.0.2.0/24",
        "198.51.100.7 is in 198.51.100.0/24",
        "2001:db8::1 is in 2001:db8::/64",
        "failed: '192.0.2.300' does not appear to be an IPv4 or IPv6 address",
    ]
    assert run("01_basic.py", "10.0.0.1").returncode == 0


def test_02_parallel_fills_its_places_and_no_more():
    done = run("02_parallel.py", "--calls", "40", "--concurrency", "4")
    assert (done.returncode, done.stderr) == (0, "")
    assert [re.sub(r" +[\d.]+ s, ", ": ", line) for line in done.stdout.splitlines()] == [
        "one after another: at most 1 at once",
        "at once, in order: at most 4 at once",
        "in order, with a buffer: at most 4 at once",
        "as they finish: at most 4 at once",
    ]


@pytest.mark.parametrize("rows", [pytest.param(20_000, marks=pytest.mark.quick), 100_000])
def test_03_large_dataset_takes_no_more_memory_for_more_rows(rows, tmp_path):
    """From its first tenth on. All rows together would take 3 MiB and more for each ten thousand."""
    done = run("03_large_dataset.py", "--rows", rows, "--to", tmp_path / "measured.db")
    assert (done.returncode, done.stderr) == (0, "")
    *tenths, last = done.stdout.splitlines()
    assert last.startswith(f"{rows - rows // 1000:,} rows stored, {rows // 1000:,} broken lines left out")
    peaks = [int(number) for number in re.findall(r"memory (\d+) MiB", done.stdout)]
    assert len(peaks) == len(tenths) + 1 == 10
    assert peaks[-1] - peaks[0] <= 2
