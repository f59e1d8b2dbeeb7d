"""What the worker processes of tests run before anything else: it changes how they read."""

import os
import signal
from pathlib import Path

from penstock.workflows.documents import loading
from penstock.workflows.thumbnails import pictures


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


def meet_dangers():
    """Have a picture of the bytes `kills` kill its worker, and one of `hangs` never end."""
    made = pictures.Thumbnailer.__call__

    def meeting(self, file):
        content = Path(file.path).read_bytes()
        if content == b"kills":
            os.kill(os.getpid(), signal.SIGKILL)
        while content == b"hangs":
            signal.pause()
        return made(self, file)

    pictures.Thumbnailer.__call__ = meeting
