"""Results that stages keep in the sink of a durable run, so that no call is paid for twice.

An entry is known by the fingerprint of its stage and the digest of its input. It is written beside the rows as soon as
there is a result, in the next commit, and does not wait for the root of its item. The newest are found before, too.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from penstock.core.errors import OptionError
from penstock.core.plan import MISSING
from penstock.durable.fingerprint import StageCode
from penstock.durable.roots import Tracked
from penstock.durable.store import JournalReader
from penstock.durable.values import PackError, UnpackError, digest, pack, type_name, unpack

type Remember = Callable[[bytes, bytes, bytes], None]
"""Has an entry written: stage, item, value."""


class Memo:
    """The entries of one opening of a run.

    Attributes:
        recalled: results that were handed on without a call.
    """

    def __init__(self, reader: JournalReader, remember: Remember) -> None:
        self._reader = reader
        self._remember = remember
        self._newest: dict[tuple[bytes, bytes], bytes] = {}
        self._held = 0
        self.recalled: int = 0

    def remember(self, stage: bytes, item: bytes, value: bytes) -> None:
        """Have an entry written."""
        self._remember(stage, item, value)
        self._held += len(value) - len(self._newest.pop((stage, item), b""))
        self._newest[stage, item] = value
        while self._held > _HELD or len(self._newest) > _NEWEST:
            self._held -= len(self._newest.pop(next(iter(self._newest))))

    def find(self, stage: bytes, item: bytes) -> Any:
        """Return the result of that stage for the item of that digest, or MISSING.

        An entry that cannot be read is none.
        """
        packed = self._newest.get((stage, item)) or self._reader.recall(stage, item)
        if packed is None:
            return MISSING
        try:
            value = unpack(packed)
        except UnpackError:
            return MISSING
        self.recalled += 1
        return value


class StageMemo:
    """The entries of one stage.

    Args:
        memo: where they are.
        code: of the stage.
        of: gives what of an item its result depends on; None: all of it.
    """

    def __init__(self, memo: Memo, code: StageCode, of: Callable[[Any], object] | None = None) -> None:
        self._memo = memo
        self._code = code
        self._of = of

    def recall(self, item: Tracked) -> Any:
        """Return what the function gave for this item before, or MISSING.

        Raise `OptionError` for an item without a digest.
        """
        value = item.value if self._of is None else self._of(item.value)
        try:
            item.digest = digest(value)
        except PackError as error:
            stage = f"of stage {self._code.name!r}"
            needs = f"memo=True {stage} needs items" if self._of is None else f"memo {stage} must give values"
            raise OptionError(
                f"{needs} made of JSON-like values, bytes, arrays or dataclasses of them, "
                f"got {type_name(error.kind)} in {_shown(value)}"
            ) from None
        return self._memo.find(self._code.fingerprint, item.digest)

    def keep(self, item: Tracked, packed: bytes) -> None:
        """Have the result of this item written, unless its call was cancelled: it may be incomplete then."""
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            self._memo.remember(self._code.fingerprint, item.digest, packed)

    def packed(self, result: Any) -> bytes:
        """Return a result as it is kept; raise `OptionError` if it could not be read back exactly."""
        try:
            return pack(result)
        except PackError as error:
            raise OptionError(
                f"memo=True of stage {self._code.name!r} keeps JSON-like values, tuples, sets, bytes and arrays, "
                f"got {type_name(error.kind)} in the result {_shown(result)}"
            ) from None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


_NEWEST: Final = 256
_HELD: Final = 1 << 20
"""Entries, and bytes of them, that are found before they are committed: as come between two commits, or more."""

_LONGEST: Final = 200
"""Characters of a value in a message, at most."""
