"""Microseconds per item of `map` by the number of items, by concurrency, and by the number of stages."""

import argparse
from collections.abc import Sequence
from functools import partial

from aims import Aim, print_aims
from peers import FLOOR, PEERS, REFERENCE
from timing import CLOCKS, Case, Cell, busyness, interleave, machine, once, table
from workloads import at_once, one_turn

import penstock

COUNTS = (10_000, 100_000, 1_000_000)
FULL = (10_000_000,)
CONCURRENCIES = (1, 10, 100, 1_000, 10_000)
STAGES = (1, 2, 5, 10, 20)
CALLS = {"at once": at_once, "sleep(0)": one_turn}
LOOP = "asyncio"
CONSTANT = 1.25
"""How much dearer an item may be at one end than at the other and count as the same: what runs differ by anyway."""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench scaling", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of fewer items: a look, not a result")
    parser.add_argument("--full", action="store_true", help=f"also {FULL[0]:,} items")
    parser.add_argument("--clock", choices=CLOCKS, default="elapsed", help="`cpu` counts processor time")
    return parser.parse_args(given)


async def through(stages: int, count: int) -> int:
    stream = penstock.stream(range(count))
    for _ in range(stages):
        stream = stream.map(at_once, concurrency=100)
    seen = 0
    async with stream.open() as results:
        async for _ in results:
            seen += 1
    return seen


def case(peer: str, call: str, items: int, concurrency: int, column: int) -> Case:
    start = partial(PEERS[peer].run, CALLS[call], range(items), concurrency, ordered=True)
    return Case("", f"{peer}, {call}", f"{column:,}", items, partial(once, LOOP, start))


def measured(cases: Sequence[Case], chosen: argparse.Namespace, title: str) -> dict[Case, Cell]:
    cells = interleave(cases, 1 if chosen.quick else 3, chosen.clock)
    print(f"\n{title}\n\n{table(cells, '')}")
    return cells


def aim(what: str, cells: Sequence[Cell]) -> Aim:
    medians = [cell.median for cell in cells]
    return Aim(f"{what}: the dearest over the cheapest", max(medians) / min(medians), CONSTANT)


def report(chosen: argparse.Namespace) -> list[Aim]:
    print(f"# {machine(['penstock'])}")
    print(f"# {busyness()}")
    print(f"# microseconds per item ({chosen.clock}), {LOOP}, ordered, buffer=0")
    once(LOOP, partial(stage_items, 2))  # keeps imports and the interpreter's specialising out of the first run
    counts = COUNTS[:2] if chosen.quick else COUNTS + (FULL if chosen.full else ())
    by_count = measured(
        [case(REFERENCE, "at once", count, 100, column=count) for count in counts],
        chosen,
        "items, concurrency 100",
    )
    items = 20_000 if chosen.quick else 50_000
    by_concurrency = measured(
        [
            case(peer, call, items, concurrency, column=concurrency)
            for call in CALLS
            for peer in (FLOOR, REFERENCE)
            for concurrency in CONCURRENCIES
        ],
        chosen,
        f"concurrency, {items:,} items",
    )
    by_stages = measured(
        [
            Case("", "per stage", str(stages), 10_000 * stages, partial(once, LOOP, partial(stage_items, stages)))
            for stages in STAGES
        ],
        chosen,
        "stages, 10,000 items, calls that return at once: microseconds per item and stage",
    )
    return [
        aim(f"{counts[0]:,} to {counts[-1]:,} items", list(by_count.values())),
        *(
            aim(
                f"concurrency {first:,} to 10,000, {call}",
                [
                    cell
                    for case, cell in by_concurrency.items()
                    if case.row == f"{REFERENCE}, {call}"
                    and case.column in [f"{c:,}" for c in CONCURRENCIES if c >= first]
                ],
            )
            for first in CONCURRENCIES[:2]
            for call in CALLS
        ),
        aim("1 to 20 stages, per stage", list(by_stages.values())),
    ]


async def stage_items(stages: int) -> int:
    """What passes through all stages together."""
    return stages * await through(stages, 10_000)


def main() -> None:
    print_aims(report(arguments()))


if __name__ == "__main__":
    main()
