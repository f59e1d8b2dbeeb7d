"""Paths as keys: every name has one, whatever its bytes are."""

import os
import re
from typing import Final

_BYTE: Final = re.compile(r"\\x[89a-f][0-9a-f]")
_ESCAPED: Final = re.compile(rb"\\\\|\\x([89a-f][0-9a-f])")
"""A byte as it stands in a key, and what else stands for another thing there."""


def key_of(path: str) -> str:
    r"""The key of the file at that path, with `/`: every name has one, also what is no UTF-8, and none has another's.

    A byte that is no UTF-8 stands as `\xe9`; in a name that has any, or reads as if it had, each backslash is two.
    """
    plain = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "/".join(map(_key_of_name, path.split("/"))) if _BYTE.search(plain) else plain


def path_of(key: str) -> str:
    """The path that has this key."""
    return "/".join(map(_name_of, key.split("/"))) if _BYTE.search(key) else key


def _key_of_name(name: str) -> str:
    plain = os.fsencode(name).decode("utf-8", "backslashreplace")
    if not _BYTE.search(plain):
        return plain
    return os.fsencode(name.replace("\\", r"\\")).decode("utf-8", "backslashreplace")


def _name_of(key: str) -> str:
    if not _BYTE.search(key):
        return key
    return os.fsdecode(
        _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()) if found[1] else b"\\", key.encode())
    )
