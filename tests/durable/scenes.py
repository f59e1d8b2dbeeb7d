"""Small durable runs whose every write is recorded: three roots, stored in two transactions."""

import asyncio
from contextlib import contextmanager

from penstock.durable import delivery
from penstock.durable.ledger import Ledger
from penstock.sinks.table import SqliteTable
from penstock.sinks.vectors import SqliteVectors
from penstock.sources.keyed import keyed
from penstock.testing import run_in_real_time

from .programs import Item, row

BAD = "c.1"
MANY = 40


def texts(text):
    """What a root becomes: none of them the same number of rows; the first is big, `c.1` is dead."""
    if text == BAD:
        return None
    return [f"{text}.{n}" for n in range({"a": MANY, "b": 3, "c": 0}[text[0]])]


def expected(key, version):
    wanted = texts(f"{key}.{version}")
    return None if wanted is None else sorted(wanted)


def roots(**versions):
    return [Item(key, version) for key, version in versions.items()]


LIVES = (roots(a=0, b=0, c=0), roots(a=0, b=1, c=1), roots(a=1, b=1, c=2))
"""All is new; one has changed and one is dead; a big one has changed, and the dead one."""


class Scene:
    """Runs over three roots in one database, with what they have acknowledged in the tape beside what they wrote."""

    def __init__(self, database, durability="process", sink="table"):
        self._is_index = sink == "index"
        self._sink = SqliteVectors(database) if self._is_index else SqliteTable(database, "rows")
        self.durability = durability
        self.tape = []
        self._committed = set()

    def live(self, items):
        """Run to the end."""
        self._committed = set()
        with self._watched():
            return run_in_real_time(self._run(items))

    async def _run(self, items):
        first = {item.text for item in items[:2]}

        async def become(item):
            if item.text not in first:  # the rest comes to a transaction of its own
                while not self._committed >= (first & self._taken):  # noqa: ASYNC110 -- the writer's thread adds to it
                    await asyncio.sleep(0)
            self._taken.add(item.text)
            return texts(item.text) or ([BAD] if item.text == BAD else [])

        async def work(text):
            if text == BAD:
                raise ValueError("it is bad")
            return {**row(text), "vector": [1.0, 2.0]} if self._is_index else row(text)

        self._taken = set()
        stream = keyed(items, key=lambda item: item.key, version=lambda item: str(item.version))
        return (
            await stream.flat_map(become, ordered=False, concurrency=3)
            .map(work, on_error="collect")
            .to(self._sink, run="run", durability=self.durability)
        )

    @contextmanager
    def _watched(self):
        """Note what is acknowledged, and stage what is more than a few rows."""
        committed, held = Ledger.committed, delivery.HELD

        def acknowledged(ledger, root):
            committed(ledger, root)
            self._committed.add(f"{root.key}.{root.version}")
            self.tape.append(("acknowledged", root.key, root.version, b""))

        Ledger.committed, delivery.HELD = acknowledged, 10
        try:
            yield
        finally:
            Ledger.committed, delivery.HELD = committed, held


def acknowledged(tape):
    """The roots of which the tape says so, in the version that came last."""
    return {key: version for operation, key, version, _ in tape if operation == "acknowledged"}
