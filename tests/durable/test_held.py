"""What a function holds is part of its print, or its results are not kept: never silently those of another function."""

import array
import asyncio
import collections
import datetime as dt
import decimal
import enum
import fractions
import functools
import io
import ipaddress
import itertools
import logging
import operator
import os
import pathlib
import random
import re
import string
import subprocess
import sys
import textwrap
import threading
import types
import typing
import uuid
import weakref
import zoneinfo
from dataclasses import dataclass, field

import pytest

from penstock import OptionError
from penstock.durable.held import Held
from penstock.durable.root_source import source_of
from penstock.sinks.table import SqliteTable
from penstock.sources.keyed import keyed

from ..guarantees.grids import named  # noqa: TID252 -- tests are no package to name


def print_of(value):
    return Held().print(value)


class Asker:
    """An object whose method is the function."""

    kind = "chat"

    def __init__(self, held):
        self.held = held

    def ask(self, item):
        return self.held, item

    def __call__(self, item):
        return self.held, item

    @classmethod
    def of_class(cls, item):
        return cls.kind, item


class Slotted:
    __slots__ = ("_private", "held")

    def __init__(self, held):
        self.held = held

    def ask(self, item):
        return self.held, item


class SlottedMore(Slotted):
    __slots__ = ("__more",)

    def __init__(self, held):
        super().__init__("nothing")
        self.__more = held


class Words(list):
    """A list that has a name."""

    def __init__(self, name):
        super().__init__(["a"])
        self.name = name


class Name(str):
    __slots__ = ()


class Color(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass
class Model:
    name: object
    more: list[str] = field(default_factory=list)


class Pair(typing.NamedTuple):
    one: object
    other: object = 0


def closing(held):
    return lambda item: (held, item)


def with_default(held):
    def fn(item, held=held):
        return held, item

    return fn


def with_keyword(held):
    def fn(item, *, held=held):
        return held, item

    return fn


def with_attribute(held):
    def fn(item):
        return fn.held, item

    fn.held = held
    return fn


def wrapping(held):
    def inner(item):
        return held, item

    @functools.wraps(inner)
    def outer(*args):
        return inner(*args)

    return outer


def two(item, held):
    return held, item


HOLDERS = {
    "closure": closing,
    "default": with_default,
    "keyword default": with_keyword,
    "attribute": with_attribute,
    "wrapped": wrapping,
    "bound object": lambda held: Asker(held).ask,
    "callable object": Asker,
    "slots": lambda held: Slotted(held).ask,
    "slots of a subclass": lambda held: SlottedMore(held).ask,
    "partial": lambda held: functools.partial(two, held=held),
    "partial, by place": lambda held: functools.partial(two, held),
    "partial of a method": lambda held: functools.partial(Asker(held).ask),
    "list": lambda held: closing([held]),
    "values of a dict": lambda held: closing({"a": [held]}),
    "tuple in an object": lambda held: Asker((1, held)).ask,
    "lambda in a dict": lambda held: closing({"a": lambda item: (held, item)}),
    "dataclass": lambda held: closing(Model(held)),
    "named tuple": lambda held: closing(Pair(1, held)),
    "namespace": lambda held: closing(types.SimpleNamespace(held=held)),
    "counter": lambda held: closing(collections.Counter({"a": held})),
    "defaultdict": lambda held: closing(collections.defaultdict(list, {"a": held})),
    "ordered": lambda held: closing(collections.OrderedDict(a=held)),
    "deque": lambda held: closing(collections.deque([held])),
    "user dict": lambda held: closing(collections.UserDict({"a": held})),
    "chain map": lambda held: closing(collections.ChainMap({"a": held})),
    "proxy": lambda held: closing(types.MappingProxyType({"a": held})),
    "list of a class": lambda held: closing(Words(held)),
    "cached": lambda held: functools.cache(closing(held)),
    "exception": lambda held: closing(ValueError(held)),
}

MOMENT = dt.datetime(2024, 1, 1)  # noqa: DTZ001 -- one without a zone

DATA = {
    "numbers": (1, 2),
    "int and float": (1, 1.0),
    "int and bool": (1, True),
    "zeros": (0.0, -0.0),
    "text": ("small", "large"),
    "bytes": (b"a", b"b"),
    "bytes and bytearray": (b"a", bytearray(b"a")),
    "lists": ([1, [2]], [1, [3]]),
    "list and tuple": ([1], (1,)),
    "sets": ({"a", "b"}, {"a", "c"}),
    "frozensets": (frozenset("ab"), frozenset("abc")),
    "dicts": ({"a": 1}, {"a": 2}),
    "order of dicts": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "patterns": (re.compile("a"), re.compile("b")),
    "flags of patterns": (re.compile("a"), re.compile("a", re.IGNORECASE)),
    "ranges": (range(3), range(4)),
    "slices": (slice(1), slice(2)),
    "counters": (collections.Counter("ab"), collections.Counter("abb")),
    "factories": (collections.defaultdict(list), collections.defaultdict(int)),
    "ordered dicts": (collections.OrderedDict(a=1, b=2), collections.OrderedDict(b=2, a=1)),
    "deques": (collections.deque([1]), collections.deque([2])),
    "lengths of deques": (collections.deque([1], 3), collections.deque([1], 4)),
    "getters of items": (operator.itemgetter("a"), operator.itemgetter("b")),
    "getters of attributes": (operator.attrgetter("a.b"), operator.attrgetter("a.c")),
    "callers": (operator.methodcaller("encode", errors="x"), operator.methodcaller("encode", errors="y")),
    "formats": ("a {}".format, "b {}".format),
    "methods of text": ("a".join, "b".join),
    "methods of dicts": ({"a": 1}.get, {"a": 2}.get),
    "methods of types": (str.upper, str.lower),
    "methods of values": ((1).__add__, (2).__add__),
    "methods of classes": (bytes.fromhex, int.from_bytes),
    "builtins": (len, abs),
    "members": (Color.RED, Color.BLUE),
    "dataclasses": (Model("a"), Model("b")),
    "named tuples": (Pair(1), Pair(2)),
    "paths": (pathlib.Path("a"), pathlib.Path("b")),
    "moments": (MOMENT, MOMENT.replace(day=2)),
    "zones": (MOMENT, MOMENT.replace(tzinfo=dt.UTC)),
    "named zones": (zoneinfo.ZoneInfo("Europe/Oslo"), zoneinfo.ZoneInfo("Europe/Rome")),
    "dates": (dt.date(2024, 1, 1), dt.date(2024, 1, 2)),
    "times": (dt.time(1), dt.time(2)),
    "spans": (dt.timedelta(1), dt.timedelta(2)),
    "decimals": (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
    "fractions": (fractions.Fraction(1, 2), fractions.Fraction(1, 3)),
    "uuids": (uuid.UUID(int=1), uuid.UUID(int=2)),
    "addresses": (ipaddress.ip_address("::1"), ipaddress.ip_address("::2")),
    "templates": (string.Template("$a"), string.Template("$b")),
    "arrays": (array.array("i", [1]), array.array("i", [2])),
    "views": (memoryview(b"a"), memoryview(b"b")),
    "names": (Name("a"), Name("b")),
    "types": (int, str),
    "partials": (functools.partial(int, base=2), functools.partial(int, base=8)),
    "objects": (Asker(1), Asker(2)),
    "loggers": (logging.getLogger("a"), logging.getLogger("b")),
    "typing": (list[int], list[str]),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_data_that_a_function_holds_is_part_of_its_print(holder):
    hold = HOLDERS[holder]
    if holder == "counter":
        hold = closing
    for data, (one, other) in DATA.items():
        with named(data=data):
            held = Held()
            before = held.print(hold(one))
            assert held.opaque == []
            assert before == print_of(hold(one))
            assert before != print_of(hold(other))


def test_arrays_are_what_they_hold():
    np = pytest.importorskip("numpy")
    found = {
        print_of(closing(each))
        for each in (
            np.arange(3),
            np.arange(4),
            np.arange(3.0),
            np.arange(4).reshape(2, 2),
            np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]),
            np.array([(1, 3.0)], dtype=[("a", "i4"), ("b", "f4")]),
            np.float32(1),
            np.float64(1),
            np.dtype("f4"),
            np.add,
            np.multiply,
            [0, 1, 2],
        )
    }
    assert len(found) == 12
    held = Held()
    held.print(closing(np.array([object()])))
    assert held.opaque == ["held is a numpy.ndarray"]


def test_models_of_pydantic_are_what_their_fields_are():
    pydantic = pytest.importorskip("pydantic")

    def model(default="small"):
        class Settings(pydantic.BaseModel):
            name: str = default
            tags: list[str] = []  # noqa: RUF012 -- as pydantic has it

            def ask(self, item):
                return self.name, item

        return Settings

    held = Held()
    settings = model()
    one = held.print(settings(name="a").ask)
    assert held.opaque == []
    assert one == print_of(settings(name="a").ask)
    assert one != print_of(settings(name="b").ask)
    assert print_of(model()) == print_of(model())
    assert print_of(model("small")) != print_of(model("large"))


def test_attributes_of_a_class_are_attributes_of_its_objects():
    def made(prompt):
        class Prompted:
            text = prompt

            def ask(self, item):
                return self.text, item

        return Prompted

    assert print_of(made("a")().ask) == print_of(made("a")().ask)
    assert print_of(made("a")().ask) != print_of(made("b")().ask)
    assert print_of(made("a")) != print_of(made("b"))


def test_a_class_that_is_called_is_what_makes_its_objects():
    def made(factor):
        class Row:
            def __init__(self, item, times=factor):
                self.item = item * times

        return Row

    assert print_of(made(2)) == print_of(made(2))
    assert print_of(made(2)) != print_of(made(3))


def numbers():
    yield 1


OPAQUE = {
    "file": lambda: io.StringIO("a"),
    "open file": lambda: open(os.devnull),  # noqa: SIM115, PTH123 -- closed by the test
    "lock": threading.Lock,
    "event": threading.Event,
    "lock of the loop": lambda: threading.RLock(),
    "generator": numbers,
    "iterator": lambda: iter([1]),
    "count": itertools.count,
    "random": random.Random,
    "random by a method": lambda: random.Random().choice,
    "reference": lambda: weakref.ref(Asker),
    "thread": threading.Thread,
    "object that holds one": lambda: Asker({"a": [threading.Lock()]}),
}


@pytest.mark.parametrize("value", OPAQUE)
@pytest.mark.parametrize(
    "holder", ["closure", "default", "bound object", "callable object", "partial", "slots", "list"]
)
def test_what_is_no_data_is_refused_by_name(tmp_path, holder, value):
    """With memo; `deps` says then what the results depend on. Without it, such a function is known by its type."""
    held = OPAQUE[value]()
    fn = HOLDERS[holder](held)
    stream = keyed(range(2), key=int)
    sink = SqliteTable(tmp_path / "out.db", "rows")
    try:
        with pytest.raises(
            OptionError, match=r"memo=True of stage '.*' needs a function .* or deps= .*: \S+ is an? \S+$"
        ):
            asyncio.run(stream.map(fn, memo=True).to(sink, run="run"))
        for options in ({"memo": True, "deps": "model"}, {}):
            one, other = (source_of(stream.map(fn, **options).description) for _ in range(2))
            assert one.stages == other.stages
    finally:
        getattr(held, "close", lambda: None)()


@pytest.mark.parametrize(
    ("hold", "place"),
    [
        (lambda held: Asker({"pool": [1, held]}).ask, "self.held['pool'][1]"),
        (lambda held: Asker(Asker(held)), "self.held.held"),
        (lambda held: closing([held]), "held[0]"),
        (with_default, "held"),
        (with_attribute, "self.held"),
        (lambda held: functools.partial(two, 1, held), "partial.args[1]"),
        (lambda held: functools.partial(two, held=held), "partial.keywords['held']"),
        (wrapping, "inner.held"),
    ],
)
def test_the_place_is_named(hold, place):
    held = Held()
    held.print(hold(threading.Lock()))
    assert held.opaque == [f"{place} is a _thread.lock"]


def test_what_leads_to_itself_has_an_end():
    def endless(last):
        one, other = Asker(None), Asker(None)
        one.held, other.held = [other, last], {"a": one}
        return one.ask

    assert print_of(endless(1)) == print_of(endless(1))
    assert print_of(endless(1)) != print_of(endless(2))


def test_which_of_two_equal_types_stands_where_counts():
    """Objects that were seen before are not known by having been seen."""
    a, b = Asker("a"), Asker("b")
    assert print_of(closing((a, b, a))) != print_of(closing((a, b, b)))


def test_what_branches_is_looked_at_once():
    tree = [1]
    for _ in range(80):
        tree = [tree, tree, threading]
    held = Held()
    held.print(closing(tree))
    assert held.opaque == []


def test_what_is_very_deep_is_known_by_its_type():
    deep = [threading]
    for _ in range(5_000):
        deep = [deep]
    held = Held()
    held.print(closing(deep))
    assert held.opaque


PROGRAM = """
import collections, dataclasses, enum, functools, operator, pathlib, re, types, uuid
import datetime as dt
from penstock.durable.held import Held

class Color(enum.Flag):
    RED = 1
    BLUE = 2

@dataclasses.dataclass(frozen=True)
class Model:
    name: str
    tags: frozenset = frozenset("abcdef")

class Tree:
    kinds = {"x", "y", "z"}
    def __init__(self):
        self.parent = None
        self.words = {"a", "b", "c", ("d", frozenset("efg"))}
        self.models = {Model("a"), Model("b"), Model("c")}
    def ask(self, item):
        return item in {"p", "q", "r"}

one, other = Tree(), Tree()
one.parent, other.parent = other, one
held = [
    one.ask, Tree, Color.RED | Color.BLUE, Model("x"), re.compile("a", re.I), collections.Counter("hello"),
    operator.methodcaller("a", b=1), "a {}".format, functools.partial(print, one), {Color.RED, Color.BLUE},
    {one, other}, types.SimpleNamespace(b=1, a={"a", "b"}), lambda item: one, dt.datetime(2024, 1, 1),
    {pathlib.Path("a"), pathlib.Path("b")}, frozenset({uuid.UUID(int=1), uuid.UUID(int=2)}), len, list[int],
]
print([Held().print(each).hex() for each in held])
"""


def test_prints_are_the_same_in_every_process():
    """Hashes of text, the order of sets and addresses are others in each."""
    found = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(PROGRAM)],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "12345"
    }
    assert len(found) == 1
    assert "[" in found.pop()


def test_results_of_a_function_that_holds_something_else_are_not_recalled(tmp_path):
    sink = SqliteTable(tmp_path / "out.db", "rows")

    async def rows(held):
        asker = Asker(held)
        stream = keyed([1], key=int, version=lambda _: str(held)).map(
            lambda item: {"v": str(asker.ask(item))}, memo=True
        )
        report = await stream.to(sink, run="run")
        return report.recalled, [row["v"] for row in sink.rows()]

    assert asyncio.run(rows("a")) == (0, ["('a', 1)"])
    assert asyncio.run(rows("b")) == (0, ["('b', 1)"])
