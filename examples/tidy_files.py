"""Tidy the text files of a folder in place: no white space at the ends of lines, one line end at the end of the file.

    python examples/tidy_files.py FOLDER
    python examples/tidy_files.py FOLDER --pattern '*.md' --concurrency 4

Read, transform, write, for as many files as there are: eight are open at once. A file is replaced as a whole, so that
it is its old or its new self at any instant, also when this program is killed. Ctrl-C finishes the files at hand. One
that cannot be read or written, or is no text, is named at the end and stops no other. Ends with 0 if all went well.
"""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import penstock

UNFINISHED = ".unfinished"


def tidy(path: Path) -> bool:
    """Tidy one file; whether it had to be changed."""
    old = path.read_bytes()
    text = old.decode()
    new = "".join(f"{line.rstrip()}\n" for line in text.rstrip().split("\n")).encode() if text.strip() else b""
    if new == old:
        return False
    replace(path.resolve(), new)
    return True


def replace(path: Path, contents: bytes) -> None:
    """Give `path` new contents, all of them or none: whoever reads it, and whenever this program is killed."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(path, name)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def files_in(folder: Path, pattern: str) -> Iterator[Path]:
    """The files that match, without what a run that was killed has left, which is removed."""
    for stray in folder.rglob(f".*{UNFINISHED}"):
        stray.unlink(missing_ok=True)
    for path in folder.rglob(pattern):
        if path.is_file() and path.suffix != UNFINISHED:
            yield path


async def tidy_all(folder: Path, pattern: str, concurrency: int) -> int:
    """Tidy what matches, and say what came of it."""
    files = penstock.stream(lambda: files_in(folder, pattern), engine="thread")
    seen = changed = failed = 0
    with penstock.drain_on_signals() as signals:
        async with files.map(tidy, concurrency=concurrency, on_error="return").open() as outcomes:
            async for outcome in outcomes:
                seen += 1
                if isinstance(outcome, penstock.Failed):
                    print(f"{outcome.item}: {outcome.error}", file=sys.stderr)
                    failed += 1
                else:
                    changed += outcome.value
    print(f"{seen} files, {changed} changed, {failed} failed")
    if signals.received:
        print("stopped; start again to go on", file=sys.stderr)
        return 128 + signals.received
    return 1 if failed else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Tidy the text files of a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pattern", default="*.txt", help="which files, in subfolders too; default: *.txt")
    parser.add_argument("--concurrency", type=int, default=8, help="how many at once; default: 8")
    options = parser.parse_args()
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is not a folder")
    if options.concurrency < 1:
        parser.error(f"--concurrency must be at least 1, got {options.concurrency}")
    try:
        return asyncio.run(tidy_all(options.folder, options.pattern, options.concurrency))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
