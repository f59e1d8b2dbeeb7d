"""The rules of the house: imports go down only, one scheduler, a bare import that costs nothing."""

import ast
import importlib
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import penstock
import penstock.core.stage

SOURCE = Path(penstock.__file__).parent

FLOORS = (
    ("exports", "retry_after"),
    ("core",),
    ("testing",),
    ("engines",),
    ("ops",),
    ("signals", "progress", "tracing"),
    ("run",),
    ("durable",),
    ("sync",),
    ("readable",),
    ("streams",),
    ("functions",),
    ("tasks",),
    ("sources", "sinks"),
    ("flow",),
    ("workflows",),
    ("cli",),
    ("__main__",),
)
"""From the cellar up; a module may import from its own floor and those below."""

STARTERS = {"penstock.core.window", "penstock.core.scope"}
"""The only modules that may start tasks, but for the test kit."""

STARTS_TASKS = re.compile(r"create_task|ensure_future|asyncio\.Task\(|TaskGroup\(|asyncio\.gather\(|as_completed\(")


def name_of(path):
    return ".".join(("penstock", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(SOURCE.rglob("*.py"))}


def imported_by(name):
    """The modules of this package that a module imports, also for its types alone."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            each_one = (f"{node.module}.{alias.name}" for alias in node.names)
            found.update(one if one in MODULES else node.module for one in each_one)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {one for one in found if one in MODULES} - {name}


IMPORTS = {name: imported_by(name) for name in MODULES}


def floor_of(name):
    """The number of the floor that a module is on; the package itself, which names what is public, is the roof."""
    _, _, within = name.partition(".")
    room = within.partition(".")[0]
    return next(number for number, rooms in enumerate((*FLOORS, ("",))) if room in rooms)


def test_imports_go_down_only():
    above = {(name, one) for name, found in IMPORTS.items() for one in found if floor_of(one) > floor_of(name)}
    assert above == set()


def test_imports_make_no_circle():
    """What is taken away while it imports nothing that is left; a circle stays. Imports for types count."""
    left = dict(IMPORTS)
    while loose := [name for name, found in left.items() if not found & left.keys()]:
        for name in loose:
            del left[name]
    assert left == {}


def test_durable_runs_know_no_database():
    """What they ask of one stands in `durable/store.py`; only who is given a path looks for SQLite."""
    rooms = {name for name in MODULES if name.startswith("penstock.durable") and ".sqlite" not in name}
    assert {name for name in rooms if any(".sqlite" in one for one in IMPORTS[name])} == {"penstock.durable.journals"}
    assert [name for name in rooms if re.search(r"(?m)^\s*(import|from) apsw", MODULES[name].read_text())] == []


def test_only_the_window_and_the_scope_start_tasks():
    started = {name for name, path in MODULES.items() if STARTS_TASKS.search(path.read_text())}
    assert {name for name in started if not name.startswith("penstock.testing")} <= STARTERS


def test_a_stage_has_slots_alone():
    """A `__dict__` beside slots makes each look at an attribute slow: an item of `map_batches` cost a third more."""
    importlib.import_module("penstock.durable.resume")
    importlib.import_module("penstock.tasks.feed")
    stages = {penstock.core.stage.Stage}
    while more := {each for stage in stages for each in stage.__subclasses__()} - stages:
        stages |= more
    assert {stage for stage in stages if stage.__dictoffset__ and stage.__module__.startswith("penstock.")} == set()


def test_every_public_name_is_where_the_package_says():
    for name in penstock.__all__:
        assert getattr(penstock, name).__doc__ or name == "OnError", name
    assert sorted(penstock.__all__) == list(penstock.__all__)
    assert set(penstock.__all__) <= set(dir(penstock))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'penstock' has no attribute 'strean'"):
        penstock.strean  # noqa: B018 -- the access is the test


def test_errors_of_penstock_share_a_base():
    errors = importlib.import_module("penstock.core.errors")
    for name in penstock.__all__:
        value = getattr(penstock, name)
        if isinstance(value, type) and issubclass(value, Exception) and not issubclass(value, Warning):
            assert issubclass(value, errors.PenstockError)


def test_a_bare_import_brings_neither_asyncio_nor_third_parties():
    """`import penstock` is cheap: everything heavy comes with the first use of a name."""
    code = (
        "import sys; before = set(sys.modules); import penstock; "
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)));"
        "print('asyncio' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["['penstock']", "False"]


def test_the_core_needs_only_python():
    """Streams run where nothing but the standard library is installed."""
    code = (
        "import sys, asyncio, penstock; penstock.stream; "
        "print(sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names) - {'penstock'}))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=SOURCE.parent
    )
    assert [name for name in ast.literal_eval(done.stdout) if not name.startswith("_")] == []


def test_one_name_names_one_thing():
    """Two classes of one name, or a class and a type, are taken for each other; so are two modules in tracebacks."""
    defined, modules = defaultdict(set), defaultdict(set)
    for name, path in MODULES.items():
        if path.stem != "__init__":
            modules[path.stem].add(name)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef | ast.TypeAlias):
                own = node.name if isinstance(node, ast.ClassDef) else node.name.id
                defined[own.strip("_")].add(f"{name}.{own}")
    assert {name: places for name, places in (defined | modules).items() if len(places) > 1} == {}


def test_the_decisions_that_the_code_names_are_written_down():
    """Docstrings name the section of `docs/decisions.md` that says why: it is there under that title."""
    titles = set(re.findall(r"^#+ (.*)$", (SOURCE.parents[1] / "docs" / "decisions.md").read_text(), re.MULTILINE))
    named = set()
    for path in MODULES.values():
        text = " ".join(path.read_text().split())
        for quoted in re.findall(r'`docs/decisions\.md`, ("[^"]+"(?:, and "[^"]+")*)', text):
            named.update(re.findall(r'"([^"]+)"', quoted))
    assert len(named) > 15
    assert named <= titles
