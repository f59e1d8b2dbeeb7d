"""Index a folder of documents and ask it something: python examples/index_documents.py FOLDER QUESTION."""

import asyncio
import sys
import tempfile
from pathlib import Path

from penstock.workflows import embed, search


async def main(folder: str, question: str) -> None:
    """Index `folder` for the time of one question, and print where the answers stand."""
    with tempfile.TemporaryDirectory() as place:
        index = Path(place, "index.db")
        report = await embed(folder, index, exclude=["test*"])
        print(f"{report.files} files, {report.chunks} chunks, {report.failed} failed")
        for hit in search(index, question, k=3):
            print(f"{hit.path}:{hit.first_line}  {hit.heading}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
