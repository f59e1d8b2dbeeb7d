"""`penstock.keyed`: any source, with keys; and what a key and a version may be."""

import queue
import threading

import pytest

import penstock
from penstock.sinks.table import SqliteTable

pytestmark = pytest.mark.real_time


@pytest.fixture
def table(tmp_path):
    return SqliteTable(tmp_path / "out.db", "items")


def itself(item):
    return item


def row(item):
    return {"item": str(item)}


def run(source, table, **options):
    return penstock.keyed(source, **({"key": itself} | options)).map(row).to(table, run="r")


@pytest.mark.parametrize("key", [None, 1.5, True, ("a", 1), [1], {"a": 1}], ids=repr)
async def test_a_key_is_a_str_or_an_int(table, key):
    with pytest.raises(penstock.OptionError, match=r"key must give a str or an int, got .* for item 1"):
        await run(["a", key], table)


@pytest.mark.parametrize("key", [2**63, -(2**63) - 1])
async def test_a_key_that_is_an_int_has_at_most_64_bits(table, key):
    with pytest.raises(penstock.OptionError, match=f"an int of at most 64 bits, got {key} for item 0"):
        await run([key], table)
    assert (await run([2**63 - 1, -(2**63)], table)).delivered == 2


async def test_a_key_can_be_written_as_utf_8(table):
    with pytest.raises(penstock.OptionError, match=r"can be written as UTF-8, got 'caf\\udce9' for item 0"):
        await run(["caf\udce9"], table)


@pytest.mark.parametrize("version", [None, 3, b"1"])
async def test_a_version_is_a_str(table, version):
    """One that is stored as another type than it came would differ from itself for ever."""
    with pytest.raises(penstock.OptionError, match=r"version must give a str, got .* for item 0"):
        await run(["a"], table, version=lambda _: version)


async def test_a_version_can_be_written_as_utf_8(table):
    with pytest.raises(penstock.OptionError, match=r"version must give .* written as UTF-8, got 'v\\udce9' for item 0"):
        await run(["a"], table, version=lambda _: "v\udce9")


async def test_an_item_without_a_version_is_done_once(table):
    assert (await run(["a", "b"], table)).delivered == 2
    assert (await run(["b", "a", "c"], table)).already_done == 2


async def test_a_source_that_blocks_is_read_in_a_thread(table):
    class Blocking(queue.SimpleQueue):
        def __iter__(self):
            return iter(self.get, None)

    source = Blocking()
    feeding = threading.Timer(0.01, lambda: [source.put(item) for item in ("a", "b", None)])
    feeding.start()
    report = await run(source, table, engine="thread")
    feeding.join()
    assert report.delivered == 2


async def test_its_length_is_known_to_progress():
    async with penstock.keyed(iter("ab"), key=itself, total=2).open() as items:
        assert items.stats().stages[0].total == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": None}, "key must be callable, got None"),
        ({"version": "mtime"}, "version must be callable, got 'mtime'"),
        ({"name": ""}, "name must be a non-empty str, got ''"),
        ({"total": -1}, "total must be an int >= 0, got -1"),
        ({"engine": "process"}, "engine must be one of None, 'thread', got 'process'"),
        ({"source": 3}, "source must be an iterable"),
    ],
)
def test_options_are_checked_when_the_stream_is_made(options, message):
    with pytest.raises(penstock.OptionError, match=message):
        penstock.keyed(**({"source": [], "key": itself} | options))


def test_an_async_key_function_is_refused():
    async def key(item):
        return item

    with pytest.raises(penstock.OptionError, match="key must be a plain function, got the async"):
        penstock.keyed([], key=key)
