"""What a workflow notes of its run, in the journal: one value, which is kept as long as the run is known."""

from collections.abc import Callable
from typing import Any, Final

from penstock.durable.store import JournalReader
from penstock.durable.values import UnpackError, pack, unpack

_NAME: Final = b"note of "


def note_key(run: int) -> bytes:
    """Return the name under which the note of a run stands among results that are kept: no fingerprint is like it."""
    return _NAME + str(run).encode()


class RunNote:
    """The note of one run, while it is open."""

    def __init__(self, reader: JournalReader, remember: Callable[[bytes, bytes, bytes], None], run: int) -> None:
        self._reader = reader
        self._remember = remember
        self._key = note_key(run)

    def read(self) -> Any:
        """Return what is noted and committed; None: nothing that can be read."""
        packed = self._reader.recall(self._key, b"")
        try:
            return None if packed is None else unpack(packed)
        except UnpackError:
            return None

    def write(self, value: object) -> None:
        """Have a value written in the next commit, in place of the one before."""
        self._remember(self._key, b"", pack(value))
