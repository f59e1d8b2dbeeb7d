"""Names that a package imports when they are first used: a missing library says what to install."""

import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import penstock
from penstock.exports import exports


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that makes a package whose name `thing` lives in a module of that text."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "home_of_thing", raising=False)
    made = ModuleType("penstock.made")
    monkeypatch.setitem(sys.modules, made.__name__, made)

    def make(text):
        (tmp_path / "home_of_thing.py").write_text(text)
        homes, extras = {"home_of_thing": ("thing", "another")}, {"apsw": "durable"}
        made.__getattr__, made.__dir__ = exports(made.__name__, homes, extras)
        return made

    yield make
    sys.modules.pop("home_of_thing", None)


def test_a_name_is_that_of_its_home_and_is_looked_up_once(package):
    made = package("thing = 1")
    assert made.thing == 1
    assert vars(made)["thing"] == 1


def test_the_names_can_be_listed_before_they_are_imported(package):
    made = package("raise RuntimeError")
    assert {"another", "thing", "__name__"} <= set(dir(made))


def test_a_name_that_no_home_has_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match=r"module 'penstock\.made' has no attribute 'think'"):
        package("thing = 1").think  # noqa: B018 -- the access is the test


def test_a_missing_library_says_what_to_install(package, monkeypatch):
    made = package("import apsw\nthing = 1")
    monkeypatch.setitem(sys.modules, "apsw", None)
    message = r"penstock\.made\.thing needs apsw: pip install 'penstock\[durable\]'"
    with pytest.raises(ModuleNotFoundError, match=message) as caught:
        made.thing  # noqa: B018 -- the access is the test
    assert caught.value.name == "apsw"


@pytest.mark.parametrize(
    ("use", "library", "message"),
    [
        (
            "workflows.make_thumbnails",
            "apsw",
            "penstock.workflows.make_thumbnails needs apsw: pip install 'penstock[images]'",
        ),
        ("workflows.fetch", "apsw", "penstock.workflows.fetch needs apsw: pip install 'penstock[fetch]'"),
        ("workflows.embed", "apsw", "penstock.workflows.embed needs apsw: pip install 'penstock[embed]'"),
        ("testing.new_loop('uvloop')", "uvloop", "loop='uvloop' needs uvloop: pip install 'penstock[uvloop]'"),
    ],
)
def test_the_extra_that_is_named_brings_all_that_the_use_needs(use, library, message):
    """One that has the library alone would be the first of several."""
    code = f"import sys, penstock; sys.modules[{library!r}] = None\ntry: penstock.{use}\n"
    assert python(f"{code}except ModuleNotFoundError as error: print(error)") == message


@pytest.mark.parametrize("package", ["penstock", "penstock.sinks"])
@pytest.mark.parametrize(
    ("missing", "absent"),
    [
        ([], set()),
        (["psycopg"], {"PostgresTable"}),
        (["numpy"], {"SqliteVectors"}),
        (["sqlite_vec"], {"SqliteVectors"}),
        (["apsw"], {"SqliteTable", "SqliteVectors"}),
        (["apsw", "numpy", "psycopg"], {"SqliteTable", "SqliteVectors", "PostgresTable"}),
    ],
)
def test_import_star_takes_what_is_installed(package, missing, absent):
    hide = f"import sys; sys.modules.update(dict.fromkeys({missing!r}))"
    names = set(python(f"{hide}; from {package} import *; print(*dir())").split())
    assert {"SqliteTable", "SqliteVectors", "PostgresTable"} - names == absent


def test_another_module_that_is_missing_is_what_is_missing(package):
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_module_at_all'"):
        package("import no_such_module_at_all").thing  # noqa: B018 -- the access is the test


MODULES = ["durable", "engines", "sinks", "tasks", "testing", "workflows"]


def python(code):
    """What a fresh interpreter prints."""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stderr == ""
    return ran.stdout.strip()


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_there_after_import_penstock(module):
    assert python(f"import penstock; print(penstock.{module}.__name__)") == f"penstock.{module}"
    assert python(f"from penstock import {module}; print({module}.__name__)") == f"penstock.{module}"


def test_modules_and_names_can_be_listed_before_they_are_imported():
    listed = python("import sys, penstock; print(*dir(penstock)); print(*sys.modules)").split("\n")
    assert {*MODULES, *penstock.__all__, "__doc__"} <= set(listed[0].split())
    assert {name for name in listed[1].split() if name.startswith("penstock")} == {"penstock", "penstock.exports"}


def test_no_module_hides_a_name():
    """A submodule that is imported becomes an attribute of its package."""
    assert not {module.name for module in pkgutil.iter_modules(penstock.__path__)} & set(penstock.__all__)


@pytest.mark.parametrize("name", ["Stats", "StageStats", "Latency", "SyncRun"])
def test_what_runs_give_has_public_names(name):
    assert name in penstock.__all__
    assert getattr(penstock, name).__name__ == name


def test_a_search_loads_no_scheduler():
    """Asyncio and the operators took longer to load than an index of 10,000 chunks to search."""
    code = "import sys, penstock.cli.searching, penstock.workflows.documents.search; print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not {"asyncio", "penstock.core.scope", "penstock.ops.operator"} & set(printed.split())
