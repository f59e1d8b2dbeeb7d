"""Does work in a transaction of a store, and again if the transaction was lost with its connection."""

from collections.abc import Callable
from typing import Final

from penstock.durable.store import JournalStore
from penstock.durable.store_errors import LostTransactionError

_TRIES: Final = 3
"""How often it is tried: a row may be what kills the server."""


def transact[T](store: JournalStore, work: Callable[[], T]) -> T:
    """Return what `work` returns, once its transaction is committed; it may be called again, so it only writes there.

    Raises:
        LostTransactionError: the connection was lost each time.
    """
    for left in reversed(range(_TRIES)):
        try:
            with store.transaction():
                made = work()
        except LostTransactionError:
            if not left:
                raise
        else:
            return made
    raise AssertionError
