"""The documents say what is true: errors and their bases, links, what a program prints."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import penstock
from penstock.core import errors

DOCS = Path(__file__).parent.parent / "docs"
ROWS = re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \|", (DOCS / "errors.md").read_text(), re.MULTILINE)
ERRORS = [
    name
    for name, each in vars(errors).items()
    if isinstance(each, type) and issubclass(each, Exception) and each.__module__ == errors.__name__
]


def test_every_error_is_documented_and_public():
    assert [name for name, _ in ROWS] == ERRORS
    assert set(ERRORS) <= set(penstock.__all__)


@pytest.mark.parametrize(("name", "bases"), ROWS)
def test_its_bases_are_as_documented(name, bases):
    assert [base.__name__ for base in getattr(errors, name).__bases__] == re.findall(r"\w+", bases)


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda path: path.name)
def test_links_to_headings_lead_to_one(path):
    for link, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", path.read_text()):
        text = ((path.parent / link) if link else path).read_text()
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        headings = re.findall(r"^##+ (.+)$", prose.lower(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}, link


def test_every_page_has_its_place_on_the_site():
    """`make site` fails where one has none."""
    listed = re.findall(r"^(?:.* <)?([\w./-]+)>?$", (DOCS / "index.md").read_text(), re.MULTILINE)
    assert {path.stem for path in DOCS.glob("*.md")} - {"index"} <= set(listed)


def programs(path):
    """The programs of a document, and what stands below each: nothing where it prints nothing."""
    blocks = re.findall(
        r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", path.read_text(), re.MULTILINE | re.DOTALL
    )
    assert path.read_text().count("```python\n") == len(blocks)
    return blocks


def is_of_a_notebook(program):
    return re.search(r"^\w+ = await ", program, re.MULTILINE) is not None


QUICK = {"limits.md", "memo.md", "sources.md", "tasks.md"}
PROGRAMS = [
    pytest.param(*each, id=f"{path.stem}-{number}", marks=[] if path.name in QUICK else [pytest.mark.slow])
    for path in sorted(DOCS.glob("*.md"))
    if path.name != "patterns.md"  # tests/test_patterns.py runs those
    for number, each in enumerate(programs(path), 1)
    if not is_of_a_notebook(each[0])
]


@pytest.mark.parametrize(("program", "output"), PROGRAMS)
def test_a_program_prints_what_stands_below_it(program, output, tmp_path, request):
    """Every program of every document, in a file and a process of its own, with warnings as errors."""
    if "http://127.0.0.1:8000" in program:
        program = program.replace("http://127.0.0.1:8000", request.getfixturevalue("demo_server"))
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-W", "error", "program.py"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", output)


NOTEBOOK = """
import sys, nbclient, nbformat
cells = [nbformat.v4.new_code_cell(cell) for cell in sys.argv[1:]]
notebook = nbclient.NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=60).execute()
print("".join(output["text"] for cell in notebook.cells for output in cell.outputs), end="")
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("nbclient") is None or find_spec("ipykernel") is None, reason="needs a notebook")
def test_the_cells_of_a_notebook_run_in_one(demo_server, tmp_path):
    """In a real kernel, where `await` stands by itself and `sync()` has a loop beside that of the notebook."""
    ((program, output),) = [each for each in programs(DOCS / "recipes.md") if is_of_a_notebook(each[0])]
    in_sync = "with penstock.stream([1, 2]).map(lambda n: n + 1).sync() as items:\n    print(list(items))"
    cells = [program.replace("http://127.0.0.1:8000", demo_server), in_sync]
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK, *cells], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, f"{output}[2, 3]\n"), done.stderr


@pytest.mark.real_time
async def test_stages_that_users_have_not_made_are_explained(tmp_path):
    """Every stage of a run over lines of JSON that bears no name of the stream is one that statistics.md names."""
    (tmp_path / "lines.jsonl").write_text("1\n")
    lines = penstock.jsonl(tmp_path / "lines.jsonl").map_batches(lambda numbers: [{"n": n} for n in numbers], 64)
    report = await lines.to(penstock.SqliteTable(tmp_path / "out.db", "numbers"), run="lines")
    own = [stage.name for stage in report.stats][:-1]
    text = (DOCS / "statistics.md").read_text()
    assert own == ["jsonl", "resume", "json", "batch(64)"]
    assert all(f"`{name}`" in text for name in own)
