"""docs/reference.md has every public name, operator, option and default, and nothing that does not exist."""

import importlib
import inspect
import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

import penstock
from penstock import durable, engines, flow, sinks, tasks, testing, workflows
from penstock.core import errors
from penstock.core.breaker import Breaker
from penstock.core.limiter import Limiter
from penstock.core.rate_limit import RateLimit
from penstock.core.stats import _HEAD, Latency, StageStats, Stats
from penstock.durable.options import DeliverOptions, RunOptions
from penstock.durable.root_source import source_of
from penstock.flow.leaf import LeafOptions
from penstock.flow.pipeline_engine import KEEP
from penstock.ops.work import AllOptions, Settings
from penstock.progress import _table
from penstock.readable import Readable
from penstock.sync import SyncRun
from penstock.workflows.documents.embed_job import EmbedOptions
from penstock.workflows.fetching.fetch_job import FetchOptions
from penstock.workflows.rows.ask_job import AskOptions
from penstock.workflows.rows.map_job import MapRowsOptions
from penstock.workflows.thumbnails.thumbnail_job import ThumbnailOptions

TEXT = (Path(__file__).parent.parent / "docs" / "reference.md").read_text()
MODULES = penstock, tasks, sinks, durable, engines, flow, workflows, testing
PUBLIC = {name: getattr(module, name) for module in MODULES for name in module.__all__}
NOT_PUBLIC = Stats, StageStats, Latency, SyncRun
"""Types that users meet and do not make: none of a module's names."""

BY_STAGES = {"bind", "key_by_hand", "key_of", "keyed", "parts", "pause_left", "weigh"}

FOR_THE_LIBRARY = {
    Limiter: BY_STAGES | {"check", "give_back", "take", "wait"},
    engines.Engine: {"line"},
    Breaker: BY_STAGES | {"begin", "counts", "ended", "lets_in", "wait"},
    RateLimit: BY_STAGES | {"burst", "charge", "end_turn", "is_due", "now", "spacing", "turn"},
    Readable: {"description"},
    penstock.Stream: {"description"},
    durable.DurableRun: {"memo", "note"},
    penstock.SqliteTable: {"open"},
    penstock.PostgresTable: {"open"},
    penstock.SqliteVectors: {"compare", "open"},
    flow.Pipeline: {"bind_inner", "children", "operator", "read_from", "refuse_stream"},
    flow.StepContext: {"spent"},
}
"""Members that are not private, and not for users either."""


def section(heading):
    (found,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return found


def rows(heading):
    """The rows of its tables, as lists of cells, without their heads."""
    lines = [line.strip("|").split("|") for line in section(heading).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    heads = {number - 1 for number, line in enumerate(cells) if set(line[0]) == {"-"}}
    return [line for number, line in enumerate(cells) if number not in heads and set(line[0]) != {"-"}]


def codes(cell):
    return re.findall(r"`([^`]+)`", cell)


def entries(heading):
    """What the first cells name, in order."""
    return [code for row in rows(heading) for code in codes(row[0])]


def defaults(heading):
    """What a table of options says: the default of each, None where there is none."""
    return {codes(row[0])[0]: (codes(cell) or [None])[0] for row in rows(heading) for cell in row[-2:-1]}


def said(value):  # noqa: PLR0911 -- a case each
    """A default as the page writes it."""
    match value:
        case str():
            return json.dumps(value)
        case bool() | None | tuple():
            return repr(value)
        case int():
            return f"{value:_}"
        case float():
            return f"{value:g}"
        case penstock.Retry():
            own = {each.name: getattr(value, each.name) for each in fields(value)}
            usual = {each.name: each.default for each in fields(value)}
            shown = ", ".join(f"{name}={said(each)}" for name, each in own.items() if each != usual[name])
            return f"Retry({shown})"
        case _ if value is KEEP:
            return "KEEP"
        case flow.EnvSecret():
            return repr(value).replace("'", '"')
        case Callable():
            return value.__name__
    raise AssertionError(value)


def signature(name, function, *, skipped=0):
    """`name(a, b=1, *, c)`, without types."""
    parts, starred = [], False
    for each in list(inspect.signature(function).parameters.values())[skipped:]:
        if each.kind is each.VAR_KEYWORD:
            parts.append(f"**{each.name}")
            continue
        if each.kind is each.VAR_POSITIONAL:
            parts.append(f"*{each.name}")
            starred = True
            continue
        if each.kind is each.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        optional = each.default is not each.empty and type(each.default) is not object
        parts.append(f"{each.name}={said(each.default)}" if optional else each.name)
    return f"{name}({', '.join(parts)})"


def members(kind, *, inherited=False):
    """The public methods of `kind`, as calls, and its public properties."""
    found = set()
    names = dir(kind) if inherited else vars(kind)
    for name in set(names) - FOR_THE_LIBRARY.get(kind, set()):
        value = inspect.getattr_static(kind, name)
        if name.startswith("_"):
            continue
        if inspect.isfunction(value):
            found.add(signature(name, value, skipped=1))
        elif isinstance(value, property):
            found.add(name)
    return found


def made(*names):
    return {signature(name, PUBLIC[name]) for name in names}


def names_of(kind):
    return {each.name for each in fields(kind)}


def functions(module, but=()):
    return {name for name in module.__all__ if inspect.isfunction(getattr(module, name)) and name not in but}


FOR_EACH = signature("for_each", penstock.Stream.for_each, skipped=1)

SECTIONS = {
    "Sources": made(*functions(penstock, but={"drain_on_signals", "traced"})),
    "Operators": members(penstock.Stream) - {FOR_EACH},
    "Ends": members(Readable) | {FOR_EACH},
    "Runs": members(penstock.Run),
    "Tracing": made("traced"),
    "DurableRun": members(durable.DurableRun),
    "Limits": made("Adaptive", "Breaker", "Limiter", "RateLimit", "RetryBudget")
    | {"pause(seconds, item)"}
    | members(Breaker)
    | members(Limiter)
    | members(RateLimit),
    "Engines": made("ray", "dask", "Threads", "Call", "Answer", "Progress", "answer", "processes")
    | members(engines.Engine)
    | {"Engine"},
    "Outcomes": made("Ok", "Failed", "Cancelled", "NotStarted"),
    "Statistics": names_of(StageStats) | {"in_flight"},
    "Sinks": made("SqliteTable", "PostgresTable", "SqliteVectors", "JsonLines", "Files", "Callback")
    | members(penstock.SqliteTable)
    | members(penstock.PostgresTable)
    | members(penstock.SqliteVectors),
    "RunReport": names_of(penstock.RunReport),
    "Journals": made(*functions(durable)),
    "Finite work": made(*functions(tasks)),
    "Members of a TaskExecutor": members(tasks.TaskExecutor),
    "Pipelines": made("step", "parallel", "review", "command", "prompt", "template", "load") | members(flow.Pipeline),
    "Streaming pipelines": made("StreamingPipeline", "to_streaming", "transform") | members(flow.StreamingPipeline),
    "Models": made("OpenAIChat", "AnthropicMessages", "Reply", "secret") | {"Model"} | members(flow.Model),
    "Members of a PipelineEngine": members(flow.PipelineEngine),
    "Members of a StepContext": members(flow.StepContext),
    "Tokens and queues": made("CancelToken", "TaskQueue") | members(tasks.CancelToken) | members(tasks.TaskQueue),
}

OPTIONS = {
    "Options of operators": [Settings],
    "Options of ends": [penstock.Stream.open, penstock.Stream.sync, RunOptions],
    "Retry": [penstock.Retry],
    "TaskExecutor": [tasks.TaskExecutor],
    "Options of steps": [LeafOptions],
    "PipelineEngine": [flow.PipelineEngine],
}


def options_of(function):
    """The options that it takes by name, or by place with a default, and how the page writes their defaults."""
    return {
        name: None if each.default is each.empty else said(each.default)
        for name, each in inspect.signature(function).parameters.items()
        if each.kind is each.KEYWORD_ONLY
        or (each.kind is each.POSITIONAL_OR_KEYWORD and each.default is not each.empty)
    }


@pytest.mark.parametrize("heading", SECTIONS)
def test_a_section_has_what_the_code_has(heading):
    found = entries(heading)
    assert len(found) == len(set(found))
    assert set(found) == SECTIONS[heading]


@pytest.mark.parametrize("heading", OPTIONS)
def test_a_table_of_options_has_those_of_the_code_with_their_defaults(heading):
    options = {name: default for function in OPTIONS[heading] for name, default in options_of(function).items()}
    assert defaults(heading) == options


def test_the_options_of_operators_are_those_that_type_checkers_know():
    assert set(defaults("Options of operators")) == AllOptions.__optional_keys__


def test_an_end_has_the_options_that_the_table_says():
    for row in rows("Options of ends"):
        (option,) = codes(row[0])
        ends = {"open": penstock.Stream.open, "sync": penstock.Stream.sync, "to": RunOptions, "deliver": RunOptions}
        for end, function in ends.items():
            assert (end in codes(row[1])) == (option in options_of(function)), (option, end)


def test_the_options_of_durable_runs_are_those_that_type_checkers_know():
    assert {field.name for field in fields(RunOptions)} == {*DeliverOptions.__optional_keys__, "run"}


def test_the_options_of_finite_work_are_explained():
    taken = {name for function in functions(tasks) for name in options_of(PUBLIC[function])} - {"sizes"}
    assert set(entries("Options of finite work")) == taken


def test_the_options_of_embed_are_explained():
    options = {code for row in rows("Documents") if len(row) == 4 for code in codes(row[0])}
    assert options == EmbedOptions.__optional_keys__


def test_the_options_of_fetch_are_explained():
    options = {code for row in rows("Fetching") if len(row) == 4 for code in codes(row[0])}
    assert options == FetchOptions.__optional_keys__


def test_the_options_of_thumbnails_are_explained():
    options = {code for row in rows("Thumbnails") if len(row) == 4 for code in codes(row[0])}
    assert options == ThumbnailOptions.__optional_keys__


def test_the_options_of_map_rows_and_ask_are_explained():
    options = {code for row in rows("Rows") if len(row) == 4 for code in codes(row[0])}
    assert options == MapRowsOptions.__optional_keys__ | AskOptions.__optional_keys__ | AskOptions.__required_keys__


def test_every_public_name_has_a_row_and_every_call_is_written_as_the_code_has_it():
    headings = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    elsewhere = {code for heading in SECTIONS | OPTIONS for code in entries(heading)}
    rest = [code for heading in headings if heading not in SECTIONS | OPTIONS for code in entries(heading)]
    jobs = (AskOptions, EmbedOptions, FetchOptions, MapRowsOptions, ThumbnailOptions)
    options = set(entries("Options of finite work")).union(*(each.__annotations__ for each in jobs))
    known = PUBLIC | {kind.__name__: kind for kind in NOT_PUBLIC}
    for code in set(rest) - options:
        name = code.partition("(")[0]
        assert name in known, code
        if "(" in code:
            assert code == signature(name, known[name])
    named = {code.partition("(")[0] for code in elsewhere | set(rest)} | set(headings) | {"drain_on_signals"}
    in_errors = {name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, Exception)}
    assert set(PUBLIC) - in_errors <= named


def test_errors_come_from_where_the_table_says():
    for row in rows("Errors"):
        (name,), (module,) = codes(row[0]), codes(row[1])
        assert issubclass(getattr(importlib.import_module(module), name), Exception)


def test_the_columns_of_the_table_of_statistics_are_those_that_are_printed():
    assert tuple(column for row in rows("Statistics") for column in row[1].split(", ") if column) == _HEAD


def test_the_columns_of_the_progress_table_are_those_that_are_shown():
    pytest.importorskip("rich")
    assert [row[0] for row in rows("Progress")] == [column.header for column in _table(Stats(), "").columns]


def test_a_plain_run_has_the_members_that_the_table_says():
    said_to_have = {codes(row[0])[0] for row in rows("Runs") if row[2] == "yes"}
    assert said_to_have == members(SyncRun)


SAMPLES = {
    "map_batches": (list, 2),
    "flatten": (),
    "take": (1,),
    "skip": (1,),
    "distinct": (),
    "enumerate": (),
    "batch": (2,),
    "prefetch": (2,),
    "through": (lambda stream: stream,),
    "add": (flow.step("bool", bool),),
    "checkpoint": ("a",),
    "tee": (lambda stream: stream,),
    "scan": (max, 0),
    "with_metadata": (),
}
"""What operators are given, that take anything else than a function of an item or another stream."""


@pytest.mark.parametrize("row", rows("Operators"), ids=lambda row: codes(row[0])[0].partition("(")[0])
def test_an_operator_can_be_part_of_a_durable_run_if_the_table_says_so(row):
    name = codes(row[0])[0].partition("(")[0]
    stream, other = (penstock.keyed([[1]], key=str, name=each) for each in "ab")
    given = SAMPLES.get(name, (other,) if name in {"merge", "chain", "zip"} else (bool,))
    result = getattr(stream, name)(*given)
    if row[2].startswith("yes"):
        assert source_of(result.description)
    else:
        with pytest.raises(penstock.OptionError):
            source_of(result.description)
