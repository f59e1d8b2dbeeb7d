# ruff: noqa: INP001, S603, T201 -- a program that prints, and starts itself
"""Kill durable runs so often, start them again, and compare what they deliver with plain list code.

Prints a line for each campaign (a kind of run, a seed) while it goes on, then two tables, by kind and by point; Ctrl-C
ends it after what was done. Exits with 1 if a row was lost or duplicated, or anything else was wrong.
"""

import argparse
import json
import random
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from time import monotonic

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.durable.programs import PROGRAMS

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("kills", "open", "redone", "lost", "duplicated")
TITLES = ("kills", "roots open", "redone", "rows lost", "duplicated")
EACH = 100
"""Kills of a campaign."""


class Matrix:
    """What came of all kills, by kind of run and by point."""

    def __init__(self) -> None:
        self.by_program: dict[str, Counter[str]] = {}
        self.by_point: dict[str, Counter[str]] = {}
        self.problems: list[str] = []
        self.lives = 0

    def campaign(self, program: str, seed: int, kills: int) -> None:
        """Run one campaign in a process of its own."""
        command = [sys.executable, "-m", "tests.durable.killing", program, str(seed), str(kills)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            self.problems.append(f"{program}, seed {seed}: it ended with {done.returncode}\n{done.stderr}")
            return
        found = json.loads(done.stdout)
        self.lives += found["lives"]
        self.problems += found["problems"]
        if found["problems"]:
            print(done.stderr)
        for point, tally in found["tallies"].items():
            self.by_program.setdefault(program, Counter()).update(tally)
            self.by_point.setdefault(point, Counter()).update(tally)

    @property
    def kills(self) -> int:
        """How many there were."""
        return sum(counts["kills"] for counts in self.by_program.values())


def table(title: str, lines: dict[str, Counter[str]]) -> None:
    """Print a table in Markdown, with a sum."""
    total: Counter[str] = sum(lines.values(), Counter())
    print(f"\n| {title} | {' | '.join(TITLES)} |\n|---{'|---:' * len(TITLES)}|")
    for name, counts in [*lines.items(), ("**all**", total)]:
        print(f"| {name} | {' | '.join(f'{counts[column]:,}' for column in COLUMNS)} |")


def main() -> int:
    """Run campaigns until there were so many kills; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", nargs="?", type=int, default=10_000, help="how often (%(default)d)")
    parser.add_argument("seed", nargs="?", type=int, default=random.randrange(10**6), help="of the first campaigns")  # noqa: S311 -- no secret
    options = parser.parse_args()
    kills, seed = options.kills, options.seed
    began, matrix = monotonic(), Matrix()
    each = min(EACH, -(-kills // len(PROGRAMS)))
    with suppress(KeyboardInterrupt):
        while matrix.kills < kills and not matrix.problems:
            for program in PROGRAMS:
                matrix.campaign(program, seed, each)
                print(f"{monotonic() - began:7.1f} s  {matrix.kills:>7,} kills  seed {seed}  {program}", flush=True)
            seed += 1
    table("run", matrix.by_program)
    table("killed", dict(sorted(matrix.by_point.items())))
    print(f"\n{matrix.kills:,} kills, {matrix.lives:,} processes, {monotonic() - began:.0f} s")
    for problem in matrix.problems:
        print(f"WRONG: {problem}")
    if matrix.problems:
        print("again: .venv/bin/python -m tests.durable.killing PROGRAM SEED KILLS")
    return 1 if matrix.problems else 0


if __name__ == "__main__":
    sys.exit(main())
