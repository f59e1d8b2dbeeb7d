"""Kills a process at the nth thing that it does outside of its database: before it, or in the middle of a write."""

import os
import signal
from contextlib import contextmanager

from penstock.sinks import json_lines, outside

CHANGING = {
    *("open", "write", "pwrite", "replace", "rename", "unlink", "mkdir", "rmdir"),
    *("ftruncate", "fchmod", "fsync", "fdatasync"),
}


class Steps:
    """Takes the place of `os` in the modules of sinks; dies at step `dies_at`."""

    def __init__(self, dies_at=0, but=()):
        self.taken = 0
        self._watched = CHANGING - set(but)
        self._dies_at = dies_at

    def step(self):
        self.taken += 1
        if self.taken == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in self._watched:
            return real

        def watched(*args, **options):
            self.step()
            if name in {"write", "pwrite"} and self.taken + 1 == self._dies_at:  # half of it is written
                file, data, *place = args
                real(file, data[: len(data) // 2], *place)
            if name in {"write", "pwrite"}:
                self.step()
            return real(*args, **options)

        return watched

    def watch(self, *modules):
        """Watch what these modules do, and the transactions of the journal; for a process that ends soon."""
        real = outside.transaction

        @contextmanager
        def watched(connection):
            with real(connection):
                yield
                self.step()
            self.step()

        for module in (outside, json_lines, *modules):
            module.os = self
            if hasattr(module, "transaction"):
                module.transaction = watched
