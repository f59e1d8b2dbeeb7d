"""Reads standard input on the loop: a run that waits for a line can be stopped, which a thread that waits cannot."""

import os
from asyncio import Future, get_running_loop
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Final

_PART: Final = 1 << 16
"""Bytes that are read together."""


async def numbered_lines(descriptor: int) -> AsyncGenerator[tuple[int, bytes]]:
    """Give the lines with their numbers, from 1; without those that are blank."""
    number = 0
    parts: list[bytes] = []  # of the line that has not ended
    while part := await _part(descriptor):
        first, *others = part.split(b"\n")
        parts.append(first)
        for following in others:
            number += 1
            if (line := b"".join(parts)).strip():
                yield number, line
            parts = [following]
    if (line := b"".join(parts)).strip():
        yield number + 1, line


async def _part(descriptor: int) -> bytes:
    """Return what is there, once there is something; nothing at the end."""
    loop = get_running_loop()
    there: Future[None] = loop.create_future()
    with suppress(OSError, NotImplementedError):  # a file never lets wait, and cannot be waited for
        loop.add_reader(descriptor, _tell, there)
        try:
            await there
        finally:
            loop.remove_reader(descriptor)
    return os.read(descriptor, _PART)


def _tell(there: Future[None]) -> None:
    if not there.done():
        there.set_result(None)
