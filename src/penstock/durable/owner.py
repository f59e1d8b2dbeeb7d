"""Who writes: this process, or the parent whose run it does a part of."""

import os
import socket

_spoken_for: list[str] = []
"""Whom this process writes for, if not for itself."""


def owner() -> str:
    """Return who writes."""
    return _spoken_for[-1] if _spoken_for else f"process {os.getpid()} on {socket.gethostname()}"


def write_for(parent: str) -> None:
    """Write as `parent`, its `owner()`: a worker does a part of its parent's run."""
    _spoken_for.append(parent)
