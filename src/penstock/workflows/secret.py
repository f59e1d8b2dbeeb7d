"""Texts that are used and never shown."""

from typing import Self


class Secret:
    """A key: its repr, and so a traceback that lists local variables, says nothing of it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text.strip()

    @classmethod
    def of(cls, value: object) -> Self | None:
        """`value`, a str, a secret or None, as a secret; None for an empty one.

        Raises:
            OptionError: it is something else, or no header can carry it; the message does not show it.
        """
        from penstock.core.errors import OptionError  # noqa: PLC0415 -- brings asyncio, and `--help` must be quick

        text = value.reveal() if isinstance(value, Secret) else value
        made = cls(text or "") if isinstance(text, str | None) else None
        kind = type(text).__name__
        del value, text  # the frame of an error may be shown
        if made is None:
            raise OptionError(f"key must be a str, got a {kind}")
        if not made.reveal():
            return None
        if not made.reveal().isascii() or not made.reveal().isprintable() or " " in made.reveal():
            raise OptionError("key must be printable ASCII without spaces")
        return made

    def reveal(self) -> str:
        """The text itself: not to be kept in a variable."""
        return self._text

    def hidden_in(self, text: str) -> str:
        """`text` with `***` wherever it holds the secret."""
        return text.replace(self._text, "***")

    def __repr__(self) -> str:
        return "<secret>"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")
