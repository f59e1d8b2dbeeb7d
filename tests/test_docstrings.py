"""The examples of docstrings run, with names of their own for what a user would have: urls, a function that fetches."""

import asyncio
import inspect
import json
import re
import sqlite3
import textwrap
from functools import partial
from types import ModuleType, SimpleNamespace

import pytest

import penstock
from penstock import durable, engines, flow, sinks, tasks, workflows

MODULES = penstock, tasks, sinks, durable, engines, flow, workflows
PUBLIC = {name: getattr(module, name) for module in reversed(MODULES) for name in module.__all__}

NOT_RUN = {"ray": "needs a cluster", "dask": "needs a cluster"}


def described():
    """Public names and the methods of public classes, by the name of each."""
    for name, each in PUBLIC.items():
        yield name, each
        if inspect.isclass(each) and each.__module__.startswith("penstock"):
            yield from ((f"{name}.{member}", value) for member, value in inspect.getmembers(each, inspect.isfunction))


def examples():
    found = {}
    for name, each in described():
        text = inspect.cleandoc(each.__doc__ or "") + "\n" if not isinstance(each, ModuleType) else ""
        for block in re.findall(r"^Examples?:\n((?:    .*\n|\n)+)", text, re.MULTILINE):
            found.setdefault(textwrap.dedent(block), name)
    return [pytest.param(name, code, id=name) for code, name in found.items() if name not in NOT_RUN]


async def fetch(url="a"):
    await asyncio.sleep(0)
    return f"page of {url}"


async def embed(texts):
    await asyncio.sleep(0)
    return [{"text": text, "vector": [float(len(text)), 1.0]} for text in texts]


async def enrich(row):
    return {"id": 1, "name": str(row)}


async def nothing(*_):
    await asyncio.sleep(0)


def what_a_user_has(folder):
    """Files in `folder`, and the names that examples use."""
    (folder / "docs").mkdir()
    (folder / "docs" / "a.md").write_text("some words")
    (folder / "users.csv").write_text("id,name\n1,Ann\n")
    (folder / "events.jsonl").write_text(json.dumps({"id": 1}) + "\n")
    with sqlite3.connect(folder / "app.db") as database:
        database.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
    database.close()
    users = penstock.keyed([{"id": 1}, {"id": 2}], key=lambda user: user["id"])
    return {
        **{name: ["a", "b"] for name in ("urls", "paths", "prompts", "mirrors", "sites")},
        "texts": ["some words"] * 40,
        **dict.fromkeys(("fetch", "ask", "crawl", "write"), fetch),
        **dict.fromkeys(("read", "parse"), str.upper),
        **dict.fromkeys(("store", "sweep", "put_out_the_fire"), nothing),
        "database": SimpleNamespace(fetch=fetch),
        "tokens_of": len,
        "sink": penstock.SqliteTable("out.db", "sunk"),
        "table": penstock.SqliteTable("out.db", "rows"),
        "loop": SimpleNamespace(call_later=lambda *_: None),
        "article": flow.Pipeline("article", takes=str).step("outline", str.split),
        "outline": str.split,
        "square": lambda number: number * number,
        "pages": penstock.stream(["a"]).map(fetch),
        "client": SimpleNamespace(post=answer),
        "users": users,
        "enrich": enrich,
        **dict.fromkeys(("summarise", "bill", "archive"), enrich),
        "split": lambda file: [file.read_text()],
        "embed": embed,
        "vector_of": lambda question: [float(len(question)), 1.0],
        "question": "words?",
        "orders": [1, 2, 3],
        "user_url": "a",
        "orders_url": "b",
        "checks": [nothing, nothing],
        "tasks": [nothing],
        "one": "a",
        "other": "b",
        "token": tasks.CancelToken(),
        "render": str.encode,
        "Report": str,
        "partial": partial,
        "penstock": penstock,
    }


async def answer(_path, *, json):
    return SimpleNamespace(raise_for_status=lambda: len(json))


OWN = {
    "SqliteVectors": lambda: {"files": penstock.files("docs", "*.md")},
    "DurableRun": lambda: {"stream": penstock.keyed([1, 2], key=str).map(enrich)},
    "Stream.deliver": lambda: {"stream": penstock.keyed([1, 2], key=str).map(enrich)},
    "rows": lambda: {"users": None},
    "traced": lambda: {"stream": penstock.keyed([1, 2], key=str).map(enrich)},
    "Adaptive": lambda: {"retry": penstock.Retry(on=OSError)},
    "Stream.tee": lambda: {"orders": penstock.stream([1, 2, 3])},
}
"""Names that mean something else in one example."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), examples())
def test_an_example_runs(name, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {**PUBLIC, **what_a_user_has(tmp_path), **OWN.get(name, dict)()}
    returned = re.findall(r"^async def (main|pairs)\b", code, re.MULTILINE)
    end = "await main()" if returned == ["main"] else "pass"
    local = [each for each in re.findall(r"^(\w+)(?:, \w+)* = ", code, re.MULTILINE) if each in names]
    program = textwrap.dedent(f"async def example({', '.join(f'{each}={each}' for each in dict.fromkeys(local))}):\n")
    exec(f"from collections.abc import AsyncIterator\n{program}{textwrap.indent(code, '    ')}\n    {end}", names)
    asyncio.run(names["example"]())


def test_every_example_is_found():
    """As many as the sources have, but those of `penstock.testing`, which stand in its module."""
    assert len(examples()) + len(NOT_RUN) >= 30


def test_who_checks_arguments_says_what_is_raised():
    silent = [
        name
        for name, each in described()
        if inspect.isfunction(each)
        and "._" not in name
        and each.__code__.co_filename.endswith(".py")
        and re.search(r"\bvalidate\.|raise OptionError", inspect.getsource(each))
        and each.__doc__  # else it says what the method does that it overrides
        and "Raises:" not in each.__doc__
    ]
    assert silent == ["Retry.backoff"]  # whose numbers were checked when it was made


def test_limits_show_what_is_for_users():
    """The trap: `help` lists a dozen methods that only stages call."""
    shown = {
        kind.__name__: {name for name in dir(kind) if name[0] != "_"}
        for kind in (penstock.Limiter, penstock.RateLimit, penstock.Breaker)
    }
    assert shown == {
        "Limiter": {"hold", "in_use", "limit", "pause", "run", "waiting"},
        "RateLimit": {"acquire", "follow", "n", "pause", "per", "settle"},
        "Breaker": {"is_open", "pause", "run"},
    }
