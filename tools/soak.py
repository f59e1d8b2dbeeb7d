# ruff: noqa: INP001, T201 -- a program that prints
"""Run random schedules of the properties in tests/properties, with fresh seeds, for so many minutes.

Prints each seed, and for one that fails the smallest schedule that does and the command that runs it again. Exits with
1 if one failed. Ctrl-C ends it after the seed that runs, a second one at once.
"""

import argparse
import importlib.util
import itertools
import random
import signal
import sys
import traceback
import warnings
from pathlib import Path
from time import monotonic

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.properties.exploring import PLACES, PROPERTIES, explore

SCHEDULES = 50
"""Schedules of a seed: a second or two."""


class Soak:
    """Seeds that were run, and how it went."""

    def __init__(self) -> None:
        self.interrupted = False
        self.seeds = 0
        self.schedules = 0
        self.failed: list[str] = []
        self.unraisable: list[str] = []
        self.began = monotonic()

    def listen(self) -> None:
        """Take Ctrl-C, and what Python could not raise, which is a failure too."""
        signal.signal(signal.SIGINT, self._on_interrupt)
        sys.unraisablehook = lambda said: self.unraisable.append(f"{said.err_msg or 'ignored'}: {said.exc_value!r}")
        warnings.simplefilter("error")

    def _on_interrupt(self, *_: object) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        print("ending after this seed; Ctrl-C again ends at once", flush=True)

    def run(self, name: str, place: str, seed: int, schedules: int) -> None:
        """Run the schedules of a seed."""
        print(f"{monotonic() - self.began:7.1f} s  {name:<9}  {place:<15}  seed {seed:<10}", end="  ", flush=True)
        self.seeds += 1
        try:
            self.schedules += explore(name, PLACES[place], seed, examples=schedules)
            if self.unraisable:
                raise AssertionError("; ".join(self.unraisable))  # noqa: TRY301 -- a failure like any other
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 -- whatever a schedule raises is a failure
            self.unraisable.clear()
            self.failed.append(f"{name} {place} {seed} {schedules}")
            print("FAILED", flush=True)
            traceback.print_exception(error, limit=-6, file=sys.stdout)
        else:
            print(f"{schedules} schedules, none failed", flush=True)

    def summary(self) -> int:
        """Say how it went; the exit code."""
        seconds = monotonic() - self.began
        print(f"\n{self.schedules:,} schedules of {self.seeds:,} seeds in {seconds:.0f} s; {len(self.failed)} failed")
        for again in self.failed:
            print(f"  again: .venv/bin/python tools/soak.py --again {again}")
        return 1 if self.failed else 0


def places() -> list[str]:
    """Where to run: on uvloop too, if there is one."""
    has_uvloop = importlib.util.find_spec("uvloop") is not None
    return [place for place in PLACES if has_uvloop or not place.startswith("uvloop")]


def main() -> int:
    """Soak, or run a seed once more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", nargs="?", type=float, default=20, help="how long (%(default)g)")
    parser.add_argument(
        "--again", nargs=4, metavar=("PROPERTY", "PLACE", "SEED", "N"), help="the N schedules of a seed once more"
    )
    options = parser.parse_args()
    soak = Soak()
    soak.listen()
    try:
        if options.again:
            name, place, seed, schedules = options.again
            soak.run(name, place, int(seed), int(schedules))
        else:
            until = monotonic() + 60 * options.minutes
            for name, place in itertools.cycle(itertools.product(PROPERTIES, places())):
                if soak.interrupted or monotonic() > until:
                    break
                soak.run(name, place, random.getrandbits(32), SCHEDULES)
    except KeyboardInterrupt:
        print("ended")
    return soak.summary()


if __name__ == "__main__":
    sys.exit(main())
