# ruff: noqa: INP001, T201 -- a program that prints
"""Index the standard library of this Python, without its tests, and ask it three questions.

Runs the commands that a user would type; exits with 1 if they do not find what they should.
"""

import json
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

INDEX = "demo-index.db"
LEFT = ("test", "tests", "idle_test", "site-packages", "dist-packages")
QUESTIONS = ("compress bytes", "parse command line arguments", "how do I make a temporary directory?")
EXPECTED = {"gzip.py", "bz2.py", "zipfile"}


def penstock(*arguments: str) -> None:
    """Print a command, then run it."""
    print(f"\n$ penstock {shlex.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "penstock", *arguments], check=True)  # noqa: S603 -- our own command


def finds(question: str, expected: set[str]) -> bool:
    """Whether one of the files or packages is among the first five hits."""
    command = [sys.executable, "-m", "penstock", "search", INDEX, question, "--json"]
    hits = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)  # noqa: S603 -- our own command
    return any(expected & set(Path(hit["path"]).parts[-2:]) for hit in hits)


def main() -> int:
    """Make the index afresh, ask, check; the exit code."""
    for suffix in ("", "-wal", "-shm"):
        Path(INDEX + suffix).unlink(missing_ok=True)
    excluded = [word for name in LEFT for word in ("--exclude", name)]
    try:
        penstock("embed", sysconfig.get_path("stdlib"), "--to", INDEX, *excluded)
        for question in QUESTIONS:
            penstock("search", INDEX, question)
        if finds(QUESTIONS[0], EXPECTED):
            return 0
    except subprocess.CalledProcessError as error:
        print(f"demo: {shlex.join(error.cmd)} failed with exit code {error.returncode}", file=sys.stderr)
        return 1
    print(f"demo: none of {', '.join(sorted(EXPECTED))} is among the hits for {QUESTIONS[0]!r}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
