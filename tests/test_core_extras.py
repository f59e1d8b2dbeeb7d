"""Names behind extras: a missing library says what to install, and anything else that is missing is itself."""

import sys

import pytest

from penstock.core.extras import imported


@pytest.fixture
def homes(tmp_path, monkeypatch):
    """A function that makes a module of that text."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)

    yield make
    sys.modules.pop("home_of_thing", None)


def test_a_name_is_that_of_its_home(homes):
    homes("home_of_thing", "thing = 1")
    assert imported("penstock", "thing", "home_of_thing") == 1


@pytest.mark.parametrize(("library", "extra"), [("apsw", "durable"), ("sqlite_vec", "durable"), ("numpy", "embed")])
def test_a_missing_library_says_what_to_install(homes, monkeypatch, library, extra):
    homes("home_of_thing", f"import {library}\nthing = 1")
    monkeypatch.setitem(sys.modules, library, None)
    message = rf"penstock\.sinks\.thing needs {library}: pip install 'penstock\[{extra}\]'"
    with pytest.raises(ModuleNotFoundError, match=message) as caught:
        imported("penstock.sinks", "thing", "home_of_thing")
    assert caught.value.name == library


def test_another_module_that_is_missing_is_what_is_missing(homes):
    homes("home_of_thing", "import no_such_module_at_all")
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_module_at_all'"):
        imported("penstock.sinks", "thing", "home_of_thing")
