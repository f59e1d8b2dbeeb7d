"""Build pages of HTML from *.txt files: check, compile and pack, with programs that are run for what has changed alone.

    python examples/build_pages.py FOLDER
    python examples/build_pages.py FOLDER --out pages.txt --workspace .build

A build: each text is compiled by a program of its own, four at once. `memo=True` keeps what a program gave, by what it
was given: a second build compiles nothing, a changed text is compiled alone, and a build that follows one that was
killed compiles what is missing. Ends with 0 if all went well.
"""

import argparse
import asyncio
import hashlib
import sys
from pathlib import Path

from penstock.flow import Pipeline, PipelineEngine, command, parallel, step

COMPILER = (
    "import sys; title, _, text = sys.stdin.read().partition(chr(10)); "
    "print(f'<h1>{title}</h1>' + ''.join(f'<p>{line}</p>' for line in text.splitlines() if line))"
)


def read(folder: str) -> list[str]:
    """Give the texts of a folder, in the order of their names."""
    return [path.read_text() for path in sorted(Path(folder).glob("*.txt"))]


def pack(pages: list[str]) -> str:
    """Put the pages into one text."""
    return "".join(pages)


def count(page: str) -> int:
    """Count the words of the pages."""
    return len(page.split())


def digest(page: str) -> str:
    """Say what the pages are known by."""
    return hashlib.sha256(page.encode()).hexdigest()[:12]


COMPILE = command("compile", [sys.executable, "-c", COMPILER], stdin=str, memo=True, timeout=60)
BUILD = (
    Pipeline("build", takes=str)
    .step("read", read)
    .map("pages", COMPILE, concurrency=4)
    .step("pack", pack)
    .add(parallel("facts", [step("words", count), step("digest", digest)]))
)


def run(folder: str, out: Path, workspace: Path) -> int:
    """Build, and say how much of it was new."""
    result = asyncio.run(PipelineEngine(workspace, concurrency=4).run(BUILD, folder))
    if result.error is not None:
        print(result.error, file=sys.stderr)
        return 1
    out.write_text(result.outputs["pack"])
    pages = [each for each in result.steps if each.path.startswith("pages[")]
    words, known_by = result.outputs["facts"]
    print(f"{len(pages)} pages, {sum(each.attempts > 0 for each in pages)} compiled: {words} words, {known_by}")
    return 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Build pages from texts.")
    parser.add_argument("folder", help="a folder with *.txt files; the first line of each is its title")
    parser.add_argument("--out", type=Path, default=Path("pages.html"), help="the result; default: pages.html")
    parser.add_argument("--workspace", type=Path, default=Path(".build"), help="the record of runs; default: .build")
    options = parser.parse_args()
    if not Path(options.folder).is_dir():
        parser.error(f"{options.folder} is not a folder")
    try:
        return run(options.folder, options.out, options.workspace)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
