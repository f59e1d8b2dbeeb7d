"""Index a folder of documents and ask it something; the index is kept for the time of one question.

    python examples/index_documents.py FOLDER QUESTION
    python examples/index_documents.py docs "how are retries spaced?" -k 5

Needs what indexes need: pip install 'penstock[embed]'.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from penstock.workflows import embed, search


async def answer(folder: Path, question: str, count: int) -> None:
    """Index `folder`, and print where the best answers stand."""
    with tempfile.TemporaryDirectory() as place:
        index = Path(place, "index.db")
        report = await embed(folder, index, exclude=["test*"])
        print(f"{report.files} files, {report.chunks} chunks, {report.failed} failed")
        for hit in search(index, question, k=count):
            print(f"{hit.path}:{hit.first_line}  {hit.heading}")


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Index a folder of documents and ask it something.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("question")
    parser.add_argument("-k", dest="count", type=int, default=3, help="how many answers; default: 3")
    options = parser.parse_args()
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is not a folder")
    if options.count < 1:
        parser.error(f"-k must be at least 1, got {options.count}")
    try:
        asyncio.run(answer(options.folder, options.question, options.count))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
