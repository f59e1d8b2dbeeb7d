"""Who writes: a process, or the child that does a part of its run."""

import os
import socket

_spoken_for: list[str] = []
"""Whom this process writes for, if not for itself."""


def owner() -> str:
    """Who this is."""
    return _spoken_for[-1] if _spoken_for else f"process {os.getpid()} on {socket.gethostname()}"


def write_for(parent: str) -> None:
    """Be `parent`, its `owner()`, to all who ask: a child that does a part of its run."""
    _spoken_for.append(parent)
