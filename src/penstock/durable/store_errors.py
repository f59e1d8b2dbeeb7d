"""Errors of a store, which end a run, and of a row, which fail its root or make it wait."""

from penstock.core.errors import OptionError, PenstockError


class StoreError(PenstockError):
    """A store cannot be used; the message names it and says why."""


class StoreFullError(StoreError):
    """There is no room to write more; what was committed stays."""


class DamageError(StoreError):
    """A store does not hold what was put there."""


class HeldError(PenstockError):
    """Another process writes to the store; the message says which."""


class RowError(OptionError):
    """A row that its sink cannot hold: the failure of the root that it came from.

    Attributes:
        row: the row, as the sink has it, where that is known.
    """

    row: object = None


class KeyTakenError(RowError):
    """A row has a key that a row of another root has, which may still give it up in this run."""


class RefusedRowError(RowError, StoreError):
    """The store refuses a row; it can be used for others."""


class LostTransactionError(StoreError):
    """The store was lost in the middle of a transaction: nothing of it stands, and it may be done again."""
