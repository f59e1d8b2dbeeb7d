"""Which files of a tree are meant: globs to take, globs to leave."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[[!^]?\]?[^\]]*\]|.", re.DOTALL)
_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@dataclass(frozen=True, slots=True)
class Selection:
    """Names taken and names left; both are tested on the path relative to the root, written with `/`.

    A pattern without `/` is about a name alone, at any depth; one with `/` about the whole relative path, where `**`
    stands for any number of directories. A name that starts with a dot is never taken: name the path to have it.
    """

    taken: re.Pattern[str]
    left: re.Pattern[str] | None

    def enters(self, relative: str) -> bool:
        """Whether the walk goes into the directory at `relative`."""
        return not self._leaves(relative)

    def takes(self, relative: str) -> bool:
        """Whether the file at `relative`, in a directory that the walk entered, is wanted."""
        return not self._leaves(relative) and self.taken.match(relative) is not None

    def covers(self, relative: str) -> bool:
        """Whether a walk from the root would come to the file at `relative` and take it."""
        parts = relative.split("/")
        return self.takes(relative) and all(self.enters("/".join(parts[:depth])) for depth in range(1, len(parts)))

    def _leaves(self, relative: str) -> bool:
        name = relative[relative.rfind("/") + 1 :]
        return name.startswith(".") or (self.left is not None and self.left.match(relative) is not None)


def several(values: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    """One path or pattern, or several, as a list: a lone one is not its letters."""
    return [values] if isinstance(values, str | os.PathLike) else list(values)


def selection(glob: Iterable[str], exclude: Iterable[str] = ()) -> Selection:
    """The selection of what matches any of `glob` and none of `exclude`.

    Case counts only in a pattern that has capitals.
    """
    left = list(exclude)
    return Selection(_any_of(glob), _any_of(left) if left else None)


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{_expression(pattern)})" for pattern in patterns), re.DOTALL)


def _expression(pattern: str) -> str:
    pattern = pattern.removeprefix("./").rstrip("/")
    body = "".join(_WILD.get(token) or _literal(token) for token in _TOKEN.findall(pattern))
    folded = body if pattern != pattern.lower() else f"(?i:{body})"
    return f"{folded}\\Z" if "/" in pattern else f"(?:.*/)?{folded}\\Z"


def _literal(token: str) -> str:
    if len(token) == 1:
        return re.escape(token)
    return translate(token).removeprefix("(?s:").removesuffix(")\\Z").removesuffix(")\\z")
