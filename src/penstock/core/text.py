"""Text from outside, on one line: of a key, a path, an error, whatever it holds and however long it is."""

from typing import Final

LINE: Final = 2_000
"""Characters of a line."""

NAME: Final = 200
"""Characters of a key or a name in a line."""


def escaped(text: str) -> str:
    """`text` with control characters and bytes of no encoding escaped: a terminal would do what they say."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def one_line(text: str, most: int = LINE) -> str:
    """The same, cut where it is longer than that many characters."""
    if len(text) <= most:
        return escaped(text)
    return f"{escaped(text[:most])}... ({len(text) - most:,} more)"


def named(value: object, most: int = NAME) -> str:
    """A key or a name as an error shows it: `repr`, cut where it is long."""
    return one_line(repr(value[: most + 1] if isinstance(value, str) else value), most)
