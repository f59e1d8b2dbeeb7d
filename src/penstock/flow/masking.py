"""Hides secrets in bytes and texts, also one that comes in pieces."""

import json
import re
from collections.abc import Iterable
from typing import Final

STARS: Final = "***"


class Mask:
    """Replaces secrets by `***`.

    Found is a secret as it is, without white space round it, and as JSON writes it. Of two that begin at one place the
    longer one is found.
    """

    __slots__ = ("_longest", "_pattern", "_secrets")

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in (secret, secret.strip(), json.dumps(secret)[1:-1])}
        found = {form.encode(errors="surrogateescape") for form in forms} - {b""}
        self._secrets = sorted(found, key=lambda secret: (-len(secret), secret))
        self._longest = max(map(len, self._secrets), default=0)
        self._pattern = re.compile(b"|".join(map(re.escape, self._secrets))) if self._secrets else None

    def text(self, text: str) -> str:
        """Return `text` without the secrets."""
        if self._pattern is None:
            return text
        masked = self._pattern.sub(STARS.encode(), text.encode(errors="surrogatepass"))
        return masked.decode(errors="surrogatepass")

    def stream(self) -> "MaskedStream":
        """Make a stream of bytes from which secrets are taken."""
        return MaskedStream(self)

    def split(self, data: bytes) -> tuple[bytes, bytes]:
        """Return `data` masked as far as no secret can begin in it that goes on behind its end, and the rest."""
        if self._pattern is None:
            return data, b""
        parts: list[bytes] = []
        at = 0
        while True:
            held = self._held_from(data, at)
            match = self._pattern.search(data, at)
            if match is None or match.start() >= held:
                parts.append(data[at:held])
                return b"".join(parts), data[held:]
            parts += (data[at : match.start()], STARS.encode())
            at = match.end()

    def _held_from(self, data: bytes, at: int) -> int:
        """Where the longest end of `data[at:]` begins that is a beginning of a secret and not all of it."""
        for start in range(max(at, len(data) - self._longest + 1), len(data)):
            end = data[start:]
            if any(len(secret) > len(end) and secret.startswith(end) for secret in self._secrets):
                return start
        return len(data)

    def __repr__(self) -> str:
        return f"<mask of {len(self._secrets)}>"

    def __reduce__(self) -> str:
        raise TypeError("a mask is not pickled: it has secrets")


class MaskedStream:
    """Bytes that come in pieces, masked as if they came at once. Holds back less than the longest secret."""

    __slots__ = ("_mask", "_rest")

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return what can be told of `data` and all before it."""
        told, self._rest = self._mask.split(self._rest + data)
        return told

    def end(self) -> bytes:
        """Return the rest, which is the beginning of a secret at most."""
        rest, self._rest = self._rest, b""
        return self._mask.text(rest.decode("latin-1")).encode("latin-1") if rest else rest
