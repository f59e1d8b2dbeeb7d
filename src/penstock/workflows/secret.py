"""Texts that are used and never shown."""


class Secret:
    """A key that shows nothing in its repr, and so nothing in a traceback that lists local variables."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text.strip()

    @classmethod
    def of(cls, value: object) -> "Secret | None":
        """Make a secret of `value`, as `Unchecked.checked` does, for a caller that does not keep it."""
        hidden = Unchecked(value)
        del value  # the frame of an error may be shown
        return hidden.checked()

    def reveal(self) -> str:
        """Return the text itself: do not keep it in a variable."""
        return self._text

    def hidden_in(self, text: str) -> str:
        """Replace the secret in `text` by `***`."""
        return text.replace(self._text, "***")

    def __repr__(self) -> str:
        return "<secret>"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")


class Unchecked:
    """A value that is to become a secret: its caller can forget it before it is refused."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def checked(self) -> Secret | None:
        """Return it, a str, a secret or None, as a secret; None for an empty one.

        Raises:
            OptionError: it is something else, or no header can carry it; the message does not show it.
        """
        from penstock.core.errors import OptionError  # noqa: PLC0415 -- brings asyncio, and `--help` must be quick
        from penstock.core.text import a  # noqa: PLC0415 -- as below

        if isinstance(self._value, Secret):
            made = self._value
        elif isinstance(self._value, str | None):
            made = Secret(self._value or "")
        else:
            raise OptionError(f"key must be a str, got {a(type(self._value).__name__)}")
        if not made.reveal():
            return None
        if not made.reveal().isascii() or not made.reveal().isprintable() or " " in made.reveal():
            raise OptionError("key must be printable ASCII without spaces")
        return made

    def __repr__(self) -> str:
        return "<secret>"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")
