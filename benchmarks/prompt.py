"""A prompt over 10,000 rows against a service with limits and faults: penstock beside what people use for it.

The service is `limited_service.py`, in a process of its own; each peer is in one, too. Each does all rows once; then
again from the beginning, is killed with SIGKILL when 40 % of the rows are answered, and is started once more. What is
found of a peer is printed as soon as it is done; `--peers` does some of them.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from limited_service import REQUESTS, TOKENS, answer_of, prompt_of
from prompt_peers import PEERS
from timing import aligned, busyness, machine

HEADS = (
    "seconds",
    "CPU s",
    "requests wasted",
    "answers lost",
    "doubled or wrong",
    "paid twice after SIGKILL",
    "lost or doubled after it",
    "peak MiB",
    "tokens miscounted",
)
HERE = Path(__file__).parent
KILLED_AT = 0.4
LOOK = 0.05
MOST = 900.0
"""Seconds after which a peer is given up."""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench prompt", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000, help="rows to ask about (10,000)")
    parser.add_argument("--peers", default=",".join(PEERS), help="their names, with commas between them")
    parser.add_argument("--no-kills", action="store_true", help="only the runs to the end")
    chosen = parser.parse_args(given)
    chosen.peers = chosen.peers.split(",")
    if unknown := set(chosen.peers) - PEERS.keys():
        parser.error(f"--peers: there is no {', '.join(sorted(unknown))}, there are {', '.join(PEERS)}")
    return chosen


# The service


class Service:
    """The process of the service."""

    def __enter__(self) -> Self:
        command = [sys.executable, str(HERE / "limited_service.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def get(self, path: str) -> dict:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{self.url}/{path}") as response:
            return json.load(response)

    def answered(self) -> Counter[int]:
        return Counter({int(row): times for row, times in self.get("books")["answered"].items()})


# Measuring


@dataclass
class Outcome:
    seconds: float
    cpu: float
    wasted: int
    lost: int
    doubled: int
    mib: float
    miscounted: int
    statuses: dict[str, int]
    paid_again: int | None = None
    lost_by_kill: int | None = None


def started(peer: str, service: Service, rows: Path, place: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "prompt_peers.py"), peer, service.url, str(rows), str(place)]
    proxies = {"http_proxy", "https_proxy", "all_proxy"}
    env = {name: value for name, value in os.environ.items() if name.lower() not in proxies}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0, env=env)


def wrong(peer: str, place: Path, count: int) -> tuple[int, int]:
    """Rows without their answer, and answers that are there twice or are others."""
    found = Counter(PEERS[peer].answers(place))
    expected = {(row, answer_of(row)) for row in range(count)}
    return len(expected - found.keys()), found.total() - len(found.keys() & expected)


def to_the_end(peer: str, service: Service, rows: Path, place: Path) -> tuple[float, dict]:
    began = time.perf_counter()
    process = started(peer, service, rows, place)
    try:
        told = process.communicate(timeout=MOST)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return MOST, {"tokens": 0, "mib": 0.0, "cpu": 0.0}
    if process.returncode:
        raise SystemExit(f"{peer} has failed")
    return time.perf_counter() - began, json.loads(told)


def measured(peer: str, service: Service, rows: Path, count: int, *, kills: bool) -> Outcome:
    with tempfile.TemporaryDirectory() as place:
        service.get("again")
        seconds, told = to_the_end(peer, service, rows, Path(place))
        books = service.get("books")
        lost, doubled = wrong(peer, Path(place), count)
    outcome = Outcome(
        seconds,
        told["cpu"],
        books["requests"] - count,
        lost,
        doubled,
        told["mib"],
        abs(told["tokens"] - books["tokens"]),
        books["statuses"],
    )
    if kills:
        with tempfile.TemporaryDirectory() as place:
            outcome.paid_again, outcome.lost_by_kill = kill(peer, service, rows, Path(place), count)
    return outcome


def kill(peer: str, service: Service, rows: Path, place: Path, count: int) -> tuple[int, int]:
    """Answers that were paid for twice, and those that are lost or doubled in the end."""
    service.get("again")
    process = started(peer, service, rows, place)
    while process.poll() is None and service.answered().total() < KILLED_AT * count:
        time.sleep(LOOK)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    to_the_end(peer, service, rows, place)
    return service.answered().total() - count, sum(wrong(peer, place, count))


def report(chosen: argparse.Namespace) -> None:
    print(f"# {machine(['penstock', 'async-batch-llm', 'openai', 'tenacity', 'aiohttp', 'uvloop'])}")
    print(f"# {busyness()}")
    least = f"{chosen.rows / REQUESTS * 60:.0f} s at the least"
    print(f"# {chosen.rows:,} rows; {REQUESTS:,} requests and {TOKENS:,} tokens a minute: {least}")
    outcomes = {}
    with tempfile.TemporaryDirectory() as place, Service() as service:
        rows = Path(place, "rows.jsonl")
        rows.write_text("".join(f"{json.dumps({'id': row, 'prompt': prompt_of(row)})}\n" for row in range(chosen.rows)))
        for peer in chosen.peers:
            outcomes[peer] = found = measured(peer, service, rows, chosen.rows, kills=not chosen.no_kills)
            told = ", ".join(f"{head} {figure}" for head, figure in zip(HEADS, figures(found), strict=True) if figure)
            print(f"# {peer}: {told}; statuses {found.statuses}", flush=True)  # a run that is cut has told so much
    print(f"\n{aligned([('', *HEADS), *((peer, *figures(found)) for peer, found in outcomes.items())])}")


def figures(found: Outcome) -> tuple[str, ...]:
    """In the order of `HEADS`."""
    again = "" if found.paid_again is None else f"{found.paid_again:,}"
    by_kill = "" if found.lost_by_kill is None else f"{found.lost_by_kill:,}"
    counted = (f"{found.wasted:,}", f"{found.lost:,}", f"{found.doubled:,}", again, by_kill, f"{found.mib:.0f}")
    return (f"{found.seconds:.1f}", f"{found.cpu:.1f}", *counted, f"{found.miscounted:,}")


if __name__ == "__main__":
    report(arguments())
