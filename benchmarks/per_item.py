"""Microseconds per item of `map` beside its peers, in one run: both loops, ordered and not."""

import argparse
import asyncio
from collections.abc import Sequence
from functools import partial

from aims import Aim, print_aims
from node_peers import CALLS, NODE_PEERS, missing, node_run, node_version
from peers import BOTH, BUFFERED, FLOOR, PEERS, PYTHON_PEERS, REFERENCE, SMALLEST, Peer
from timing import CLOCKS, LOOPS, Case, Cell, busyness, interleave, machine, once, table
from workloads import WORKLOADS, Workload, at_once

UNITS = {"elapsed": "microseconds", "cpu": "microseconds of processor time"}
NODE = "node"
PACKAGES = ("penstock", "uvloop", "streamable", "aiostream", "aiometer", "anyio", "pypeln")
ORDERS = {True: "ordered", False: "unordered"}
LIMITS = {"asyncio": (3, 1.6, 2, 1.2), "uvloop": (2.8, 1.7, 1.7, 1.2)}
"""Times the fastest Python peer at once, with `sleep(0)`, with `sleep(0)` and a buffer; times the floor at 1 ms."""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 rounds of a tenth of the items: a look, not a result")
    parser.add_argument("--rounds", type=at_least_one, metavar="N", help="interleaved runs of every case (default 7)")
    names = [*PEERS, *NODE_PEERS]
    parser.add_argument("--peers", type=among(names), default=names, metavar="A,B", help=", ".join(names))
    parser.add_argument(
        "--workloads", type=among(WORKLOADS), default=list(WORKLOADS), metavar="A,B", help=", ".join(WORKLOADS)
    )
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="elapsed",
        help="`cpu` counts processor time: for a machine that others use too",
    )
    chosen = parser.parse_args(given)
    chosen.rounds = chosen.rounds or (3 if chosen.quick else 7)
    chosen.share = 10 if chosen.quick else 1
    return chosen


def at_least_one(value: str) -> int:
    rounds = int(value)
    if rounds < 1:
        raise argparse.ArgumentTypeError(f"must be an int >= 1, got {value}")
    return rounds


def among(known: Sequence[str]):
    """An argument type: some of the known names, separated by commas."""

    def names(value: str) -> list[str]:
        wanted = [name.strip() for name in value.split(",")]
        if unknown := [name for name in wanted if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
        return wanted

    return names


def case(peer: Peer, workload: Workload, loop: str, *, ordered: bool, share: int) -> Case:
    items = size(workload, share if workload.seconds else share * peer.slower)
    run = peer.run_plain if workload.plain else peer.run
    start = partial(run, workload.fn, range(items), workload.concurrency, ordered)
    return Case((ordered, loop), peer.name, workload.name, items, partial(once, loop, start))


def node_case(peer: str, workload: Workload, *, ordered: bool, share: int) -> Case:
    items = size(workload, share)
    run = node_run(peer, workload.name, items, workload.concurrency, ordered=ordered)
    return Case((ordered, NODE), peer, workload.name, items, run)


def size(workload: Workload, share: int) -> int:
    """One in `share` of the workload's items, but so many that all places are taken twice."""
    return max(workload.items // share, 2 * workload.concurrency)


def warm_up(peers: Sequence[Peer]) -> None:
    """Keep imports and the interpreter's specialising out of the first round."""
    for peer in peers:
        for ordered in peer.orders:
            asyncio.run(peer.run(at_once, range(1_000), 100, ordered))


def report(chosen: argparse.Namespace) -> list[Aim]:
    """Print the tables; what became of the aims."""
    peers, workloads = [PEERS[p] for p in chosen.peers if p in PEERS], [WORKLOADS[w] for w in chosen.workloads]
    in_node = [] if missing() else [p for p in chosen.peers if p in NODE_PEERS]
    print_head(chosen, peers, in_node)
    warm_up(peers)
    cases = [
        case(peer, workload, loop, ordered=ordered, share=chosen.share)
        for ordered in BOTH
        for workload in workloads
        for loop in LOOPS
        for peer in peers
        if ordered in peer.orders
    ]
    cases += [
        node_case(peer, workload, ordered=ordered, share=chosen.share)
        for ordered in BOTH
        for workload in workloads
        for peer in in_node
        if workload.name in CALLS
    ]
    cells = interleave(cases, chosen.rounds, chosen.clock)
    for ordered in BOTH:
        for loop in LOOPS:
            shown = {c: cell for c, cell in cells.items() if c.table in {(ordered, loop), (ordered, NODE)}}
            print(f"\n{ORDERS[ordered]}, {loop}\n\n{table(shown, REFERENCE)}")
    widest = max(cell.spread for cell in cells.values())
    print(f"\nhalf the runs lie within {widest:.0%} of their median (widest cell)", end="")
    ideals = [f"{w.name} {w.ideal_us:.0f}" for w in workloads if w.seconds]
    print(f"; ideal, out of order: {', '.join(ideals)}" if ideals and chosen.clock == "elapsed" else "")
    return aims(cells, chosen.clock)


def print_head(chosen: argparse.Namespace, peers: Sequence[Peer], in_node: Sequence[str]) -> None:
    print(f"# {machine(PACKAGES)}{f', node {node_version()}' if in_node else ''}")
    print(f"# {busyness()}")
    print(f"# {UNITS[chosen.clock]} per item, medians of {chosen.rounds} interleaved rounds", end="")
    print(f", in brackets: times {REFERENCE}" if REFERENCE in chosen.peers else "")
    sizes = (
        f"{w.name} {w.concurrency} ({size(w, chosen.share):,})" for w in (WORKLOADS[name] for name in chosen.workloads)
    )
    print(f"# concurrency (and items): {', '.join(sizes)}")
    for peer in peers:
        held = [ORDERS[ordered] for ordered in peer.orders if not peer.streams(ordered)]
        holds = f"; holds all results{f', {held[0]}' if len(held) < len(peer.orders) else ''}" if held else ""
        fewer = f"; 1/{peer.slower} of the items where calls do not wait" if peer.slower > 1 else ""
        print(f"#   {peer.name}: {peer.note}{holds}{fewer}")
    for peer in in_node:
        print(f"#   {peer}: {NODE_PEERS[peer]}; in a process of its own, the same figures beside both loops")
    if missing() and any(name in NODE_PEERS for name in chosen.peers):
        print(f"#   no peers of Node: {missing()}")


def aims(cells: dict[Case, Cell], clock: str) -> list[Aim]:
    """The aims of which this run has the figures; processor time says nothing of calls that wait."""
    medians = {(c.table, c.row, c.column): cell.median for c, cell in cells.items()}
    fastest = "the fastest Python peer"
    found = []
    for loop, (returning, strict, buffered, floor) in LIMITS.items():
        for ordered in BOTH:
            for row, workload, beside, others, limit in (
                (REFERENCE, "at once", fastest, PYTHON_PEERS, returning),
                (REFERENCE, "sleep(0)", fastest, PYTHON_PEERS, strict),
                (BUFFERED, "sleep(0)", fastest, PYTHON_PEERS, buffered),
                (SMALLEST, "sleep(0)", fastest, PYTHON_PEERS, buffered),
                (REFERENCE, "at once", "aiostream", ("aiostream",), 10),
                (REFERENCE, "at once", "aiometer", ("aiometer",), 10),
                (REFERENCE, "sleep(0)", "aiostream", ("aiostream",), 10),
                (REFERENCE, "sleep(0)", "aiometer", ("aiometer",), 10),
                (REFERENCE, "1 ms", FLOOR, (FLOOR,), floor),
            ):
                here = (ordered, loop)
                ours = medians.get((here, row, workload))
                theirs = [medians[here, other, workload] for other in others if (here, other, workload) in medians]
                if ours is None or not theirs or (beside == FLOOR and clock == "cpu"):
                    continue
                where = f"{ORDERS[ordered]}, {loop}, {workload}: {row}"
                if beside == FLOOR:
                    found.append(Aim(f"{where}, time over {beside}'s", ours / min(theirs), limit))
                else:
                    found.append(Aim(f"{where}, speed over {beside}'s", min(theirs) / ours, limit, at_least=True))
    return found


def main() -> None:
    print_aims(report(arguments()))


if __name__ == "__main__":
    main()
