"""The directory of an engine: it holds the lock of a run, and opens the database to read and to write."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from penstock.durable.store_errors import HeldError, StoreError
from penstock.exports import naming_extras
from penstock.flow.results import PipelineError
from penstock.flow.workspace_errors import workspace_errors
from penstock.flow.workspace_files import RUN_ID, WorkspaceFiles
from penstock.flow.workspace_reader import WorkspaceReader
from penstock.flow.workspace_tables import FORMAT, TABLES, check_format

if TYPE_CHECKING:
    from penstock.durable.sqlite.connection import Connection

_MADE: Final = ".making-"
"""What the name of a file begins with that says which run is being made."""


class Workspace(WorkspaceFiles):
    """The directory of an engine."""

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
    def reading(self) -> Generator[WorkspaceReader | None]:
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

    def reader(self) -> WorkspaceReader | None:
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
            if not check_format(connection):
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
            if not check_format(connection):
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
