"""Turns paths into keys and back, whatever bytes a name has."""

import os
import re
from typing import Final

_BYTE: Final = re.compile(r"\\x[89a-f][0-9a-f]")
_ESCAPED: Final = re.compile(rb"\\\\|\\x([89a-f][0-9a-f])")
"""A byte as it stands in a key, or a doubled backslash."""


def key_of(path: str) -> str:
    r"""Return the key of the file at `path`, with `/`: every name has a key, also one that is not UTF-8, and its own.

    A byte that is not UTF-8 stands as `\xe9`; in a name that has such a byte, or reads as if, each backslash is
    doubled.
    """
    plain = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "/".join(map(_key_of_name, path.split("/"))) if _BYTE.search(plain) else plain


def path_of(key: str) -> str:
    """Return the path that has this key."""
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
