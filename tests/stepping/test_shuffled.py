"""The promises hold in whatever order the loop has its callbacks: none rests on who was scheduled first.

Kept is only that the callbacks which one step has scheduled come in the order in which it scheduled them.
"""

import asyncio
import itertools
import random

import pytest

from penstock import merge, stream
from penstock.testing import Gauge, Scripted

from ..guarantees.grids import assert_balanced, named  # noqa: TID252 -- test folders are not packages
from ..guarantees.operators import WINDOWS  # noqa: TID252
from .scenes import ALL, COUNT, KINDS, MORE, READ_WHOLE, Scene

pytestmark = pytest.mark.grid

SEEDS = range(6)


def test_every_operator_gives_what_it_gives_in_any_order_of_callbacks(shuffled, share):
    """P3, P4, P5."""
    for (operator, kind, seed), read in zip(share(ALL, KINDS, SEEDS), itertools.cycle(READ_WHOLE)):

        async def main(operator=operator, kind=kind, read=read):
            scene = Scene(operator, **kind)
            assert scene.items(await read(scene)) == list(range(COUNT))
            await scene.check()

        with named(operator=operator, read=read, **kind):
            shuffled(main(), seed=seed)


BOUNDED = [*WINDOWS, *(operator for operator in MORE if operator.name in {"through", "timed", "retried"})]
"""Operators that settle an item when its result is handed on."""


def test_a_window_keeps_its_bound_and_its_order_in_any_order_of_callbacks(shuffled, share):
    """P1, P3, P5: however slow the consumer; and the books balance whenever anybody looks."""
    for operator, kind, seed in share(BOUNDED, KINDS[:3], SEEDS):

        async def main(operator=operator, kind=kind, seed=seed):
            async def call(item):
                assert_balanced(run.stats())
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(chance.choice([0, 0, 1]))
                assert_balanced(run.stats())

            chance, gauge, results = random.Random(seed), Gauge(), []
            source = Scripted(range(12), delay=lambda _: chance.choice([None, 0, 1]))
            async with operator.build(stream(source), gauge.wrap(call), **kind).open() as run:
                async for result in source.settling(run):
                    results += operator.items(result)
                    assert_balanced(run.stats())
                    await asyncio.sleep(chance.choice([0, 1]))
            assert (results if kind.get("ordered", True) else sorted(results)) == list(range(12))
            assert gauge.peak <= kind["concurrency"]
            assert operator.settles_late or source.peak_unsettled <= operator.places(
                kind["concurrency"], kind.get("buffer", 0)
            )

        with named(operator=operator, **kind):
            shuffled(main(), seed=seed)


def test_a_source_that_is_always_ready_starves_no_other_in_any_order_of_callbacks(shuffled):
    """P3: what is late by chance is late for both."""

    async def main():
        async with merge(itertools.repeat("a"), Scripted(itertools.repeat("b"), delay=0)).open() as items:
            got = [await anext(items) for _ in range(600)]
        assert got.count("b") > 60

    for seed in SEEDS:
        shuffled(main(), seed=seed)
