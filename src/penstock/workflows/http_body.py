"""The body of a response, bounded after decompression: a few kilobytes of gzip can stand for gigabytes.

httpx decompresses at once all that has come, so the body is read here as it was sent.
"""

import zlib
from collections.abc import AsyncIterable

CODINGS = "gzip, deflate"
"""The codings that a server may use, as a request lists them."""

_GZIP, _ZLIB, _RAW = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS


class CodingError(Exception):
    """A body is not in the coding that it claims, or in one that was not asked for."""


async def read(sent: AsyncIterable[bytes], coding: str, limit: int) -> bytes:
    """Return the first `limit` bytes of a body and, if it is longer, one more; the rest is not read.

    Raises:
        CodingError: it cannot be decompressed, or ends before its compressed data does.
    """
    decoded, body, came = _Decoder(coding.strip().lower()), bytearray(), 0
    async for chunk in sent:
        came += len(chunk)
        body += decoded(chunk, limit + 1 - len(body))
        if len(body) > limit or came > limit:
            break
    if len(body) > limit:
        return bytes(body)
    if came > limit:  # nothing that is worth having is longer when it is compressed
        raise CodingError(f"more than {limit:,} bytes hold less than that")
    decoded.check_end()
    return bytes(body)


class _Decoder:
    def __init__(self, coding: str) -> None:
        if coding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise CodingError(f"the coding {coding!r} was not asked for")
        self._coding = coding
        self._inflate = zlib.decompressobj(_ZLIB if coding == "deflate" else _GZIP)
        self._began = False

    def __call__(self, chunk: bytes, most: int) -> bytes:
        if self._coding in {"", "identity"}:
            return chunk[:most]
        if self._coding == "deflate" and chunk and not self._began and chunk[0] & 15 != zlib.DEFLATED:
            self._inflate = zlib.decompressobj(_RAW)  # without the header of zlib, as many send it
        self._began = self._began or bool(chunk)
        try:
            return self._inflate.decompress(chunk, most)
        except zlib.error as error:
            raise CodingError(str(error)) from error

    def check_end(self) -> None:
        """Raise `CodingError` if data was missing at the end, or more came behind it."""
        if self._began and (not self._inflate.eof or self._inflate.unused_data):
            raise CodingError("the compressed data is cut off, or more follows behind its end")
