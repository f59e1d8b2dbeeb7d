"""Names that a package imports when they are first used: a missing library says what to install."""

import sys
from types import ModuleType

import pytest

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
    assert dir(made) == ["another", "thing"]


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


def test_another_module_that_is_missing_is_what_is_missing(package):
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_module_at_all'"):
        package("import no_such_module_at_all").thing  # noqa: B018 -- the access is the test
