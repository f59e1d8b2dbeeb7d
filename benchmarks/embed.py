"""Documents into an index, end to end: penstock beside the batch form and LlamaIndex's IngestionPipeline.

All read the same files, cut them by penstock's own splitter, embed them 64 texts at a time with penstock's hash
embedder, and store text and vector in SQLite. Each is run to its end, and killed with SIGKILL at several points of its
way and started again.
"""

import argparse
import asyncio
import contextlib
import gc
import hashlib
import os
import random
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import batched
from pathlib import Path

import apsw
import numpy as np
from memory import forget_peak, peak_mib
from timing import aligned, busyness, machine

from penstock.workflows import HashEmbedder, embed
from penstock.workflows.documents.chunking import split

BATCH = 64
SOME = 100
LOOK = 0.005
KILLS = (0.1, 0.3, 0.5, 0.7, 0.9, 1)
"""Parts of all texts; when they are embedded, the run is killed."""

WORDS = ("amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "harbor", "inlet", "jetty", "knoll", "lagoon")
TABLES = ("entries", "chunks")
TABLE = "CREATE TABLE IF NOT EXISTS chunks (path, text, vector)"
ROW = "INSERT INTO chunks VALUES (?, ?, ?)"


def write_corpus(root: Path, files: int) -> None:
    """Markdown files of five chunks each, the same at any time."""
    pick = random.Random(1)
    for number in range(files):
        path = root / f"{number // 200:03}" / f"{number:05}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = (f"# Part {part} of {number}\n\n{' '.join(pick.choices(WORDS, k=150))}\n" for part in range(5))
        path.write_text("\n".join(parts))


class Counted(HashEmbedder):
    """Writes down how many texts it was given, in a file that only grows; takes `latency` more, as a server would."""

    def __init__(self, log: str, latency: float) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._latency = latency

    def embed(self, texts):
        os.write(self._log, f"{len(texts)}\n".encode())
        time.sleep(self._latency)
        return super().embed(texts)


# The ways of doing it


def by_penstock(corpus: Path, target: str, embedder: Counted) -> None:
    asyncio.run(embed(corpus, target, embedder=embedder))


def titled(path: Path, chunk) -> str:
    """What penstock embeds of a chunk, too."""
    return f"{f'{path.stem} {chunk.heading}'.strip()}\n{chunk.text}"


def by_batches(corpus: Path, target: str, embedder: Counted) -> None:
    """Read all, split all, embed all, write all."""
    contents = [(path, path.read_text()) for path in sorted(corpus.rglob("*.md"))]
    chunks = [(path, chunk) for path, content in contents for chunk in split(path.name, content)]
    texts = [titled(path, chunk) for path, chunk in chunks]
    vectors = np.concatenate([embedder.embed(batch) for batch in batched(texts, BATCH)])
    rows = [(str(path), chunk.text, vector.tobytes()) for (path, chunk), vector in zip(chunks, vectors, strict=True)]
    with contextlib.closing(apsw.Connection(target)) as connection, connection:
        connection.execute(TABLE)
        connection.executemany(ROW, rows)


def by_llama(corpus: Path, target: str, embedder: Counted, some: int | None = None) -> None:
    """One `run` over all documents, or one for `some` of them at a time; what is done is persisted after each."""
    from llama import documents, pipeline  # noqa: PLC0415 -- only this peer's process is to import it

    place = f"{target}.pipeline"
    ingestion = pipeline(target, embedder, BATCH, place, caches=some is None)
    paths = sorted(corpus.rglob("*.md"))
    for part in batched(paths, some or len(paths)):
        ingestion.run(documents=documents(part))
        ingestion.persist(place)


WAYS = {
    "penstock": by_penstock,
    "the batch form": by_batches,
    "LlamaIndex": by_llama,
    f"LlamaIndex, {SOME} documents a run": lambda *arguments: by_llama(*arguments, some=SOME),
}


def be_child(way: str, corpus: str, target: str, log: str, latency: float) -> None:
    """Do it, in a process of its own; say when it begins and what memory it took above that of an idle process."""
    embedder = Counted(log, latency)
    HashEmbedder().embed(["warm up"])
    if way.startswith("LlamaIndex"):
        import llama  # noqa: F401, PLC0415 -- as above
    gc.collect()
    forget_peak()
    before = peak_mib()
    print("begin", flush=True)
    WAYS[way](Path(corpus), target, embedder)
    print(peak_mib() - before, flush=True)


# What is measured


@dataclass
class Outcome:
    seconds: float
    first_row: float | None
    memory: float
    cpu: float


def started(way: str, corpus: Path, target: Path, log: Path, latency: float) -> subprocess.Popen[str]:
    """The process, which is about to begin."""
    command = [sys.executable, __file__, "--child", way, str(corpus), str(target), str(log), str(latency)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0)
    assert process.stdout is not None
    assert process.stdout.readline() == "begin\n", way
    return process


def rows_in(target: Path) -> Counter[bytes]:
    """The rows that a reader sees, each as a digest, with how often it is there."""
    if not target.exists():
        return Counter()
    connection = apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READWRITE)  # a kill may have left work to undo
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
        statement = "SELECT path, text, vector FROM chunks"
        if "entries" in tables:
            statement = (
                "SELECT key, text, vector FROM entries JOIN vectors USING (id) "
                "JOIN penstock_roots ON penstock_roots.id = penstock_root"
            )
        elif "chunks" not in tables:
            return Counter()
        return Counter(hashlib.sha256(repr(row).encode()).digest() for row in connection.execute(statement))
    finally:
        connection.close()


def count_rows(target: Path) -> int:
    """How many rows another process can read just now."""
    try:
        connection = apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READONLY)
    except apsw.CantOpenError:
        return 0
    try:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return sum(connection.execute(f"SELECT count(*) FROM {name}").get for name in names if name in TABLES)
    except apsw.Error:  # locked just now
        return 0
    finally:
        connection.close()


def run_to_the_end(way: str, corpus: Path, target: Path, log: Path, latency: float) -> Outcome | None:
    """What it took; None if it has failed."""
    process = started(way, corpus, target, log, latency)
    began, first_row = time.perf_counter(), None
    ended = os.pidfd_open(process.pid)
    try:
        while not is_over(ended):
            if first_row is None and count_rows(target):
                first_row = time.perf_counter() - began
    finally:
        os.close(ended)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stdout is not None
    with process.stdout as told:
        return None if status else Outcome(seconds, first_row, float(told.read()), usage.ru_utime + usage.ru_stime)


def is_over(process: int) -> bool:
    """Whether it has ended; looks again after a moment."""
    return bool(select.select([process], [], [], LOOK)[0])


def killed_when(process: subprocess.Popen[str], is_time: Callable[[], bool]) -> None:
    while process.poll() is None and not is_time():
        time.sleep(LOOK / 5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def embedded(log: Path) -> int:
    return sum(map(int, log.read_text().split())) if log.exists() else 0


def fresh() -> Iterator[tuple[Path, Path]]:
    """A place for an index and one for the log of the embedder."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(place, "index.db"), Path(place, "texts.log")


def measure(corpus: Path, latency: float, rounds: int, ways: list[str]) -> None:
    outcomes: dict[str, list[Outcome]] = {way: [] for way in ways}
    expected: Counter[bytes] | None = None
    for _ in range(rounds):
        for way in ways:
            for target, log in fresh():
                outcome = run_to_the_end(way, corpus, target, log, latency)
                assert outcome, f"{way} has failed"
                outcomes[way].append(outcome)
                found = rows_in(target)
                expected = found if expected is None else expected
                assert found == expected, f"{way} stored other rows"
    assert expected is not None
    print(
        f"\n{expected.total():,} rows each, the same ones; {latency * 1_000:g} ms a call beside the embedding itself\n"
    )
    lines = [("", "seconds", "CPU s", "first row s", "MiB above idle")]
    for way in ways:
        each = outcomes[way]
        first = [outcome.first_row for outcome in each if outcome.first_row is not None]
        numbers = [
            statistics.median(values) for values in zip(*((o.seconds, o.cpu, o.memory) for o in each), strict=True)
        ]
        shown = f"{statistics.median(first):.2f}" if first else "at the end"
        lines.append((way, f"{numbers[0]:.2f}", f"{numbers[1]:.2f}", shown, f"{numbers[2]:.0f}"))
    print(aligned(lines))
    parts = ", ".join(f"{part:.0%}" for part in KILLS)
    print(f"\nKilled when {parts} of the texts were embedded, and run again to the end:\n")
    print(killed_at(corpus, latency, ways, expected, KILLS))
    print("\nKilled as soon as all rows could be read, and run again:\n")
    print(killed_at(corpus, latency, ways, expected, [None]), flush=True)


def killed_at(
    corpus: Path, latency: float, ways: list[str], expected: Counter[bytes], parts: Sequence[float | None]
) -> str:
    """The table of what kills at these parts of the texts have cost; None is when all rows are there."""
    lines = [("", "rows kept", "texts paid twice", "had to be cleared", "rows lost", "rows twice")]
    for way in ways:
        kept = again = cleared = lost = twice = 0
        for part in parts:
            for target, log in fresh():

                def is_time(target: Path = target, log: Path = log, part: float | None = part) -> bool:
                    if part is None:
                        return count_rows(target) >= expected.total()
                    return embedded(log) >= part * expected.total()

                killed_when(started(way, corpus, target, log, latency), is_time)
                kept += rows_in(target).total()
                if run_to_the_end(way, corpus, target, log, latency) is None:
                    cleared += 1
                    shutil.rmtree(f"{target}.pipeline")
                    assert run_to_the_end(way, corpus, target, log, latency)
                again += embedded(log) - expected.total()
                found = rows_in(target)
                lost += (expected - found).total()
                twice += (found - expected).total()
        whole = len(parts) * expected.total()
        counts = (f"{number:,}" for number in (cleared, lost, twice))
        lines.append((way, f"{kept / whole:.0%}", f"{again / whole:.0%}", *counts))
    return aligned(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=500, help="documents of five chunks each (500)")
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0, 0.05], help="seconds more a call (0 0.05)")
    parser.add_argument("--rounds", type=int, default=3, help="of whole runs (3)")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, corpus, target, log, latency = options.child
        be_child(way, corpus, target, log, float(latency))
        return
    print(machine(["penstock", "llama-index-core"]))
    print(busyness())
    with tempfile.TemporaryDirectory() as place:
        write_corpus(Path(place), options.files)
        for latency in options.latency:
            measure(Path(place), latency, options.rounds, options.ways)


if __name__ == "__main__":
    main()
