"""What the worker processes of tests run before anything else: it changes how they read."""

import os
import signal
from pathlib import Path

from penstock.workflows.documents import loading


def die_at(name, times, marks):
    """Kill the worker as it reads the file of that name, so many times, counted by files in the directory `marks`."""
    read = loading.read

    def reading(file, **options):
        if file.name == name and len(list(Path(marks).iterdir())) < times:
            (Path(marks) / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return read(file, **options)

    loading.read = reading


def hang_at(name, fifo):
    """Say into `fifo` that the file of that name is being read, and never be through with it."""
    read = loading.read

    def reading(file, **options):
        if file.name == name:
            Path(fifo).write_text("reading")
            signal.pause()
        return read(file, **options)

    loading.read = reading
