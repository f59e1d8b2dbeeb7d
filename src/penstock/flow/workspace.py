"""What is on disk: the tables of `workspace.db`, large outputs as files, a lock and a directory for each run.

A composite step has no output of its own: a parallel, a map gives those of its children, all others that of one step
(`same`). Each is put together when it is read, so that nothing is stored twice.
"""

import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from hashlib import blake2b
from pathlib import Path
from shutil import rmtree
from threading import RLock
from typing import TYPE_CHECKING, Any, Concatenate, Final, cast
from zlib import crc32

from penstock.core.errors import PenstockError
from penstock.core.text import one_line
from penstock.durable.store_errors import HeldError, StoreError
from penstock.durable.values import UnpackError
from penstock.exports import naming_extras
from penstock.flow import codec
from penstock.flow.codec import ClassGone
from penstock.flow.results import PipelineError
from penstock.flow.usage import Usage

if TYPE_CHECKING:
    from penstock.durable.sqlite.connection import Connection

FORMAT: Final = 1
"""The number of the format of these tables."""

LARGE: Final = 64_000
"""Bytes of an output above which it is a file."""

TABLES: Final = """
CREATE TABLE IF NOT EXISTS flow_format(format INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS flow_runs(
    number INTEGER PRIMARY KEY,
    run TEXT NOT NULL UNIQUE,
    secret TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    source TEXT NOT NULL,
    shape TEXT NOT NULL,
    value BLOB NOT NULL,
    status TEXT NOT NULL,
    errors TEXT NOT NULL,
    changed TEXT NOT NULL,
    forked_from TEXT,
    began REAL NOT NULL,
    ended REAL,
    cancel INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS flow_steps(
    run INTEGER NOT NULL,
    path TEXT NOT NULL,
    parent TEXT NOT NULL,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    gives TEXT NOT NULL,
    status TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    interrupted INTEGER NOT NULL,
    code BLOB,
    started REAL,
    finished REAL,
    error TEXT,
    requests INTEGER NOT NULL,
    input_tokens INTEGER,
    output_tokens INTEGER,
    seconds REAL NOT NULL,
    same TEXT,
    output BLOB,
    file TEXT,
    digest BLOB,
    reason TEXT,
    refused TEXT,
    answer TEXT,
    answered BLOB,
    by TEXT,
    note TEXT NOT NULL,
    PRIMARY KEY(run, path)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS flow_children ON flow_steps(run, parent, position);
CREATE TABLE IF NOT EXISTS flow_memo(
    code BLOB NOT NULL, item BLOB NOT NULL, output BLOB NOT NULL, PRIMARY KEY(code, item)
) WITHOUT ROWID;
"""

RUN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,199}")
_FILE: Final = re.compile(r"runs/[A-Za-z0-9][A-Za-z0-9._:@+-]{0,199}/outputs/[0-9a-f]{1,64}")
_MADE: Final = ".making-"
"""What the name of a file begins with that says which run is being made."""

_LONGEST_PART: Final = 200
"""Bytes of a part of a path that is a directory's name as it is."""

_RUN: Final = (
    "SELECT number, run, secret, pipeline, source, value, status, errors, changed, forked_from, began, ended, cancel "
    "FROM flow_runs"
)
_STEP: Final = (
    "SELECT path, parent, position, name, kind, gives, status, attempts, interrupted, code, started, finished, error, "
    "requests, input_tokens, output_tokens, seconds, same, reason, refused, "
    "answer, by, note FROM flow_steps"
)
_STORED: Final = "SELECT kind, gives, status, same, output, file, digest FROM flow_steps WHERE run = ? AND path = ?"
_CHILDREN: Final = (
    "SELECT path, status, same, output, file, digest, kind, gives FROM flow_steps "
    "WHERE run = ? AND parent = ? ORDER BY position"
)


@dataclass(slots=True)
class RunRow:
    """What is recorded of a run."""

    number: int
    run: str
    secret: str
    pipeline: str
    source: str
    value: bytes
    status: str
    errors: str
    changed: str
    forked_from: str | None
    began: float
    ended: float | None
    cancel: int


@dataclass(slots=True)
class StepRecord:
    """What is recorded of a step, but for its output.

    Attributes:
        gives: what a composite is made of: "list" or "tuple" of its children; "" for the output itself, or `same`.
        interrupted: whether the last attempt neither returned nor raised.
        code: the fingerprint of its code.
        same: the step whose output this one has, or waits with; "" for the value of the run.
        reason: why it waits.
        answer: "approve", "value" or "again", while it has not been acted upon; "reject" for good.
    """

    path: str
    parent: str
    position: int
    name: str
    kind: str
    gives: str = ""
    status: str = "pending"
    attempts: int = 0
    interrupted: int = 0
    code: bytes | None = None
    started: float | None = None
    finished: float | None = None
    error: str | None = None
    requests: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    seconds: float = 0.0
    same: str | None = None
    reason: str | None = None
    refused: str | None = None
    answer: str | None = None
    by: str | None = None
    note: str = ""

    @property
    def usage(self) -> Usage:
        """What its requests cost."""
        return Usage(self.requests, self.input_tokens, self.output_tokens, self.seconds)


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """The columns of an output of its own, and where its file is to be, if it has one."""

    output: bytes | None
    file: str | None
    digest: bytes | None
    place: Path | None


class Workspace:
    """The directory of an engine."""

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

    @contextmanager
    def locked(self, run: str) -> Generator[None]:
        """Hold the lock of a run.

        Raises:
            PipelineError: `ALREADY_RUNNING`, or `WORKSPACE_ERROR`.
        """
        from penstock.durable.sqlite.lock import exclusive  # noqa: PLC0415 -- needs an extra

        directory = self.run_directory(run)
        with workspace_errors(self.database):
            directory.mkdir(parents=True, exist_ok=True)
            lock = exclusive(str(directory), str(directory / "lock"))
            try:
                lock.__enter__()
            except HeldError:
                raise PipelineError(
                    "ALREADY_RUNNING", None, f"run {run!r} is running: {self.holder(run) or 'another process'} runs it"
                ) from None
        try:
            yield
        finally:
            lock.__exit__(None, None, None)

    @contextmanager
    def making(self, run: str) -> Generator[None]:
        """Fill the directory of a run in this block before it is recorded; unless it is then, the directory goes.

        A file in the workspace, locked meanwhile, says so: what a kill leaves, the next one that writes removes.
        """
        from penstock.durable.sqlite.lock import exclusive  # noqa: PLC0415 -- as above

        self.directory.mkdir(parents=True, exist_ok=True)
        mark = str(self.directory / f"{_MADE}{run}")
        with exclusive(mark, mark):
            try:
                yield
            finally:
                self._remove_unless_recorded(run)

    def _remove_half_made(self) -> None:
        """Remove what was left of runs whose maker was killed."""
        from penstock.durable.sqlite.lock import exclusive, holder  # noqa: PLC0415 -- as above

        for place in self.directory.glob(f"{_MADE}*"):
            run, mark = place.name.removeprefix(_MADE), str(place)
            if RUN_ID.fullmatch(run) and holder(mark, mark) is None:
                with suppress(StoreError, OSError), exclusive(mark, mark):
                    self._remove_unless_recorded(run)

    def _remove_unless_recorded(self, run: str) -> None:
        """Remove the directory of a run that is not recorded, and then what says that it is being made."""
        reader = self.reader()
        try:
            if reader is None or reader.run(run) is None:
                rmtree(self.run_directory(run), ignore_errors=True)
        finally:
            if reader is not None:
                reader.connection.close()
        (self.directory / f"{_MADE}{run}").unlink(missing_ok=True)

    def holding(self, run: str) -> int | None:
        """Return a number, not 0, of whoever holds the lock of a run: another for each holder; None if nobody does.

        A cancel is meant for that one: what a killed process did not act upon is not for the next.
        """
        who = self.holder(run)
        return None if who is None else crc32(who.encode()) + 1

    def holder(self, run: str) -> str | None:
        """Return who runs it, with the process id; None if nobody does."""
        from penstock.durable.sqlite.lock import holder  # noqa: PLC0415 -- as above

        directory = self.run_directory(run)
        return holder(str(directory), str(directory / "lock"))

    @contextmanager
    def reading(self) -> Generator["WorkspaceReader | None"]:
        """Read what is recorded, all of one instant; None: there is nothing.

        Raises:
            PipelineError: `WORKSPACE_ERROR`.
        """
        log = Path(f"{self.database}-wal")
        with workspace_errors(self.database):
            is_alone = not log.exists()
        try:
            with workspace_errors(self.database):
                reader = self.reader()
            if reader is None:
                yield None
                return
            try:
                with workspace_errors(self.database):
                    reader.connection.execute("BEGIN")
                yield reader
            finally:
                reader.connection.close()
        finally:
            if is_alone and log.exists():
                self._remove_log()

    def _remove_log(self) -> None:
        """Have the empty log removed that reading has made: only what could write does it as it closes."""
        from penstock.durable.sqlite.connection import connect_writer  # noqa: PLC0415 -- as above

        with suppress(StoreError, OSError):
            connect_writer(self.database).close()

    def reader(self) -> "WorkspaceReader | None":
        """Open a reader on a connection of its own, which is to be closed; None if there is no database yet."""
        with naming_extras("penstock.flow.PipelineEngine", {"apsw": "flow"}):
            from penstock.durable.sqlite.connection import connect_reader  # noqa: PLC0415 -- as above

        try:
            Path(self.database).stat()
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise StoreError(f"{self.directory}: not a directory") from None
        connection = connect_reader(self.database)
        try:
            if not _check_format(connection):
                connection.close()
                return None
        except BaseException:
            connection.close()
            raise
        return WorkspaceReader(self, connection)

    def writer(self, *, power: bool = False) -> "Connection":
        """Open a connection that writes; make the workspace if it is not there."""
        from penstock.durable.sqlite.connection import connect_writer, transaction  # noqa: PLC0415 -- as above
        from penstock.durable.sqlite.disks import refuse_network_disk  # noqa: PLC0415 -- as above

        if (reader := self.reader()) is not None:  # refused before a byte is changed
            reader.connection.close()
        self.directory.mkdir(parents=True, exist_ok=True)
        refuse_network_disk(self.database)
        connection = connect_writer(self.database)
        try:
            if connection.pragma("journal_mode") != "wal":
                connection.pragma("journal_mode", "wal")
            connection.pragma("synchronous", "full" if power else "normal")
            if not _check_format(connection):
                with transaction(connection):
                    connection.execute(TABLES)
                    connection.execute(
                        "INSERT INTO flow_format SELECT ? WHERE NOT EXISTS (SELECT 1 FROM flow_format)", (FORMAT,)
                    )
            self._remove_half_made()
        except BaseException:
            connection.close()
            raise
        return connection

    def write(self, *statements: tuple[str, tuple[Any, ...]], power: bool) -> int:
        """Write at once, all or nothing; return how many rows the last statement has changed."""
        from penstock.durable.sqlite.connection import transaction  # noqa: PLC0415 -- as above

        connection = self.writer(power=power)
        try:
            with transaction(connection):
                for statement, values in statements:
                    connection.execute(statement, values)
                return connection.changes()
        finally:
            connection.close()

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


def _one_at_a_time[**P, T](
    read: Callable[Concatenate["WorkspaceReader", P], T],
) -> Callable[Concatenate["WorkspaceReader", P], T]:
    """Have threads read in turn: steps read what came before them, and a connection is for one at a time."""

    @wraps(read)
    def reading(self: "WorkspaceReader", /, *args: P.args, **options: P.kwargs) -> T:
        with self._reading:  # pyright: ignore[reportPrivateUsage] -- of this file
            return read(self, *args, **options)

    return reading


class WorkspaceReader:
    """Reads what is recorded; from any thread, one at a time."""

    def __init__(self, workspace: Workspace, connection: "Connection") -> None:
        self.workspace = workspace
        self._reading = RLock()
        self.connection: Connection = connection

    @_one_at_a_time
    def runs(self) -> list[RunRow]:
        """Return all runs, the one begun last first."""
        return [RunRow(*row) for row in self.connection.execute(f"{_RUN} ORDER BY began DESC, number DESC")]

    @_one_at_a_time
    def run(self, run: str) -> RunRow | None:
        """Return what is recorded of a run."""
        for row in self.connection.execute(f"{_RUN} WHERE run = ?", (run,)):
            return RunRow(*row)
        return None

    @_one_at_a_time
    def shape(self, number: int) -> str:
        """Return the paths and kinds that the definition of a run had, as JSON."""
        for (shape,) in self.connection.execute("SELECT shape FROM flow_runs WHERE number = ?", (number,)):
            return cast("str", shape)
        raise KeyError(number)

    @_one_at_a_time
    def records(self, number: int) -> dict[str, StepRecord]:
        """Return what is recorded of the steps of a run, by path, in the order of the definition."""
        below: dict[str, list[StepRecord]] = {}
        rows = self.connection.execute(f"{_STEP} WHERE run = ? ORDER BY parent, position", (number,))
        for row in rows:
            record = StepRecord(*row)
            below.setdefault(record.parent, []).append(record)
        found: dict[str, StepRecord] = {}
        agenda = list(reversed(below.get("", ())))
        while agenda:
            record = agenda.pop()
            found[record.path] = record
            agenda.extend(reversed(below.get(record.path, ())))
        return found

    @_one_at_a_time
    def record(self, number: int, path: str) -> StepRecord | None:
        """Return what is recorded of a step."""
        for row in self.connection.execute(f"{_STEP} WHERE run = ? AND path = ?", (number, path)):
            return StepRecord(*row)
        return None

    @_one_at_a_time
    def answered(self, number: int, path: str) -> Any:
        """Return the value that a step was approved with."""
        for (value,) in self.connection.execute(
            "SELECT answered FROM flow_steps WHERE run = ? AND path = ?", (number, path)
        ):
            return codec.unpacked(value)
        raise KeyError(path)

    @_one_at_a_time
    def value(self, number: int, hint: Any = None) -> Any:
        """Return the value of a run."""
        return codec.unpacked(self.packed_value(number), hint)

    @_one_at_a_time
    def packed_value(self, number: int) -> bytes:
        """Return the value of a run, as bytes."""
        for (value,) in self.connection.execute("SELECT value FROM flow_runs WHERE number = ?", (number,)):
            return cast("bytes", value)
        raise KeyError(number)

    @_one_at_a_time
    def output(self, number: int, path: str, hint: Any = None) -> Any:
        """Return the output of a step, or what waits there; `KeyError` if there is none."""
        for kind, gives, status, same, output, file, digest in self.connection.execute(_STORED, (number, path)):
            return self._output(number, path, (kind, gives, status, same, output, file, digest), hint)
        raise KeyError(path)

    def _output(self, number: int, path: str, row: tuple[Any, ...], hint: Any) -> Any:
        while True:
            _, gives, _, same, output, file, digest = row
            if output is not None or file is not None:
                content = cast("bytes", output) if file is None else self._read(path, file, digest)
                return codec.unpacked(content, hint)
            if gives and same is None:
                children = self.connection.execute(_CHILDREN, (number, path)).fetchall()
                found = (
                    self._output(number, child, (kind, of, status, of_child, output, file, digest), hint)
                    for child, status, of_child, output, file, digest, kind, of in children
                    if status == "completed"
                )
                return tuple(found) if gives == "tuple" else list(found)
            if same is None:
                raise KeyError(path)
            if not same:
                return self.value(number, hint)
            path = same
            row = next(iter(self.connection.execute(_STORED, (number, path))), ())
            if not row:
                raise KeyError(path)

    def _read(self, path: str, file: str, digest: bytes) -> bytes:
        place = self.workspace.place(file)
        try:
            content = place.read_bytes()
        except OSError as error:
            raise StoredFileError(path, f"{place}: the output of step {path!r} is gone: {error.strerror}") from None
        if digest_of(content) != digest:
            raise StoredFileError(path, f"{place}: the output of step {path!r} was changed")
        return content

    @_one_at_a_time
    def memo(self, code: bytes, item: bytes) -> bytes | None:
        """Return the output that is kept for a value, as bytes."""
        for (output,) in self.connection.execute(
            "SELECT output FROM flow_memo WHERE code = ? AND item = ?", (code, item)
        ):
            return cast("bytes", output)
        return None

    def files(self) -> Iterator[str]:
        """Give all files that are named."""
        for (file,) in self.connection.execute("SELECT file FROM flow_steps WHERE file IS NOT NULL"):
            yield file


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


@contextmanager
def workspace_errors(database: str, step: str | None = None) -> Generator[None]:
    """Turn what makes a workspace unusable into a `WORKSPACE_ERROR`."""
    try:
        yield
    except PipelineError:
        raise
    except (StoreError, OSError, UnpackError, ClassGone) as error:
        raise as_workspace_error(error, database, step) from error


def as_workspace_error(error: Exception, database: str, step: str | None = None) -> PipelineError:
    """Return the `WORKSPACE_ERROR` that an error is."""
    if isinstance(error, StoredFileError):
        return PipelineError("WORKSPACE_ERROR", error.step, str(error))
    where = database if step is None else f"{database}: the output of step {step!r}"
    text = (
        str(error)
        if isinstance(error, PenstockError)
        else (error.strerror or str(error)).lower()
        if isinstance(error, OSError)
        else str(error)
    )
    if not text.startswith(database):
        text = f"{where}: {text}"
    return PipelineError("WORKSPACE_ERROR", step, one_line(text))


def _check_format(connection: "Connection") -> bool:
    """Whether the tables are there; an error if their format is newer, or they are not as they were made."""
    from penstock.durable.sqlite.schema import refuse_other_tables  # noqa: PLC0415 -- needs an extra

    there = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'flow_format'").fetchone()
    if there is None:
        return False
    for (number,) in connection.execute("SELECT max(format) FROM flow_format"):
        if not isinstance(number, int):
            raise StoreError(f"{connection.path}: the database is damaged: it has no format")
        if number > FORMAT:
            raise StoreError(
                f"{connection.path}: has format {number}, which is newer than {FORMAT}: a newer penstock made it"
            )
    refuse_other_tables(connection, TABLES)
    return True


def _directory_name(part: str) -> str:
    encoded = part.encode("utf-8", "surrogatepass")
    if len(encoded) <= _LONGEST_PART:
        return part
    return f"{part[:20]}-{blake2b(encoded, digest_size=16).hexdigest()}"
