"""What `penstock search` puts first, over an index of the standard library of this Python, without its tests.

Rare words: identifiers that are in one file only, drawn at random, each asked for in several forms. The first hit is to
be of that file. Real questions: 40 that a programmer may have, with the modules that answer them; shown are how many
have one of these first, the mean reciprocal rank (MRR) among ten hits, and how many of the first five are of one file.
"""

import argparse
import asyncio
import random
import re
import sysconfig
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from aims import Aim, print_aims
from timing import aligned, machine

from penstock.workflows import embed, search

LEFT = ("test", "tests", "idle_test", "site-packages", "dist-packages")
FORMS = (
    "{}",
    "where is {} used in the code",
    "how do I call {} with a timeout argument",
    "what does {} do?",
    "example of {} in a program",
)
WORD = re.compile(r"\b[A-Za-z_]\w{3,}", re.ASCII)
QUESTIONS = (
    ("how do I make a temporary directory?", "tempfile.py"),
    ("compress bytes with gzip", "gzip.py"),
    ("parse command line arguments", "argparse.py"),
    ("read a csv file into dictionaries", "csv.py"),
    ("schedule a callback on the event loop", "asyncio/base_events.py asyncio/events.py"),
    ("copy a directory tree recursively", "shutil.py"),
    ("send an email over SMTP", "smtplib.py"),
    ("url encode query parameters", "urllib/parse.py"),
    ("run a subprocess and capture its output", "subprocess.py"),
    ("pretty print nested data structures", "pprint.py"),
    ("cache the results of a function", "functools.py"),
    ("parse robots.txt", "urllib/robotparser.py"),
    ("thread pool executor", "concurrent/futures/thread.py"),
    ("rotate log files by size", "logging/handlers.py"),
    ("compare two sequences and show a unified diff", "difflib.py"),
    ("exact decimal arithmetic with rounding", "_pydecimal.py decimal.py"),
    ("escape html special characters", "html/__init__.py"),
    ("serialize an object to bytes", "pickle.py"),
    ("find the median of data", "statistics.py"),
    ("shuffle a list randomly", "random.py"),
    ("parse an xml document into a tree of elements", "xml/etree/ElementTree.py"),
    ("read and write zip archives", "zipfile/__init__.py"),
    ("match filenames with shell patterns", "fnmatch.py glob.py"),
    ("wrap text to a given width", "textwrap.py"),
    ("set a breakpoint in the debugger", "bdb.py pdb.py"),
    ("profile the time that functions take", "cProfile.py profile.py pstats.py"),
    ("weak references to values in a mapping", "weakref.py"),
    ("a priority queue heap", "heapq.py"),
    ("binary search in a sorted list", "bisect.py"),
    ("handle HTTP cookies", "http/cookiejar.py http/cookies.py"),
    ("a simple http server for files", "http/server.py"),
    ("how to time small bits of code", "timeit.py"),
    ("convert colors between RGB and HSV", "colorsys.py"),
    ("decode quoted-printable text", "quopri.py"),
    ("generate a universally unique identifier", "uuid.py"),
    ("parse ini configuration files", "configparser.py"),
    ("mock an object in a unit test", "unittest/mock.py"),
    ("connect to an ftp server and download a file", "ftplib.py"),
    ("iterate over a directory tree", "os.py"),
    ("trace memory allocations", "tracemalloc.py"),
)


def files() -> list[Path]:
    """The files that the index is of."""
    root = Path(sysconfig.get_path("stdlib"))
    found = (path for suffix in ("md", "txt", "rst", "py", "html") for path in root.rglob(f"*.{suffix}"))
    return sorted(path for path in found if not set(path.parts) & set(LEFT) and path.is_file())


def rare_words(paths: Sequence[Path]) -> dict[str, str]:
    """The words that one file has, as it writes them, with the file; upper and lower case are one."""
    having = defaultdict[str, set[str]](set)
    written = dict[str, str]()
    for path in paths:
        for word in WORD.findall(path.read_text(errors="replace")):
            having[word.lower()].add(str(path.resolve()))
            written.setdefault(word.lower(), word)
    return {written[word]: min(of) for word, of in sorted(having.items()) if len(of) == 1}


def rank(index: str, question: str, modules: str) -> int | None:
    """The rank of the first of the modules among ten hits."""
    wanted = tuple(f"/{module}" for module in modules.split())
    hits = search(index, question, k=10)
    return next((number for number, hit in enumerate(hits, 1) if hit.path.endswith(wanted)), None)


def most_of_a_file(index: str, question: str) -> int:
    """How many of the first five hits are of the file that has most of them."""
    return max(Counter(hit.path for hit in search(index, question)).values())


def report(index: str, words: int) -> list[Aim]:
    """Print what is measured; the aims."""
    rare = rare_words(files())
    drawn = random.Random(1).sample(sorted(rare), words)
    rows, aims = [("rare words, first hit of their file", "", "")], list[Aim]()
    for form in FORMS:
        began = time.perf_counter()
        first = [bool(hits := search(index, form.format(word), k=1)) and hits[0].path == rare[word] for word in drawn]
        share, each = 100 * sum(first) / words, 1_000 * (time.perf_counter() - began) / words
        rows.append((f"  {form.format('X')}", f"{share:.0f} %", f"{each:.0f} ms"))
        aims.append(Aim(form.format("X"), share, 80, at_least=True, form="{:.0f} %"))
    ranks = [rank(index, *each) for each in QUESTIONS]
    mrr = sum(1 / each for each in ranks if each) / len(ranks)
    rows.append(("real questions, answered by the first hit", f"{ranks.count(1)} of {len(ranks)}", ""))
    rows.append(("real questions, MRR", f"{mrr:.2f}", ""))
    rows.append(
        ("most hits of one file among five", str(max(most_of_a_file(index, each) for each, _ in QUESTIONS)), "")
    )
    print(aligned(rows))
    asked = zip(QUESTIONS, ranks, strict=True)
    missed = [f"{question} ({found or 'not in ten'})" for (question, _), found in asked if found != 1]
    print(f"\n{len(rare):,} rare words, {words} drawn; not first: {'; '.join(missed)}")
    return [*aims, Aim("real questions, first", ranks.count(1), 31, at_least=True, form="{:.0f}")]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench search", description=__doc__)
    parser.add_argument("--index", help="one that `penstock embed` made of the standard library; default: make one")
    parser.add_argument("--words", type=int, default=100, help="rare words that are drawn; default 100")
    chosen = parser.parse_args()
    print(machine(["apsw", "sqlite-vec"]))
    with tempfile.TemporaryDirectory() as place:
        index = chosen.index or f"{place}/stdlib.db"
        if not chosen.index:
            asyncio.run(embed(sysconfig.get_path("stdlib"), index, exclude=LEFT))
        print_aims(report(index, chosen.words))


if __name__ == "__main__":
    main()
