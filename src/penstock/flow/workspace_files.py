"""Where the files of a workspace are: the database, a directory for each run, large outputs."""

import re
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

from penstock.durable.store_errors import StoreError

LARGE: Final = 64_000
"""Bytes of an output above which it is a file."""

RUN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,199}")
_FILE: Final = re.compile(r"runs/[A-Za-z0-9][A-Za-z0-9._:@+-]{0,199}/outputs/[0-9a-f]{1,64}")
_LONGEST_PART: Final = 200
"""Bytes of a part of a path that is a directory's name as it is."""


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """The columns of an output of its own, and where its file is to be, if it has one."""

    output: bytes | None
    file: str | None
    digest: bytes | None
    place: Path | None


class WorkspaceFiles:
    """The paths below the directory of an engine."""

    def __init__(self, directory: str) -> None:
        self.directory: Path = Path(directory).absolute()
        self.database: str = str(self.directory / "workspace.db")

    def run_directory(self, run: str) -> Path:
        """Return the directory of a run."""
        return self.directory / "runs" / run

    def outputs(self, run: str) -> Path:
        """Return the directory of its large outputs."""
        return self.run_directory(run) / "outputs"

    def step_directory(self, run: str, path: str) -> Path:
        """Return the directory of a step."""
        return self.run_directory(run).joinpath("steps", *map(_directory_name, path.split("/")))

    def stored(self, run: str, path: str, content: bytes) -> StoredOutput:
        """Say where the output of a step is to stand: in the database, or, if it is large, in a file."""
        if len(content) <= LARGE:
            return StoredOutput(content, None, None, None)
        digest = digest_of(content)
        name = name_of_file(path, digest)
        return StoredOutput(None, f"runs/{run}/outputs/{name}", digest, self.outputs(run) / name)

    def place(self, file: str) -> Path:
        """Return the path of a file that the database names."""
        if not _FILE.fullmatch(file):
            raise StoreError(f"{self.database}: the database is damaged: {file!r} is no output")
        return self.directory / file

    def content(self, path: str, file: str, digest: bytes) -> bytes:
        """Return the content of the file with an output of a step; raise `StoredFileError` if it is not as it was."""
        place = self.place(file)
        try:
            content = place.read_bytes()
        except OSError as error:
            raise StoredFileError(path, f"{place}: the output of step {path!r} is gone: {error.strerror}") from None
        if digest_of(content) != digest:
            raise StoredFileError(path, f"{place}: the output of step {path!r} was changed")
        return content


class StoredFileError(StoreError):
    """A file with an output is gone, or was changed; `step` is the path of the step."""

    def __init__(self, step: str, message: str) -> None:
        super().__init__(message)
        self.step = step


def digest_of(content: bytes) -> bytes:
    """Return the digest of the content of a file."""
    return blake2b(content, digest_size=32).digest()


def name_of_file(path: str, digest: bytes) -> str:
    """Name the file with an output: another content has another name, as another run may name the old one."""
    return blake2b(path.encode("utf-8", "surrogatepass") + b"\0" + digest, digest_size=20).hexdigest()


def _directory_name(part: str) -> str:
    encoded = part.encode("utf-8", "surrogatepass")
    if len(encoded) <= _LONGEST_PART:
        return part
    return f"{part[:20]}-{blake2b(encoded, digest_size=16).hexdigest()}"
