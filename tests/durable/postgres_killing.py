# ruff: noqa: T201 -- a program that prints
"""Kills runs into PostgreSQL, and the server under them, at random times, and compares the table with plain code.

    python -m tests.durable.postgres_killing KILLS [SEED]      prints a table, and exits with 1 if anything was wrong

In a life of a run its process is killed, or the server, or both; the server is started again at once. After each life
the table is read: the rows of each settled root are those that its version comes to, all of them and each once; no row
is of another root; and no root that was settled before was called again.
"""

import asyncio
import os
import random
import signal
import sys
import traceback
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic, sleep

import psycopg
from tests.postgres import server

import penstock
from penstock.durable import StoreError
from penstock.durable.postgres.postgres_reader import key_of

from .programs import chance

ROOTS = 120
EACH = 50
"""Kills of a campaign, each in a database of its own."""

SERVER = ("fsync=off", "shared_buffers=32MB", "max_connections=50")
"""A kill of processes loses nothing of what the system has; commits are flushed to it, as they are by default."""

AWAY = 3
"""How a process ends that cannot open its run, as the server is away; one that is under way waits for it."""

LIMIT = 120.0
"""Seconds after which a life counts as hung."""


def expected(key, version):
    """The rows that a root comes to; None if it is dead."""
    text = f"{key}.{version}"
    if chance("dead", text) < 0.05:
        return None
    if chance("big", text) < 0.02:
        return [f"{text}.{n}" for n in range(1_500)]
    return [f"{text}.{n}" for n in range(int(4 * chance("rows", text)))]


def stream(versions, seed, called):
    """The run, in a process that may be killed."""
    chances = random.Random(seed)

    async def split(item):
        called(f"{item[0]}.{item[1]}")
        if chances.random() < 0.3:
            await asyncio.sleep(chances.random() * 0.01)
        rows = expected(*item)
        if rows is None:
            raise ValueError(item)
        return [{"key": str(item[0]), "version": item[1], "text": text} for text in rows]

    def one(item):
        called(f"{item[0]}.{item[1]}")
        return {"key": str(item[0]), "version": item[1], "text": f"{item[0]}.{item[1]}.0"}

    items = list(versions.items())
    source = penstock.keyed(items, key=lambda item: item[0], version=lambda item: str(item[1]), name="roots")
    if seed % 3 == 0:  # one row each: roots are settled in bundles
        return source.map(one)
    return source.flat_map(split, concurrency=6, ordered=bool(seed % 2), on_error="collect")


def rows_expected(seed, key, version):
    return [f"{key}.{version}.0"] if seed % 3 == 0 else expected(key, version)


@dataclass
class Campaign:
    """Lives of one run in one database."""

    server: object
    seed: int
    kills: int = 0
    server_kills: int = 0
    lives: int = 0
    lost: int = 0
    duplicated: int = 0
    problems: list = field(default_factory=list)

    def __post_init__(self):
        self._chances = random.Random(self.seed)
        self.dsn = self.server.new()
        self._versions = {key: 0 for n in range(ROOTS) for key in [f"r{n:03}" if n % 2 else n]}
        self._settled = {}

    def run(self, kills):
        while self.kills + self.server_kills < kills and not self.problems:
            self._life(*self._deaths())
        for _ in range(0 if self.problems else 3):
            if self._life(None, None) == 0:
                break
        done = {key: version for key, (version, _) in self._settled.items()}
        if not self.problems and done != {key: str(version) for key, version in self._versions.items()}:
            self.problems.append(f"seed {self.seed}: at the end not all roots are settled in their versions")

    def _deaths(self):
        """After how many seconds the process is killed, and the server."""
        chances = self._chances
        times = chances.random() ** 2 * 0.6, 0.06 + chances.random() * 0.6
        return chances.choice(((times[0], None), (times[0], None), (None, times[1]), times))

    def _life(self, dies, server_dies):  # noqa: C901 -- one life, from its start to its end
        if self.lives and self._chances.random() < 0.5:
            for key in self._versions:
                self._versions[key] += self._chances.random() < 0.05
        self.lives += 1
        seed = self.seed * 1_000 + self._chances.randrange(1_000) * 3 + self.seed % 3
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            self._be(writing, seed)
        os.close(writing)
        began = monotonic()
        code = None
        for at, kill in sorted(
            (at, kill) for at, kill in ((dies, "process"), (server_dies, "server")) if at is not None
        ):
            while code is None and monotonic() < began + at:
                code = ended(pid)
                sleep(0.001)
            if kill == "server":
                self.server.kill()
                self.server.start()
                self.server_kills += 1
            elif code is None:
                os.kill(pid, signal.SIGKILL)
                self.kills += 1
        while code is None:
            code = ended(pid)
            if code is None and monotonic() > began + LIMIT:
                self.problems.append(f"seed {self.seed}, life {self.lives}: it hangs")
                os.kill(pid, signal.SIGKILL)
            sleep(0.001)
        with os.fdopen(reading) as called:
            texts = called.read().splitlines()
        said = [text for text in texts if text.startswith("!")]
        texts = [text for text in texts if not text.startswith("!")]
        may_be_away = server_dies is not None and not texts
        if code not in {0, -signal.SIGKILL} and not (may_be_away and code == AWAY):
            self.problems.append(f"seed {self.seed}, life {self.lives}: it ended with {code} {said}")
        self._examine(texts)
        return code

    def _be(self, writing, seed):
        code = 1
        try:
            sink = penstock.PostgresTable(self.dsn, "rows")
            made = stream(self._versions, seed, lambda text: os.write(writing, f"{text}\n".encode()))
            asyncio.run(made.to(sink, run="r", find_killers=False))
            code = 0
        except StoreError as error:  # the server was away when the run was opened
            code = AWAY
            os.write(writing, f"! {error}\n".encode())
        except BaseException:  # noqa: BLE001 -- told, whatever it is
            traceback.print_exc()
        finally:
            os._exit(code)

    def _examine(self, called):
        before = {f"{key}.{version}" for key, (version, _) in self._settled.items()}
        if again := before & {*called}:
            self.problems.append(f"seed {self.seed}, life {self.lives}: called again although settled: {sorted(again)}")
        with psycopg.connect(self.dsn) as connection:
            there = {
                name: connection.execute(f"SELECT to_regclass('{name}') IS NOT NULL").fetchone()[0]
                for name in ("penstock_roots", "rows")
            }
            roots = (
                connection.execute("SELECT id, key, version, state FROM penstock_roots").fetchall()
                if there["penstock_roots"]
                else []
            )
            rows = (
                connection.execute("SELECT penstock_root, text FROM rows ORDER BY penstock_row").fetchall()
                if there["rows"]
                else []
            )
        texts = {}
        for root, text in rows:
            texts.setdefault(root, []).append(text)
        self._settled = {}
        for number, held, version, state in roots:
            key, found = key_of(held), texts.pop(number, [])
            self._settled[key] = version.decode(), state
            wanted = rows_expected(self.seed, key, int(version.decode()))
            if (wanted is None) != (state == 1):
                self.problems.append(f"seed {self.seed}: root {key} is in state {state}")
            if wanted is None and found in self._earlier(key, int(version.decode())):
                continue  # a dead root keeps the rows of the version before
            missing = Counter(wanted or ()) - Counter(found)
            over = Counter(found) - Counter(wanted or ())
            self.lost += missing.total()
            self.duplicated += over.total()
            if found != (wanted or []):
                self.problems.append(f"seed {self.seed}: root {key} has {found[:5]}, not {(wanted or [])[:5]}")
        if texts:
            self.duplicated += sum(map(len, texts.values()))
            self.problems.append(f"seed {self.seed}: rows of no root: {list(texts.items())[:3]}")

    def _earlier(self, key, version):
        return [rows_expected(self.seed, key, each) for each in range(version)]


def ended(pid):
    """How a process has ended; None if it has not."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def main():
    kills, seed = int(sys.argv[1]), int((*sys.argv[2:], "0")[0])
    began, total, problems = monotonic(), Counter(), []
    with server(SERVER) as own, suppress(KeyboardInterrupt):
        while total["process"] + total["server"] < kills and not problems:
            made = Campaign(own, seed)
            made.run(min(EACH, kills - total["process"] - total["server"]))
            total.update(process=made.kills, server=made.server_kills, lives=made.lives)
            total.update(lost=made.lost, duplicated=made.duplicated)
            problems += made.problems
            print(f"{monotonic() - began:7.1f} s  {dict(total)}  seed {seed}", flush=True)
            seed += 1
    print("\n| process killed | server killed | lives | rows lost | duplicated |\n|---:|---:|---:|---:|---:|")
    print("| " + " | ".join(f"{total[name]:,}" for name in ("process", "server", "lives", "lost", "duplicated")) + " |")
    for problem in problems:
        print(f"WRONG: {problem}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
