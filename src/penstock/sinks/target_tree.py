"""The directory of `Files`: every name is looked up from its descriptor, and no link is followed."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import ELOOP, ENAMETOOLONG, ENOTDIR, ENXIO
from hashlib import blake2b
from typing import Final
from unicodedata import normalize

from penstock.durable.store_errors import RowError, StoreError
from penstock.sinks.outside import named_by_system

OWN: Final = ".penstock"
"""The directory below the root with the journal, and with files that are not in their place yet."""

_HERE: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BELOW: Final = _HERE | os.O_NOFOLLOW
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PART: Final = 1 << 20
_NO_PLACE: Final = {ENAMETOOLONG, ENOTDIR, ELOOP, ENXIO}
"""What the system says if a name, a link, or something that is no directory or no file, is in the way."""

type MayGo = Callable[[str], bool]
"""Whether the file of that claim may be gone when its name is needed for a directory, or the other way round."""


class TargetTree:
    """A directory that is opened for writing by one process.

    Attributes:
        folds: whether names that differ only in case are one, as on most disks of macOS and Windows.
    """

    def __init__(self, root: str, *, syncs: bool) -> None:
        self._name = root
        self._syncs = syncs
        self._touched: set[str] = set()  # directories whose entries have changed since the last sync
        self._last: tuple[str, int] | None = None  # the directory that was used last, and its descriptor
        self._own = -1
        if not os.path.isdir(os.path.dirname(os.path.abspath(root))):  # noqa: PTH100, PTH112, PTH120 -- strings
            raise StoreError(f"{root}: its directory does not exist")
        with named_by_system(root):
            with suppress(FileExistsError):
                os.mkdir(root)  # noqa: PTH102 -- as above
            self._root = os.open(root, _HERE)
            try:
                with suppress(FileExistsError):
                    os.mkdir(OWN, 0o700, dir_fd=self._root)
                self._own = os.open(OWN, _BELOW, dir_fd=self._root)
                self.folds: bool = self._is_own(OWN.upper())
            except BaseException:
                self.close()
                raise

    def _is_own(self, name: str) -> bool:
        with suppress(OSError):
            found = os.stat(name, dir_fd=self._root, follow_symlinks=False)
            return os.path.samestat(found, os.fstat(self._own))
        return False

    def close(self) -> None:
        """Close what is open."""
        self._leave()
        for descriptor in (self._own, self._root):
            if descriptor >= 0:
                os.close(descriptor)
        self._own = self._root = -1

    def claim(self, name: str) -> str:
        """Return what two names have in common that are one file."""
        return normalize("NFC", name).casefold() if self.folds else name

    def digest(self, name: str, may_go: MayGo) -> bytes | None:
        """Return a digest of the file of that name; None if nothing is there.

        Raise `RowError` if no file can be there: a link is on the way, or something else in its place.
        """
        above, leaf = _cut(name)
        try:
            directory = self._enter(above, makes=False, may_go=may_go)
            if directory is None:
                return None
            file = os.open(leaf, _FILE, dir_fd=directory)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _NO_PLACE:
                raise RowError(f"{name!r} cannot be the name of a file: {_said(error)}") from error
            raise StoreError(f"{self._name}/{name}: {_said(error)}") from error
        try:
            mode = os.fstat(file).st_mode
            if stat.S_ISDIR(mode) and may_go(f"{self.claim(name)}/"):
                return None
            if not stat.S_ISREG(mode):
                raise RowError(f"{name!r} cannot be the name of a file: something else is there")
            digest = blake2b(digest_size=16)
            while data := os.read(file, _PART):
                digest.update(data)
            return digest.digest()
        finally:
            os.close(file)

    def has(self, name: str, size: int) -> bool:
        """Whether a file of that name and size is there."""
        try:
            found = os.stat(name, dir_fd=self._root, follow_symlinks=False)
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size == size

    def write_part(self, number: int, content: bytes) -> None:
        """Write a file under a temporary name."""
        name = _part(number)
        with named_by_system(f"{self._name}/{OWN}"):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(name, flags, 0o666, dir_fd=self._own)
            try:
                left = memoryview(content)
                while left:
                    left = left[os.write(file, left) :]
                if self._syncs:
                    os.fsync(file)
            except BaseException:
                os.unlink(name, dir_fd=self._own)  # it needs the room that is lacking
                raise
            finally:
                os.close(file)

    def sync_parts(self) -> None:
        """Have the temporary names outlive a power failure, if that is asked for."""
        if self._syncs:
            with named_by_system(f"{self._name}/{OWN}"):
                os.fsync(self._own)

    def remove_parts(self) -> None:
        """Remove all temporary files."""
        with named_by_system(f"{self._name}/{OWN}"):
            for name in os.listdir(self._own):  # noqa: PTH208 -- as above
                if name.endswith(_part("")):
                    os.unlink(name, dir_fd=self._own)

    def put_in_place(self, number: int, name: str) -> None:
        """Give a temporary file its name; if there is none of that number, it has it already."""
        above, leaf = _cut(name)
        with named_by_system(f"{self._name}/{name}"):
            directory = self._enter(above, makes=True)
            assert directory is not None
            with suppress(FileNotFoundError):
                os.replace(_part(number), leaf, src_dir_fd=self._own, dst_dir_fd=directory)
            self._touched.add(above)

    def remove(self, name: str) -> None:
        """Remove a file, and directories that are empty then; pass over what is not there, or is something else."""
        above, leaf = _cut(name)
        with named_by_system(f"{self._name}/{name}"):
            try:
                directory = self._enter(above, makes=False)
                if directory is None:
                    return
                os.unlink(leaf, dir_fd=directory)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return
            self._touched.add(above)
        self._leave()
        with suppress(OSError):  # not empty
            while above:
                os.rmdir(above, dir_fd=self._root)
                above = _cut(above)[0]
                self._touched.add(above)

    def sync(self) -> None:
        """Have what has changed in directories outlive a power failure, if that is asked for."""
        touched, self._touched = self._touched, set[str]()
        if not self._syncs:
            return
        for above in touched:
            with named_by_system(f"{self._name}/{above}"), suppress(FileNotFoundError):  # it became empty
                directory = self._enter(above, makes=False)
                if directory is not None:
                    os.fsync(directory)

    def _enter(self, above: str, *, makes: bool, may_go: MayGo | None = None) -> int | None:
        """Return a descriptor of a directory, in use until the next call; None if it is not there."""
        if not above:
            return self._root
        if self._last is not None and self._last[0] == above:
            return self._last[1]
        self._leave()
        at, path = os.dup(self._root), ""
        try:
            for name in above.split("/"):
                path = f"{path}/{name}" if path else name
                if makes:
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=at)
                        self._touched.add(_cut(path)[0])
                at, before = os.open(name, _BELOW, dir_fd=at), at
                os.close(before)
        except BaseException as error:
            os.close(at)
            gone = isinstance(error, FileNotFoundError) or (
                isinstance(error, NotADirectoryError) and may_go is not None and may_go(self.claim(path))
            )
            if gone and not makes:
                return None
            raise
        self._last = (above, at)
        return at

    def _leave(self) -> None:
        if self._last is not None:
            os.close(self._last[1])
            self._last = None


def prefixes(name: str) -> Iterator[str]:
    """Give the directories that are part of a name, the innermost first."""
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _cut(name: str) -> tuple[str, str]:
    above, _, leaf = name.rpartition("/")
    return above, leaf


def _part(number: int | str) -> str:
    return f"{number}.part"


def _said(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
