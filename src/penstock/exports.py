"""Imports the names of a package when they are first used: the libraries behind them are slow, or extras."""

import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def exports(
    package: str,
    homes: Mapping[str, Iterable[str]],
    extras: Mapping[str, str],
    *,
    modules: Iterable[str] = (),
    extras_of: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of `package`, whose names live in the modules that are the keys of `homes`.

    `extras` maps libraries to the extra of penstock that installs them: if one is missing, the error names the extra.
    `extras_of` has others for the homes in a package, by its name. `modules` are those of the package that need no
    import of their own.
    """
    parts = set(modules)
    rooms: Mapping[str, Mapping[str, str]] = extras_of or {}
    home_of = {name: home for home, names in homes.items() for name in names}

    def imported(name: str) -> Any:
        if name in parts:
            return import_module(f"{package}.{name}")
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = home_of[name]
        special: Mapping[str, str] = rooms.get(home.rpartition(".")[0], {})
        with naming_extras(f"{package}.{name}", {**extras, **special}):
            value = getattr(import_module(home), name)
        setattr(sys.modules[package], name, value)
        return value

    return imported, lambda: sorted({*home_of, *parts, *vars(sys.modules[package])})


def installed(names: Iterable[str], users_of: Mapping[str, Iterable[str]]) -> list[str]:
    """Return `names` without the users of libraries that are missing: so `import *` takes what there is."""
    missing = {name for library, users in users_of.items() if find_spec(library) is None for name in users}
    return [name for name in names if name not in missing]


@contextmanager
def naming_extras(name: str, extras: Mapping[str, str]) -> Generator[None]:
    """Import what `name` needs inside this block: the error of a missing library names the extra that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        extra = extras.get(error.name or "")
        if extra is None:
            raise
        raise ModuleNotFoundError(
            f"{name} needs {error.name}: pip install 'penstock[{extra}]'", name=error.name
        ) from error
