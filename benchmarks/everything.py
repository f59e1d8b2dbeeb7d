"""All that has an aim, in turn, from an item to a resumed run; then one list of the aims."""

import argparse

import curve
import memory
import per_item
import resume
import scaling
import utilisation
from aims import print_aims
from timing import CLOCKS

import durable

PROGRAMS = {
    "per item": per_item,
    "order under lognormal latency": curve,
    "utilisation": utilisation,
    "memory": memory,
    "scaling": scaling,
    "durable runs": durable,
    "resume": resume,
}
PER_ITEM = (per_item, scaling)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench all", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer items and rounds: a look, not a result")
    parser.add_argument("--clock", choices=CLOCKS, default="elapsed", help="of the times per item; see `bench --help`")
    chosen = parser.parse_args()
    quick = ["--quick"] if chosen.quick else []
    found = []
    for title, program in PROGRAMS.items():
        print(f"\n== {title}\n", flush=True)
        clock = ["--clock", chosen.clock] if program in PER_ITEM else []
        found += program.report(program.arguments([*quick, *clock]))
    print_aims(found)


if __name__ == "__main__":
    main()
