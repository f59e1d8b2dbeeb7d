# ruff: noqa: N802 -- the names are SQLite's
"""Sees every write of SQLite, in the order in which they reach the system, and makes the files that a crash leaves."""

import random
from contextlib import contextmanager
from pathlib import Path

import apsw

from penstock.durable.sqlite import connection

REAL = "unix"
SECTOR = 512

_JOURNALS = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL


class Recorder(apsw.VFS):
    """Tells `told(operation, file, offset, data)` of every write before it is made; for connections opened from now on.

    Operations are `create`, `write`, `truncate` (the offset is the new size), `sync`, of which is told when it is done,
    `delete` (the offset says whether that is synced) and `sync directory`; files are paths.
    """

    NAME = "penstock-recorder"

    def __init__(self, told):
        self.told = told
        super().__init__(self.NAME, REAL, makedefault=True)

    def xOpen(self, name, flags):
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is not None and flags[0] & apsw.SQLITE_OPEN_CREATE:
            self.told("create", path, 0, b"")
        return File(self, name, path, flags)

    def xDelete(self, filename, syncdir):
        self.told("delete", filename, syncdir, b"")
        return super().xDelete(filename, syncdir)


class File(apsw.VFSFile):
    """A file that is written to."""

    def __init__(self, recorder, name, path, flags):
        self._told = recorder.told
        self._path = path
        self._syncs_directory = flags[0] & apsw.SQLITE_OPEN_CREATE and flags[0] & _JOURNALS
        super().__init__(REAL, name, flags)

    def xWrite(self, data, offset):
        self._told("write", self._path, offset, bytes(data))
        super().xWrite(data, offset)

    def xTruncate(self, newsize):
        self._told("truncate", self._path, newsize, b"")
        super().xTruncate(newsize)

    def xSync(self, flags):
        super().xSync(flags)
        self._told("sync", self._path, 0, b"")
        if self._syncs_directory:  # SQLite does so at the first sync of a journal or log that it may have made
            self._syncs_directory = False
            self._told("sync directory", self._path, 0, b"")


@contextmanager
def recorded(tape):
    """Add to the list `tape` what SQLite writes meanwhile, as `(operation, file, offset, data)`."""
    recorder, uri = Recorder(lambda *operation: tape.append(operation)), connection._uri
    pass_readers_by()
    try:
        yield
    finally:
        recorder.unregister()
        connection._uri = uri


def pass_readers_by():
    """Have readers, which write nothing, not be recorded: apsw would raise what SQLite passes over when they close."""
    uri = connection._uri
    connection._uri = lambda path, option: f"{uri(path, option)}&vfs={REAL}"


def applied(files, operations):
    """What these operations make of files, which are a dict of contents by path; `sync` and marks change nothing."""
    files = {path: bytearray(content) for path, content in files.items()}
    for operation, path, offset, data in operations:
        if operation == "create":
            files.setdefault(path, bytearray())
        elif operation == "delete":
            files.pop(path, None)
        elif operation == "truncate":
            del files[path][offset:]
        elif operation == "write":
            content = files[path]
            content.extend(bytes(max(0, offset + len(data) - len(content))))
            content[offset : offset + len(data)] = data
    return files


def after_a_power_failure(files, operations, seed):
    """What a power failure after these operations may leave: all that was synced, and any part of the rest.

    Each sector of 512 bytes is written whole or not at all, whatever the order; of several writes to one sector, any
    may be the last that came through. A file that was deleted may be there again.
    """
    chances = random.Random(seed)
    synced = {path: n for n, (operation, path, _, _) in enumerate(operations) if operation == "sync"}
    listed = max((n for n, (operation, *_) in enumerate(operations) if operation == "sync directory"), default=-1)
    made = {path: n for n, (operation, path, _, _) in enumerate(operations) if operation == "create"}
    through, lost = [], set()
    for n, (operation, path, offset, data) in enumerate(operations):
        is_safe = n < synced.get(path, -1)
        if operation == "delete":
            is_safe = bool(offset) or n < max(listed, made.get(path, -1))
        if is_safe or operation == "create" or (operation != "write" and chances.random() < 0.5):
            through.append((operation, path, offset, data))
        elif operation == "write":
            for place, part in _sectors(offset, data):
                sector = path, place // SECTOR
                if chances.random() < 0.4:
                    lost.add(sector)
                if sector not in lost:
                    through.append((operation, path, place, part))
    return applied(files, through)


def _sectors(offset, data):
    start = 0
    while start < len(data):
        size = SECTOR - (offset + start) % SECTOR
        yield offset + start, data[start : start + size]
        start += size


def written(files, folder, of):
    """Write the files into a folder; `of` is the folder that they were in. The path of the database."""
    for path in folder.iterdir():
        path.unlink()
    for path, content in files.items():
        (folder / Path(path).relative_to(of)).write_bytes(content)
    return folder / "run.db"
