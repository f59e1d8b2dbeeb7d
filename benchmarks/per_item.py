"""Microseconds per item of `map` beside its peers, in one run: both loops, ordered and not."""

import argparse
import asyncio
from functools import partial

from peers import PEERS, REFERENCE, Peer
from timing import CLOCKS, LOOPS, Case, busyness, interleave, machine, table
from workloads import WORKLOADS, Workload, at_once

CONCURRENCY = 100
UNITS = {"elapsed": "microseconds", "cpu": "microseconds of processor time"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 rounds of a tenth of the items: a look, not a result")
    parser.add_argument("--rounds", type=at_least_one, metavar="N", help="interleaved runs of every case (default 7)")
    parser.add_argument("--peers", type=among(PEERS), default=list(PEERS), metavar="A,B", help=", ".join(PEERS))
    parser.add_argument(
        "--workloads", type=among(WORKLOADS), default=list(WORKLOADS), metavar="A,B", help=", ".join(WORKLOADS)
    )
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="elapsed",
        help="`cpu` counts processor time: for a machine that others use too",
    )
    chosen = parser.parse_args()
    chosen.rounds = chosen.rounds or (3 if chosen.quick else 7)
    return chosen


def at_least_one(value: str) -> int:
    rounds = int(value)
    if rounds < 1:
        raise argparse.ArgumentTypeError(f"must be an int >= 1, got {value}")
    return rounds


def among(known: dict):
    """An argument type: some of the known names, separated by commas."""

    def names(value: str) -> list[str]:
        wanted = [name.strip() for name in value.split(",")]
        if unknown := [name for name in wanted if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
        return wanted

    return names


def case(peer: Peer, workload: Workload, loop: str, *, ordered: bool, items: int) -> Case:
    start = partial(peer.run, workload.fn, range(items), CONCURRENCY, ordered)
    return Case(peer.name, f"{workload.name}, {loop}", loop, items, start)


def warm_up(peers: list[Peer]) -> None:
    """Keep imports and the interpreter's specialising out of the first round."""
    for peer in peers:
        asyncio.run(peer.run(at_once, range(1_000), CONCURRENCY, peer.orders[0]))


def main() -> None:
    chosen = arguments()
    print(f"# {machine(['penstock', 'uvloop', 'streamable'])}")
    print(f"# {busyness()}")
    print(
        f"# concurrency {CONCURRENCY}, {UNITS[chosen.clock]} per item, medians of {chosen.rounds} interleaved rounds",
        end="",
    )
    print(f", in brackets: times {REFERENCE}" if REFERENCE in chosen.peers else "")
    peers, workloads = [PEERS[p] for p in chosen.peers], [WORKLOADS[w] for w in chosen.workloads]
    for peer in peers:
        print(f"#   {peer.name}: {peer.note}{'' if peer.streams else '; holds all results'}")
    warm_up(peers)
    for ordered in (True, False):
        cases = [
            case(peer, workload, loop, ordered=ordered, items=workload.items // (10 if chosen.quick else 1))
            for workload in workloads
            for loop in LOOPS
            for peer in peers
            if ordered in peer.orders
        ]
        cells = interleave(cases, chosen.rounds, CLOCKS[chosen.clock])
        print(f"\n{'ordered' if ordered else 'unordered'}\n")
        print(table(cells, REFERENCE))
        ideals = "; ".join(
            f"{w.name}: {w.ideal_us(CONCURRENCY):g}" for w in workloads if w.seconds and chosen.clock == "elapsed"
        )
        print(
            f"\nhalf the runs lie within {max(c.spread for c in cells.values()):.0%} of their median (widest cell)",
            end="",
        )
        print(f"; ideal {ideals}" if ideals else "")


if __name__ == "__main__":
    main()
