"""Documents into vectors as a batch and as a stream: memory, the first result and throughput, by how many there are.

The same functions in all forms: penstock's splitter and its hash embedder. A document of 50 kB is made when it is
read, so that what is measured is what each form keeps. The batch reads all, splits all, embeds all. The stream is a
`StreamingPipeline` with one call of each function at a time, as the batch has; in threads, two of each; in worker
processes, which get a document each. With `--latency`, both streams embed eight lists at a time in threads. Each run is
a process of its own; all must give the same rows. A batch that would take more than half of the free memory, by its run
over fewer documents, is left out.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from itertools import batched
from pathlib import Path

import numpy as np
from aims import Aim, print_aims
from memory import forget_peak, peak_mib
from timing import CLOCKS, aligned, busyness, machine

from penstock.flow import StreamingPipeline
from penstock.workflows import HashEmbedder
from penstock.workflows.documents.chunking import split

COUNTS = (1_000, 10_000, 100_000)
SIZE = 50_000
TEXTS = 64
WARM_UP = 20
SAVED, FIRST, FLAT, SLOWER = 0.9, 1.0, 1.1, 1.0

WORDS = ("amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "harbor", "inlet", "jetty", "knoll", "lagoon")
pick = random.Random(1)
POOL = "\n\n".join(f"## Part {n}\n\n{' '.join(pick.choices(WORDS, k=150))}" for n in range(200))
"""Longer than three documents; each takes another part of it."""

embedder = HashEmbedder()
latency = float(os.environ.get("LATENCY", "0"))
"""Seconds more that a call of the embedder takes, as one of a server would; worker processes read it, too."""


@dataclass(frozen=True)
class Ran:
    """What a run took: seconds, those until the first row, MiB above the baseline, processor seconds; and its rows."""

    seconds: float
    first: float
    memory: float
    cpu: float
    rows: int
    digest: int


class Rows:
    """Takes rows as they come; keeps their number, a sum in which order does not count, and the first moment."""

    def __init__(self) -> None:
        self.count = self.digest = 0
        self.first = 0.0

    def take(self, vector: np.ndarray) -> None:
        self.first = self.first or time.perf_counter()
        self.count += 1
        self.digest += zlib.crc32(vector)


# The functions that both forms use


def read(number: int) -> str:
    """A document."""
    begin = number * 997 % (len(POOL) - SIZE)
    return f"# Document {number}\n\n{POOL[begin : begin + SIZE]}"


def chunks(document: str) -> list[str]:
    return [chunk.text for chunk in split("document.md", document)]


def embed(texts: Sequence[str]) -> list[np.ndarray]:
    time.sleep(latency)
    return list(embedder.embed(texts))


def rows_of(number: int) -> list[np.ndarray]:
    return [row for texts in batched(chunks(read(number)), TEXTS) for row in embed(texts)]


# The forms


def by_batch(count: int, rows: Rows) -> None:
    documents = [read(number) for number in range(count)]
    texts = [text for document in documents for text in chunks(document)]
    vectors = [vector for some in batched(texts, TEXTS) for vector in embed(some)]
    for vector in vectors:
        rows.take(vector)


def of_texts(inputs: int, calls: int) -> StreamingPipeline[int, np.ndarray]:
    """A pipeline that splits so many documents at once, and embeds so many lists: in threads where they are several."""
    return StreamingPipeline(
        "documents",
        lambda numbers: (
            numbers.map(read).flat_map(chunks, concurrency=inputs).map_batches(embed, TEXTS, concurrency=calls)
        ),
        takes=int,
    )


ONE_BY_ONE = of_texts(1, 8 if latency else 1)
THREADS = of_texts(2, 8 if latency else 2)
PROCESSES = StreamingPipeline(
    "documents", lambda numbers: numbers.flat_map(rows_of, concurrency=4, engine="process"), takes=int
)


def streamed(pipeline: StreamingPipeline[int, np.ndarray], count: int, rows: Rows) -> None:
    async def consume() -> None:
        async with pipeline.open(range(count)) as vectors:
            async for vector in vectors:
                rows.take(vector)

    asyncio.run(consume())


WAYS = {
    "batch": by_batch,
    "stream": partial(streamed, ONE_BY_ONE),
    "stream, in threads": partial(streamed, THREADS),
    "stream, in processes": partial(streamed, PROCESSES),
}


# What is measured


def be_child(way: str, count: int) -> None:
    """Run it, and print what it took."""
    WAYS[way](WARM_UP, Rows())
    forget_peak()
    baseline = peak_mib()
    rows = Rows()
    before, began = cpu(), time.perf_counter()
    WAYS[way](count, rows)
    seconds = time.perf_counter() - began
    ran = Ran(seconds, rows.first - began, peak_mib() - baseline, cpu() - before, rows.count, rows.digest)
    print(json.dumps(vars(ran)))


def cpu() -> float:
    """Processor seconds of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def run(way: str, count: int) -> Ran:
    command = [sys.executable, __file__, "--child", way, str(count)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Ran(**json.loads(done.stdout))


def free_mib() -> float:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 2**10


def measured(counts: Sequence[int], ways: Sequence[str], rounds: int) -> Iterator[tuple[str, int, Ran | None]]:
    """What each way takes, by the medians of its runs, between which the others have theirs; None: it would not fit."""
    last: dict[str, tuple[int, Ran]] = {}
    for count in counts:
        runs: dict[str, list[Ran]] = {way: [] for way in ways if fits(*last.get(way, (count, None)), count)}
        for _ in range(rounds if count <= COUNTS[1] else 1):
            for way, ran in runs.items():
                ran.append(run(way, count))
                print(f"# {count:,} documents by {way}: {ran[-1].seconds:.1f} s", file=sys.stderr, flush=True)
        for way in ways:
            if way not in runs:
                yield way, count, None
                continue
            fields = zip(*(astuple(ran) for ran in runs[way]), strict=True)
            middle = Ran(*map(statistics.median_low, fields))
            last[way] = count, middle
            yield way, count, middle


def fits(fewer: int, ran: Ran | None, count: int) -> bool:
    return ran is None or ran.memory * count / fewer <= free_mib() / 2


def report(counts: Sequence[int], ways: Sequence[str], rounds: int, clock: str) -> list[Aim]:
    print(f"# {machine(['penstock'])}")
    print(f"# {busyness()}")
    slower = os.environ["LATENCY"]
    print(f"# documents of {SIZE:,} bytes, {TEXTS} texts a call, which takes {slower} s more;")
    print(f"# medians of {rounds} runs; MiB are above those after {WARM_UP} documents; the last two: of batch\n")
    found: dict[tuple[str, int], Ran] = {}
    lines: list[tuple[str, ...]] = [
        ("documents", "", "MiB", "first row s", "seconds", "documents/s", "CPU ms a document", "throughput", "CPU")
    ]
    for way, count, ran in measured(counts, ways, rounds):
        if ran is None:
            lines.append((f"{count:,}", way, "does not fit", "", "", "", "", "", ""))
            continue
        found[way, count] = ran
        rates = f"{ran.seconds:.1f}", f"{count / ran.seconds:,.0f}", f"{ran.cpu / count * 1000:.2f}"
        batch = found.get(("batch", count))
        times = (f"{batch.seconds / ran.seconds:.2f}x", f"{batch.cpu / ran.cpu:.2f}x") if batch else ("", "")
        lines.append((f"{count:,}", way, f"{ran.memory:,.0f}", f"{ran.first:.2f}", *rates, *times))
    print(aligned(lines))
    for count in counts:
        kinds = {(ran.rows, ran.digest) for (_, each), ran in found.items() if each == count}
        assert len(kinds) <= 1, f"the forms gave other rows for {count} documents"
    return list(aims(found, counts, clock))


def aims(found: dict[tuple[str, int], Ran], counts: Sequence[int], clock: str) -> Iterator[Aim]:
    """Those of the stream with one call at a time: threads share one lock, and processes take a second to start."""
    for count in counts:
        batch, stream = found.get(("batch", count)), found.get(("stream", count))
        if stream is None:
            continue
        yield Aim(f"{count:,} documents: first row", stream.first, FIRST, form="{:.2f} s")
        if batch:
            taken = (batch.cpu, stream.cpu) if clock == "cpu" else (batch.seconds, stream.seconds)
            yield Aim(
                f"{count:,} documents: throughput over batch, {clock}", taken[0] / taken[1], SLOWER, at_least=True
            )
        if batch and count >= COUNTS[1]:
            yield Aim(
                f"{count:,} documents: memory below batch", 1 - stream.memory / batch.memory, SAVED, True, "{:.1%}"
            )
        few = found.get(("stream", count // 10))
        if few and count > COUNTS[1]:
            yield Aim(f"{count:,} documents: memory over {count // 10:,}", stream.memory / few.memory, FLAT)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench batch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="documents (1000 10000 100000)")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=3, help="runs of each way, for up to 10,000 documents (3)")
    parser.add_argument("--latency", default="0", help="seconds more a call of the embedder, as a server has (0)")
    parser.add_argument("--clock", choices=CLOCKS, default="elapsed", help="of the throughput; see `bench --help`")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, count = options.child
        be_child(way, int(count))
        return
    os.environ["LATENCY"] = options.latency
    print_aims(report(options.counts, options.ways, options.rounds, options.clock))


if __name__ == "__main__":
    main()
