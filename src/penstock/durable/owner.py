"""The name of a process as a writer; a child that does a part of a run has that of its parent."""

import os
import socket

_spoken_for: list[str] = []
"""Whom this process writes for, if not for itself."""


def owner() -> str:
    """Return the name of this process."""
    return _spoken_for[-1] if _spoken_for else f"process {os.getpid()} on {socket.gethostname()}"


def write_for(parent: str) -> None:
    """Take the name of a parent, its `owner()`, as a child that does a part of its run."""
    _spoken_for.append(parent)
