"""Durable runs for tests that kill them, and plain list code that says what rows they come to.

A text names what it is of: `r007.2` is the root r007 in its version 2, `r007.2.1` the second piece of that.
"""

import asyncio
import os
import random
import signal
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penstock.core.retry import Retry
from penstock.sinks.callback import Callback
from penstock.sinks.table import SqliteTable
from penstock.sinks.vectors import SqliteVectors
from penstock.sources.keyed import keyed

BIG = 40
"""Rows of a root that are many where only a few are held."""


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a source."""

    key: str
    version: int

    @property
    def text(self):
        return f"{self.key}.{self.version}"


def chance(what, text):
    """A number of [0, 1) that stands fast for this text."""
    return zlib.crc32(f"{what} {text}".encode()) / 2**32


def pieces(text):
    return [f"{text}.{n}" for n in range(int(5 * chance("pieces", text)))]


def many_pieces(text):
    return [f"{text}.{n}" for n in range(BIG if chance("big", text) < 0.2 else 1)]


def is_bad(text):
    return chance("bad", text) < 0.1


def is_rarely_bad(text):
    return chance("rarely bad", text) < 0.012


def is_kept(text):
    return chance("kept", text) < 0.3


def row(text):
    return {"text": text, "size": len(text)}


class Life:
    """One process of a durable run: its functions note every call in a file that is only ever appended to.

    `begin(life)` is called in each process of its own that it takes.
    """

    def __init__(self, number, folder, seed):
        self.number = number
        self.folder = folder
        self._random = random.Random(seed)
        self._file = os.open(folder / "calls", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._tried = set()
        self.begin = None

    def __getstate__(self):
        return {**self.__dict__, "_file": None}

    def __setstate__(self, state):
        """Go on in a worker of the run, in which roots are tried."""
        self.__dict__.update(state)
        self._file = os.open(self.folder / "calls", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        if self.begin is not None:
            self.begin(self)

    def note(self, kind, text):
        os.write(self._file, f"{kind} {self.number} {text}\n".encode())

    async def call(self, text):
        self.note("called", text)
        await asyncio.sleep(self._random.choice((0, 0, 0.0005, 0.001, 0.003)))

    async def one(self, item):
        await self.call(item.text)
        return row(f"{item.text}.0")

    async def split(self, item):
        await self.call(item.text)
        return pieces(item.text)

    async def split_big(self, item):
        await self.call(item.text)
        return many_pieces(item.text)

    async def generate(self, item):
        await self.call(item.text)
        for text in pieces(item.text):
            await self.call(text)
            yield text

    def generate_plainly(self, item):
        self.note("called", item.text)
        yield from pieces(item.text)

    async def work(self, text):
        await self.call(text)
        return row(text)

    def work_in_thread(self, text):
        self.note("called", text)
        return row(text)

    async def risky(self, text):
        await self.call(text)
        if is_bad(text):
            raise ValueError(f"{text} is bad")
        return row(text)

    async def rarely_risky(self, text):
        await self.call(text)
        if is_rarely_bad(text):
            raise ValueError(f"{text} is bad")
        return row(text)

    async def unstorable(self, text):
        """A row that brings a column; a bad one has a value that no column holds, or the key of another row."""
        row = await self.work(text)
        first = f"{text.rpartition('.')[0]}.0"
        bad = {"text": first} if is_bad(text) and text != first else {"size": 1j} if is_bad(text) else {}
        return row | {f"column {zlib.crc32(text.encode()) % 7}": 1} | bad

    async def flaky(self, text):
        await self.call(text)
        if text not in self._tried:
            self._tried.add(text)
            raise ConnectionError("the first attempt fails")
        return row(text)

    async def keep(self, text):
        await self.call(text)
        return is_kept(text)

    async def embed(self, texts):
        for text in texts:
            self.note("called", text)
        await self.call(texts[0])
        return [row(text) for text in texts]

    async def embed_riskily(self, texts):
        rows = await self.embed(texts)
        if any(map(is_bad, texts)):
            raise ValueError("one of them is bad")
        return rows

    async def with_vector(self, row):
        return {**row, "vector": [1.0, len(row["text"]), 0.0]}

    async def send(self, rows):
        """Hand rows over to another system, in two parts: a kill may come between."""
        for some in (rows[::2], rows[1::2]):
            for row in some:
                self.note("sent", f"{row.key} {row.version} {row.index} {row.id} {row.row['text']}")
            await asyncio.sleep(0)

    async def forking(self, item):
        """Leave a process behind, once in a life, that has whatever this one has open, and lives on."""
        if not self._tried:
            self._tried.add(item)
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                child = os.fork()
            if not child:
                signal.alarm(120)
                with (self.folder / "grandchildren").open("a") as file:
                    file.write(f"{os.getpid()}\n")
                while True:
                    signal.pause()
        return await self.one(item)


def into_a_table(life):
    return SqliteTable(life.folder / "run.db", "rows")


def into_a_table_with_a_key(life):
    return SqliteTable(life.folder / "run.db", "rows", key="text")


def into_an_index(life):
    return SqliteVectors(life.folder / "run.db", dimensions=3)


def into_a_function(life):
    return Callback(life.send, journal=life.folder / "run.db")


@dataclass(frozen=True, slots=True)
class Program:
    """A durable run.

    Attributes:
        build: adds its operators to a stream of items; without any, the rows come from the source itself.
        rows: the texts of the rows that a text of a root comes to; None if the root is dead.
        changes: the share of items that change between two lives.
        vanishes: the share of items that are not there in a life.
        sources: how many keyed sources are merged.
        held: rows of unfinished roots that may be held before some are staged; 0 for what is usual.
        sink: makes the sink of a life.
        to: options of `to`.
    """

    build: Callable[[Life, Any], Any] | None
    rows: Callable[[str], list[str] | None]
    changes: float = 0
    vanishes: float = 0
    sources: int = 1
    held: int = 0
    sink: Callable[[Life], Any] = into_a_table
    to: tuple[tuple[str, str], ...] = ()

    @property
    def keeps(self):
        """Whether a root that dies has the rows of its version before."""
        return dict(self.to).get("on_dead", "keep") == "keep"

    def keyed(self, items):
        """Give the items by the keys that the journal knows them under."""
        if self.sources == 1:
            return {item.key: item for item in items}
        return {f"{n % self.sources}:{item.key}": item for n, item in enumerate(items)}

    def stream(self, life, items):
        def source(n):
            return keyed(items[n :: self.sources], key=lambda item: item.key, version=lambda item: str(item.version))

        if self.build is None:
            rows = [row(text) for item in items for text in whole(item.text)]
            return keyed(rows, key=lambda row: row["text"].split(".")[0], version=lambda row: row["text"].split(".")[1])
        first, *others = (source(n) for n in range(self.sources))
        return self.build(life, first.merge(*others) if others else first)

    def expected(self, key, version):
        """What the root of that key in the journal comes to: its texts, sorted, or None if it is dead."""
        texts = self.rows(f"{key.partition(':')[2] or key}.{version}")
        return None if texts is None else sorted(texts)


def whole(text):
    return [f"{text}.0"]


def unless_bad(text):
    texts = pieces(text)
    return None if any(map(is_bad, texts)) else texts


def fan_out(life, items):
    return items.flat_map(life.split, concurrency=4).map(life.work, concurrency=8)


PROGRAMS = {
    "ordered": Program(lambda life, items: items.map(life.one, concurrency=8, buffer=8), whole),
    "unordered": Program(lambda life, items: items.map(life.one, concurrency=8, ordered=False), whole),
    "fan-out": Program(fan_out, pieces),
    "generators": Program(
        lambda life, items: items.flat_map(life.generate, concurrency=4, buffer=4, ordered=False).map(life.work),
        pieces,
    ),
    "threads": Program(
        lambda life, items: items.flat_map(life.generate_plainly, concurrency=2).map(
            life.work_in_thread, concurrency=4
        ),
        pieces,
    ),
    "filters": Program(
        lambda life, items: (
            items.flat_map(life.split, concurrency=4)
            .filter(life.keep, concurrency=4)
            .prefetch(4)
            .map(life.work, concurrency=4, ordered=False)
        ),
        lambda text: list(filter(is_kept, pieces(text))),
    ),
    "batches": Program(
        lambda life, items: items.flat_map(life.split, concurrency=8).map_batches(life.embed, 7, concurrency=2),
        pieces,
    ),
    "unordered batches": Program(
        lambda life, items: items.flat_map(life.split, concurrency=8, ordered=False).map_batches(
            life.embed, 7, concurrency=3, ordered=False
        ),
        pieces,
    ),
    "batches, bad items": Program(
        lambda life, items: items.flat_map(life.split, concurrency=8).map_batches(
            life.embed_riskily, 7, concurrency=2, on_error="collect"
        ),
        unless_bad,
    ),
    "collected": Program(
        lambda life, items: items.flat_map(life.split, concurrency=4).map(
            life.risky, concurrency=8, ordered=False, on_error="collect"
        ),
        unless_bad,
    ),
    "skipped": Program(
        lambda life, items: items.flat_map(life.split, concurrency=4).map(life.risky, concurrency=8, on_error="skip"),
        lambda text: [piece for piece in pieces(text) if not is_bad(piece)],
    ),
    "retried": Program(
        lambda life, items: items.flat_map(life.split, concurrency=4).map(
            life.flaky, concurrency=8, retry=Retry(on=ConnectionError, initial=0.0005, jitter=0)
        ),
        pieces,
    ),
    "plain rows": Program(None, whole),
    "plain rows, changing": Program(None, whole, changes=0.1, vanishes=0.2),
    "changing": Program(fan_out, pieces, changes=0.2),
    "changing, collected": Program(
        lambda life, items: items.flat_map(life.split, concurrency=4).map(
            life.risky, concurrency=8, ordered=False, on_error="collect"
        ),
        unless_bad,
        changes=0.2,
    ),
    "refused": Program(
        lambda life, items: items.flat_map(life.split, concurrency=4).map(life.unstorable, concurrency=8),
        unless_bad,
        changes=0.2,
        sink=into_a_table_with_a_key,
        to=(("on_error", "collect"), ("on_dead", "remove")),
    ),
    "refused, staged": Program(
        lambda life, items: items.flat_map(life.split, concurrency=4).map(life.unstorable, ordered=False),
        unless_bad,
        changes=0.2,
        held=2,
        sink=into_a_table_with_a_key,
        to=(("on_error", "collect"),),
    ),
    "vanishing, kept": Program(fan_out, pieces, changes=0.1, vanishes=0.2),
    "vanishing, deleted": Program(fan_out, pieces, changes=0.1, vanishes=0.2, to=(("on_missing", "delete"),)),
    "merged": Program(fan_out, pieces, sources=2),
    "staged": Program(
        lambda life, items: items.flat_map(life.split_big, concurrency=3, ordered=False).map(life.work, concurrency=8),
        many_pieces,
        changes=0.1,
        held=15,
    ),
    "staged, collected": Program(
        lambda life, items: items.flat_map(life.split_big, concurrency=3, ordered=False).map(
            life.rarely_risky, concurrency=8, ordered=False, on_error="collect"
        ),
        lambda text: None if any(map(is_rarely_bad, many_pieces(text))) else many_pieces(text),
        held=15,
    ),
    "index": Program(
        lambda life, items: fan_out(life, items).map(life.with_vector, concurrency=4),
        pieces,
        changes=0.1,
        vanishes=0.1,
        sink=into_an_index,
        to=(("on_missing", "delete"),),
    ),
    "function": Program(fan_out, pieces, changes=0.1, sink=into_a_function),
    "remembered": Program(
        lambda life, items: items.flat_map(life.split, concurrency=4).map(
            life.work, concurrency=8, memo=True, deps="the same"
        ),
        pieces,
        changes=0.1,
    ),
    "grandchild": Program(lambda life, items: items.map(life.forking, concurrency=4), whole),
    "power": Program(fan_out, pieces, changes=0.1, to=(("durability", "power"),)),
}
