"""What a workflow notes of its run, in the journal: one value, which is kept as long as the run is known."""

from collections.abc import Callable
from typing import Any, Final

from penstock.durable.store import Journal, JournalReader
from penstock.durable.values import UnpackError, pack, unpack

_NAME: Final = b"note of "


def note_key(run: int) -> bytes:
    """Return the name under which the note of a run stands among results that are kept: no fingerprint is like it."""
    return _NAME + str(run).encode()


class RunNote:
    """The note of one run, while it is open. Of values that are written in one commit only the last is packed."""

    def __init__(self, reader: JournalReader, add: Callable[[Callable[[Journal], object]], None], run: int) -> None:
        self._reader = reader
        self._add = add
        self._key = note_key(run)
        self._value: object = None
        self._is_on_its_way = False

    def read(self) -> Any:
        """Return what is noted and committed; None: nothing that can be read."""
        packed = self._reader.recall(self._key, b"")
        try:
            return None if packed is None else unpack(packed)
        except UnpackError:
            return None

    def write(self, value: object) -> None:
        """Have a value written in the next commit, in place of the one before; it is not changed any more."""
        self._value = value
        if not self._is_on_its_way:
            self._is_on_its_way = True
            self._add(self._write)

    def _write(self, journal: Journal) -> None:
        self._is_on_its_way = False  # before the look: what is written from now on may come too late for it
        journal.remember(self._key, b"", pack(self._value))
