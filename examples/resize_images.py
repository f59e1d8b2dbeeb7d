"""Images: download five at a time, make three sizes of each, upload them; one that is broken does not stop the others.

Each step has the concurrency of what is scarce for it: connections for the transfers, cores for the work on the images.

    python examples/resize_images.py                        # twelve images, against a server of its own
    python examples/resize_images.py http://localhost:8000 cat.png dog.png

Uploads are PUT to /thumbnails/<size>/<name>. Needs httpx and Pillow: pip install 'penstock[openai]' pillow.
"""

import argparse
import asyncio
import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import httpx
from demo_server import serving
from PIL import Image

import penstock

SIZES = 64, 256, 1024
AT_ONCE = 5
CORES = 2
AGAIN = penstock.Retry(attempts=3, on=httpx.TransportError)


class Picture(NamedTuple):
    """An image, encoded as PNG."""

    path: str
    content: bytes


async def download(client: httpx.AsyncClient, name: str) -> Picture:
    """The original of that name."""
    response = await client.get(f"/originals/{name}")
    response.raise_for_status()
    return Picture(name, response.content)


def thumbnails(picture: Picture) -> Iterator[Picture]:
    """The picture in three sizes: none is larger than the original."""
    with Image.open(io.BytesIO(picture.content)) as original:
        for size in SIZES:
            small = original.copy()
            small.thumbnail((size, size))
            file = io.BytesIO()
            small.save(file, "PNG")
            yield Picture(f"/thumbnails/{size}/{picture.path}", file.getvalue())


async def upload(client: httpx.AsyncClient, picture: Picture) -> int:
    """Bytes that were sent."""
    response = await client.put(picture.path, content=picture.content)
    response.raise_for_status()
    return len(picture.content)


async def resize(url: str, names: Sequence[str]) -> int:
    """Make and upload the sizes of all; the number of failures."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        sent = (
            penstock.stream(names)
            .map(partial(download, client), concurrency=AT_ONCE, retry=AGAIN, on_error="collect")
            .flat_map(thumbnails, concurrency=CORES, ordered=False, on_error="collect")
            .map(partial(upload, client), concurrency=AT_ONCE, ordered=False, retry=AGAIN, on_error="collect")
        )
        async with sent.open() as uploads:
            sizes = [size async for size in uploads]
    print(f"{len(sizes)} uploaded, {sum(sizes)} bytes")
    for failed in uploads.failures:
        print(failed, file=sys.stderr)
    return len(uploads.failures)


def originals() -> dict[str, bytes]:
    """Twelve images, the last of which is none."""
    answers = {}
    for number in range(12):
        file = io.BytesIO()
        Image.linear_gradient("L").rotate(30 * number).resize((600, 400)).save(file, "PNG")
        answers[f"/originals/{number}.png"] = file.getvalue()
    answers["/originals/11.png"] = b"no image"
    return answers


def main() -> int:
    """Read the command line, and start a server if none is given."""
    parser = argparse.ArgumentParser(description="Upload images in three sizes.")
    parser.add_argument("url", nargs="?", help="the server; default: one of its own")
    parser.add_argument("names", nargs="*", help="of images below /originals; default: those that its own server has")
    options = parser.parse_args()
    names = options.names or [f"{number}.png" for number in range(12)]
    own = serving(originals()) if options.url is None else contextlib.nullcontext(options.url)
    try:
        with own as url:
            return int(asyncio.run(resize(url, names)) > 0)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
