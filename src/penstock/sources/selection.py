"""Selects files of a tree: globs to take, globs to leave out."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import translate

_SIGN = re.compile(r"\*\*/|\*|\?|\[[!^]?\]?[^\]]*\]|.", re.DOTALL)
_WILD = {"*": "[^/]*", "?": "[^/]"}


@dataclass(frozen=True, slots=True)
class Selection:
    """Patterns of names to take and to leave out, tested on the path relative to the root, written with `/`.

    A pattern without `/` is about a name, at any depth; one with `/` is about the whole relative path, where a part
    `**` stands for any number of directories. A name that starts with a dot is never taken: name the path itself to
    have it. `follows` says whether to follow links to files outside of the tree, or to files that are left out.
    """

    taken: re.Pattern[str]
    left: re.Pattern[str] | None
    follows: bool = False

    def enters(self, relative: str) -> bool:
        """Whether the walk goes into the directory at `relative`."""
        return not self._leaves(relative)

    def takes(self, relative: str) -> bool:
        """Whether the file at `relative`, in a directory that the walk entered, is wanted."""
        return not self._leaves(relative) and self.taken.match(relative) is not None

    def covers(self, relative: str) -> bool:
        """Whether a walk from the root would reach the file at `relative` and take it."""
        return self.takes(relative) and self.reaches(relative)

    def reaches(self, relative: str) -> bool:
        """Whether `relative` and everything on the way to it is neither hidden nor left out."""
        parts = relative.split("/")
        return all(self.enters("/".join(parts[:depth])) for depth in range(1, len(parts) + 1))

    def _leaves(self, relative: str) -> bool:
        name = relative[relative.rfind("/") + 1 :]
        return name.startswith(".") or (self.left is not None and self.left.match(relative) is not None)


def several(values: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    """Return one path or pattern, or several, as a list: a single str is not its letters."""
    return [values] if isinstance(values, str | os.PathLike) else list(values)


def selection(glob: Iterable[str], exclude: Iterable[str] = (), *, follows: bool = False) -> Selection:
    """Make the selection of what matches any of `glob` and none of `exclude`.

    Case counts only in a pattern that has capitals.
    """
    left = list(exclude)
    return Selection(_any_of(glob), _any_of(left) if left else None, follows)


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{_expression(pattern)})" for pattern in patterns), re.DOTALL)


def _expression(pattern: str) -> str:
    """Translate the pattern to a regular expression that takes time in proportion to the length of a path.

    The part between two wildcards is only tried at the first place where it fits: no later place is better.
    """
    pattern = pattern.removeprefix("./").rstrip("/")
    is_path = "/" in pattern
    pattern = re.sub(r"(?<=[^/])\*\*", "*", re.sub(r"\*{3,}", "**", pattern))  # `**` is a whole part of a path
    pattern = re.sub(r"\*\*(?!/)", "**/*" if is_path else "*", pattern)
    body = "".join(_groups(_SIGN.findall(pattern)))
    folded = body if pattern != pattern.lower() else f"(?i:{body})"
    return f"{folded}\\Z" if is_path else f"(?>(?:.*/)?){folded}\\Z"


def _groups(signs: Iterable[str]) -> Iterator[str]:
    """Split the signs into groups that begin with `**/`; each group but the last is atomic."""
    groups = [list[str]()]
    for sign in signs:
        if sign == "**/":
            groups.append([])
        else:
            groups[-1].append(sign)
    for number, group in enumerate(groups):
        is_last = number == len(groups) - 1
        found = ("(?:[^/]*/)*?" if number else "") + _parts(group, is_last=is_last)
        yield found if is_last else f"(?>{found})"


def _parts(group: list[str], *, is_last: bool) -> str:
    """Split a group into parts that begin with `*`; each part is atomic, but the last one if the path ends with it."""
    parts = [list[str]()]
    for sign in group:
        if sign == "*":
            parts.append([])
        else:
            parts[-1].append(_WILD.get(sign) or _literal(sign))
    first, *rest = ["".join(part) for part in parts]
    if not rest:
        return first
    *between, last = rest
    found = "".join(f"(?>[^/]*?{part})" for part in between)
    return f"{first}{found}{f'[^/]*{last}' if is_last else f'(?>[^/]*?{last})'}"


def _literal(sign: str) -> str:
    if len(sign) == 1:
        return re.escape(sign)
    return "(?!/)" + translate(sign).removeprefix("(?s:").removesuffix(")\\Z").removesuffix(")\\z")
