"""The fingerprint of a stage: another one when its results may be others, the same in every process."""

import functools
import subprocess
import sys
import types
from dataclasses import dataclass
from operator import itemgetter

import pytest

from penstock import OptionError
from penstock.durable.fingerprint import StageCode, changes, fingerprint
from penstock.durable.root_source import source_of
from penstock.ops.operator import Code
from penstock.sources.keyed import keyed
from penstock.streams import Stream


def of(fn, *, operator="map", deps=None, title="stage"):
    return fingerprint(operator, Code(title, fn, in_band=False, deps=deps, memo=False))


def remembering(fn, deps=None):
    return fingerprint("map", Code("stage", fn, in_band=False, deps=deps, memo=True))


def made(source, name="fn", **names):
    """A function of a module with that source."""
    module = types.ModuleType("jobs")
    vars(module).update(names)
    exec(compile(source, "jobs.py", "exec"), vars(module))
    return vars(module)[name]


BASE = (
    "def fn(item, times=2, *, sign=1):\n    total = item * times\n    return [sign * each for each in (total, 'x')]\n"
)


@pytest.mark.parametrize(
    "source",
    [
        "\n\n\n" + BASE,
        "import os\nX = 3\n" + BASE,
        BASE.replace("    total", "    # a comment\n\n    total"),
        BASE.replace("item, times=2, *, sign=1", "item: int, times: int = 2, *, sign: int = 1"),
    ],
    ids=["moved", "below others", "comment", "annotated"],
)
def test_what_changes_no_result_changes_no_fingerprint(source):
    assert of(made(source)) == of(made(BASE))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("item * times", "item + times"),
        ("'x'", "'y'"),
        ("times=2", "times=3"),
        ("times=2", "times=2.0"),
        ("sign=1", "sign=True"),
        ("sign * each", "other * each"),
        ("    total = item * times\n", "    '''Says so.'''\n    total = item * times\n"),
        ("def fn", "async def fn"),
        ("return [", "yield ["),
    ],
)
def test_what_may_change_results_changes_the_fingerprint(old, new):
    assert old in BASE
    assert of(made(BASE.replace(old, new))) != of(made(BASE))


def test_a_function_of_another_name_or_module_is_another():
    base = made(BASE)
    other = made(BASE.replace("def fn", "def gn"), "gn")
    assert of(base) != of(other)
    elsewhere = types.FunctionType(base.__code__, {"__name__": "elsewhere"}, "fn", base.__defaults__)
    elsewhere.__kwdefaults__ = base.__kwdefaults__
    elsewhere.__module__ = "elsewhere"
    assert of(base) != of(elsewhere)


def test_code_inside_counts():
    source = "def fn(item):\n    def inner(x):\n        return x + 1\n    return inner(item)\n"
    assert of(made(source)) != of(made(source.replace("x + 1", "x + 2")))


@pytest.mark.slow
def test_the_order_of_a_set_of_constants_does_not_count():
    """A `frozenset` among the constants has another order in every process."""
    code = (
        "from penstock.durable.fingerprint import fingerprint\n"
        "from penstock.ops.operator import Code\n"
        "def outer(words={'d', 'e', 'f'}):\n"
        "    def fn(item): return item in {'a', 'b', 'c', 'd'} and item in words\n"
        "    return fn\n"
        "print(fingerprint('map', Code('', outer(), False, {'model': 'm'}, False)).hex())\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in "12345"
    }
    assert len(found) == 1


def test_a_function_that_has_run_is_the_same():
    """Python rewrites the byte code of what runs often."""
    fn = made(BASE)
    before = of(fn)
    for _ in range(10_000):
        fn(1)
    assert of(fn) == before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        ("small", "large"),
        ({"model": "small"}, {"model": "large"}),
        ([1, [2]], [1, [3]]),
        (functools.partial(int, base=2), functools.partial(int, base=8)),
        (made(BASE), made(BASE.replace("'x'", "'y'"))),
        (int, str),
        (len, abs),
    ],
)
def test_what_a_function_closes_over_counts(one, other):
    def closing(value):
        return lambda item: (item, value)

    assert of(closing(one)) == of(closing(one))
    assert of(closing(one)) != of(closing(other))
    assert of(functools.partial(pair, value=one)) != of(functools.partial(pair, value=other))
    assert of(functools.partial(pair, one)) != of(functools.partial(pair, other))


def pair(item, value):
    return item, value


class Client:
    def __init__(self):
        self.calls = 0

    def ask(self, item):
        return item

    def __call__(self, item):
        return item


class OtherClient(Client):
    def __call__(self, item):
        return item + 1


@dataclass(frozen=True)
class Model:
    name: str

    def __call__(self, item):
        return self.name, item


def test_an_object_is_known_by_its_type_its_call_and_its_attributes():
    """What it holds, its results may depend on; its address is another one in every process."""
    used = Client()
    assert of(used) == of(Client())
    assert of(used.ask) == of(Client().ask)
    used.calls = 5
    assert of(used) != of(Client())
    assert of(used.ask) != of(Client().ask)
    assert of(lambda item: used) == of(lambda item: used)
    assert of(Client()) != of(OtherClient())
    assert of(used) != of(used.ask)


def test_a_dataclass_is_known_by_its_fields_too():
    assert of(Model("small")) == of(Model("small"))
    assert of(Model("small")) != of(Model("large"))
    assert of(Model("small").__call__) != of(Model("large").__call__)


def test_a_wrapper_is_known_by_what_it_wraps():
    plain = made(BASE)
    other = made(BASE.replace("'x'", "'y'"))
    assert of(functools.cache(plain)) != of(functools.cache(other))
    assert of(functools.cache(plain)) != of(plain)


def test_what_leads_to_itself_has_a_fingerprint():
    def recursive(item):
        return recursive(item - 1) if item else endless

    endless = []
    endless.append(endless)
    assert of(recursive) == of(recursive)


def test_a_table_too_large_to_be_read_through_is_known_by_its_type():
    def using(table):
        return lambda item: table[item]

    assert of(using(dict.fromkeys(range(200_000), 1))) == of(using(dict.fromkeys(range(200_000), 2)))
    assert of(using(dict.fromkeys(range(20_000), 1))) != of(using(dict.fromkeys(range(20_000), 2)))
    with pytest.raises(OptionError, match=r": table is a builtins\.dict$"):
        remembering(using(dict.fromkeys(range(200_000), 1)))


def test_a_name_that_is_not_bound_yet_is_none():
    def outer():
        def fn(item):
            return later

        before = of(fn)
        later = 1
        return before, of(fn)

    before, after = outer()
    assert before != after


def test_operator_and_deps_count_and_the_name_does_not():
    fn = made(BASE)
    prints = {
        of(fn),
        of(fn, operator="filter"),
        of(fn, deps="small"),
        of(fn, deps={"model": "small", "prompt": "p"}),
    }
    assert len(prints) == 4
    assert of(fn, title="another") == of(fn)
    assert of(fn, deps={"a": 1, "b": 2}) == of(fn, deps={"b": 2, "a": 1})


def test_deps_that_have_no_digest_are_refused():
    with pytest.raises(OptionError, match=r"^deps must be made of JSON-like values.*got .*test_fingerprint\.Client in"):
        of(itemgetter(1), deps=[Client()])


def codes_of(stream: Stream):
    return source_of(stream.description).stages


def base():
    return keyed(range(3), key=lambda item: item)


def test_options_that_change_no_result_do_not_count():
    async def embed(items):
        return items

    one = base().map(pair).map_batches(embed, 8)
    other = (
        base().map(pair, concurrency=9, ordered=False, buffer=3, name="pairs", on_error="skip").map_batches(embed, 9)
    )
    assert [code.fingerprint for code in codes_of(one)] == [code.fingerprint for code in codes_of(other)]
    assert [code.name for code in codes_of(one)] == ["map(pair)", "map_batches(embed)"]


def test_a_merged_stream_has_the_stages_of_all():
    one, other = base().map(pair), base().filter(bool)
    merged = one.merge(other).tap(print)
    assert [code.name for code in codes_of(merged)] == ["map(pair)", "filter(bool)", "tap(print)"]


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ("abc", "abc", ()),
        ("abc", "aXc", ("X",)),
        ("abc", "abcd", ("d (new)",)),
        ("abc", "bc", ("a (gone)",)),
        ("abc", "Xac", ("X (new)", "b (gone)")),
        ("", "a", ("a (new)",)),
        ("ab", "Xb", ("X",)),
    ],
)
def test_changes_are_named(before, now, said):
    def stages(names):
        return [StageCode(name, name.encode()) for name in names]

    assert changes(stages(before), stages(now)) == said


A_CLASS = """
import functools

class Above:
    def shared(self, item):
        return 'above', item

class Job(Above):
    def work(self, item):
        return [self.step(each) for each in (item, item)], (lambda self: self.lazy)(self)

    def step(self, item):
        return self.shared(item)

    def shared(self, item):
        return super().shared(item), self.fixed(item), self.kind(item)

    @property
    def lazy(self):
        return 'lazy'

    @staticmethod
    def fixed(item):
        return 'fixed', item

    @classmethod
    def kind(cls, item):
        return 'kind', item

    @functools.cache
    def cached(self):
        return 'cached'

    def alone(self, item):
        return 'alone', item, self.cached

    def itself(self, item):
        return self.itself(item)

class Called(Job):
    def __call__(self, item):
        return self.work(item)
"""


@pytest.mark.parametrize("old", ["'above'", "'fixed'", "'kind'", "'lazy'", "return self.shared(item)"])
def test_a_method_is_known_by_the_methods_that_it_uses(old):
    """What a helper does, the results depend on: it is of the same object, however far down it is called."""
    assert old in A_CLASS
    sources = A_CLASS, A_CLASS.replace(old, f"{old}, 1")
    one, other = (made(source, "Job")() for source in sources)
    assert of(one.work) != of(other.work)
    assert of(one.alone) == of(other.alone)
    assert of(made(sources[0], "Called")()) != of(made(sources[1], "Called")())


def test_a_method_behind_a_cache_counts_and_one_that_calls_itself_has_an_end():
    one, other = (made(source, "Job")() for source in (A_CLASS, A_CLASS.replace("'cached'", "'other'")))
    assert of(one.alone) != of(other.alone)
    assert of(one.work) == of(other.work)
    assert of(one.itself) == of(other.itself)
