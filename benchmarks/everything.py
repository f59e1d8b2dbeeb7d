"""All that has an aim, in turn, from an item to a resumed run; then one list of the aims, and what each part took.

A part that fails does not end the others; then the exit code is 1.
"""

import argparse
import sys
import traceback
from time import monotonic

import curve
import memory
import per_item
import resume
import scaling
import utilisation
from aims import print_aims
from timing import CLOCKS, aligned

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
ROUNDS = ["--rounds", "5"]
"""Of the times per item: with these, all takes less than ten minutes."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench all", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer items and rounds: a look, not a result")
    parser.add_argument("--clock", choices=CLOCKS, default="elapsed", help="of the times per item; see `bench --help`")
    chosen = parser.parse_args()
    quick = ["--quick"] if chosen.quick else []
    found, failed, parts, began = [], [], [], monotonic()
    for title, program in PROGRAMS.items():
        print(f"\n== {title}\n", flush=True)
        clock = ["--clock", chosen.clock] if program in PER_ITEM else []
        rounds = ROUNDS if program is per_item and not chosen.quick else []
        start = monotonic()
        try:
            found += program.report(program.arguments([*quick, *clock, *rounds]))
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- whatever it is, the others are to be measured
            traceback.print_exc()
            failed.append(f"{title}: {type(error).__name__}: {error}")
        parts.append((title, f"{monotonic() - start:.0f} s"))
        print(f"\n({parts[-1][1]}; {monotonic() - began:.0f} s since the start)", flush=True)
    print_aims(found)
    print(f"\n{aligned([('part', 'took'), *parts, ('all', f'{monotonic() - began:.0f} s')])}")
    if failed:
        print("\nFailed:", *failed, sep="\n  ")
        sys.exit(1)


if __name__ == "__main__":
    main()
