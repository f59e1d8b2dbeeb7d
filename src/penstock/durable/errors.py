"""What is wrong with a row, so that its root fails or has to wait."""

from penstock.core.errors import OptionError


class RowError(OptionError):
    """A row that its sink cannot hold: the failure of the root that it came from.

    Attributes:
        row: the row, as the sink has it, where that is known.
    """

    row: object = None


class KeyTakenError(RowError):
    """A row has a key that a row of another root has, which may still give it up in this run."""
