"""SQLite through apsw: the one place that opens connections.

Whatever is read may have been written by others. So nothing that a database brings along is run: no trigger, no view,
no function but harmless ones. What SQLite or its content raises becomes a `StoreError` that names the database, at any
call. See `docs/decisions.md`, "A database is not trusted".

A process that also opens the file with the standard `sqlite3` loses the locks that apsw holds on it when that closes.
"""

import errno
import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import batched, chain
from pathlib import Path
from typing import Any, Final, override
from urllib.parse import quote

import apsw

from penstock.durable.store_errors import DamageError, StoreError, StoreFullError

_REASONS: tuple[tuple[type[apsw.Error], str], ...] = (
    (apsw.NotADBError, "not an SQLite database"),
    (apsw.FullError, "the disk is full"),
    (apsw.ReadOnlyError, "cannot be written"),
    (apsw.BusyError, "another process is writing to it"),
    (apsw.CantOpenError, "cannot be opened"),
    (apsw.CorruptError, "the database is damaged"),
    (apsw.TooBigError, "a value has more bytes than is allowed"),
)


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What the system reports besides a full disk: a quota, and `ulimit -f`.

SQLite tells only a full disk from other errors.
"""

_PATIENCE = 5_000
"""Milliseconds that a connection waits while another process has the database for itself."""

_AT_ONCE: Final = 50
"""Rows that are inserted by one statement, at most."""

_PLACES: Final = 500
"""Values of one statement that inserts several rows, at most."""

_STEPS: Final = 20_000
"""Steps of SQLite between two looks at whether a signal came: some hundred microseconds."""

_STEPS_ANYWAY: Final = 20_000_000
_STEPS_OF_A_BYTE: Final = 30
"""Steps that a reader may take for each byte: it reads a byte a few times; a damaged tree may go in circles."""

_MAGIC: Final = {
    "-wal": (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"),
    "-journal": (b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7",),
    "-shm": (b"\x18\xe2\x2d\x00", b"\x00\x2d\xe2\x18"),
}
"""What the files beside a database begin with; SQLite overwrites any file with their names."""

_REFUSED: Final = 100
"""Characters of a value in a message."""


class ConstraintError(StoreError):
    """A row breaks a rule of its table."""


class TooLargeError(StoreError):
    """A value has more bytes than SQLite can store, or than are allowed there."""


class TextError(DamageError):
    """A text that was to be read is not UTF-8."""


class Connection(apsw.Connection):
    """A connection to the database at `path`, whose errors name it.

    An exception of a signal handler, Ctrl-C too, is raised by the statement that runs then.

    Attributes:
        path: the database, as the user names it.
    """

    def __init__(self, path: str, place: str, flags: int, *, views: bool = False, extension: str = "") -> None:
        self.path: str = path
        self._left: int | None = None
        with named_errors(path):
            super().__init__(place, flags=flags)
            self.cursor_factory: Callable[[apsw.Connection], Any] = _Cursor
            if extension:
                self.enable_load_extension(True)
                self.load_extension(extension)
                self.enable_load_extension(False)
            self.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
            self.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
            self.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
            self.config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, int(views))
            self.limit(apsw.SQLITE_LIMIT_ATTACHED, 0)
            self.set_busy_timeout(_PATIENCE)
            self.set_progress_handler(self._is_over, _STEPS)
        self.pragma("cell_size_check", True)

    def bound(self, largest: int) -> None:
        """Limit the work of reading to what a database of that size can need, and each value to `largest` bytes."""
        self._left = self._steps()
        self.limit(apsw.SQLITE_LIMIT_LENGTH, largest)

    @contextmanager
    def bounded(self) -> Generator[None]:
        """Limit the work inside this block, for values of any size."""
        self._left = self._steps()
        try:
            yield
        finally:
            self._left = None

    def _steps(self) -> int:
        size = _size(self.filename) + _size(f"{self.filename}-wal")
        return (_STEPS_ANYWAY + _STEPS_OF_A_BYTE * size) // _STEPS

    def _is_over(self) -> bool:
        if self._left is None:
            return False
        self._left -= 1
        return self._left < 0

    @override
    def execute(self, *args: Any, **options: Any) -> "_Cursor":
        try:
            return super().execute(*args, **options)  # type: ignore[return-value] # pyright: ignore[reportReturnType] -- of its `cursor_factory`
        except apsw.Error as error:
            raise self.named(error) from error

    @override
    def executemany(self, *args: Any, **options: Any) -> "_Cursor":
        try:
            return super().executemany(*args, **options)  # type: ignore[return-value] # pyright: ignore[reportReturnType] -- as above
        except apsw.Error as error:
            raise self.named(error) from error

    def insert(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Insert rows by a statement for one row that ends in VALUES and its places; many at once.

        A step of SQLite for each row costs as much as the work in it.
        """
        into, _, places = statement.rpartition(" VALUES ")
        number = min(_AT_ONCE, max(_PLACES // places.count("?"), 1))
        several = f"{into} VALUES {', '.join([places] * number)}"
        for some in batched(rows, number):
            if len(some) == number:
                self.execute(several, list(chain.from_iterable(some)))
            else:
                self.executemany(statement, some)

    @override
    def pragma(self, *args: Any, **options: Any) -> Any:
        try:
            return super().pragma(*args, **options)
        except apsw.Error as error:
            raise self.named(error) from error

    @override
    def close(self, force: bool = False) -> None:
        try:
            super().close(force)
        except apsw.Error as error:
            raise self.named(error) from error

    def select(self, statement: str, values: tuple[Any, ...], *kinds: Any) -> Iterator[tuple[Any, ...]]:
        """Give the rows of a query; raise `DamageError` at one whose columns are not of these types, one for each."""
        cursor = self.execute(statement, values)
        for row in cursor:
            self._check(cursor, row, kinds)
            yield row

    def page(self, statement: str, values: tuple[Any, ...], *kinds: Any) -> list[tuple[Any, ...]]:
        """Return what `select` gives, for a query of few rows, checked by column: for a third of the price."""
        cursor = self.execute(statement, values)
        rows = cursor.fetchall()
        is_one = len(rows) == 1  # a key that is looked up by itself: a fifth less
        if not (all(map(isinstance, rows[0], kinds)) if is_one else _are_of(zip(*rows, strict=True), kinds)):
            self._refuse(statement, values, rows, kinds)
        return rows

    def columns(self, statement: str, values: tuple[Any, ...], *kinds: Any) -> list[tuple[Any, ...]]:
        """Return what `page` gives, column by column."""
        rows = self.execute(statement, values).fetchall()
        columns = list(zip(*rows, strict=True)) or [()] * len(kinds)
        if not _are_of(columns, kinds):
            self._refuse(statement, values, rows, kinds)
        return columns

    def _refuse(self, statement: str, values: tuple[Any, ...], rows: list[tuple[Any, ...]], kinds: Any) -> None:
        """Raise for the first value that is not of its type."""
        names = self.execute(statement, values)
        for row in rows:
            self._check(names, row, kinds)

    def _check(self, cursor: apsw.Cursor, row: tuple[Any, ...], kinds: tuple[Any, ...]) -> None:
        for place, (value, kind) in enumerate(zip(row, kinds, strict=True)):
            if not isinstance(value, kind):
                name = cursor.get_description()[place][0]
                raise DamageError(f"{self.path}: the database is damaged: {shown(value)} stands for {name!r}")

    def one(self, statement: str, values: tuple[Any, ...], *kinds: Any) -> tuple[Any, ...]:
        """Return the only row of a query.

        Raise `DamageError` if there is none, or more, or a column has another type.
        """
        found = list(self.select(statement, values, *kinds))
        if len(found) != 1:
            raise DamageError(f"{self.path}: the database is damaged: {len(found)} rows where one is to be")
        return found[0]

    def named(self, error: Exception) -> StoreError:
        """Return an error of SQLite as one that names the database."""
        if isinstance(error, apsw.InterruptError) and self._left is not None and self._left < 0:
            return DamageError(f"{self.path}: the database is damaged: there is no end of what is to be read")
        if isinstance(error, apsw.IOError) and self.system_errno in _NO_ROOM:
            return StoreFullError(f"{self.path}: the disk is full")
        return _named(self.path, error)


def _are_of(columns: Iterable[tuple[Any, ...]], kinds: tuple[Any, ...]) -> bool:
    """Whether all values of each column are of its type."""
    return all(
        issubclass(found, kind)
        for column, kind in zip(columns, kinds, strict=False)  # none, where there is no row
        for found in set(map(type, column))
    )


class _Cursor(apsw.Cursor):
    """The rows of a statement, each once."""

    @override
    def execute(self, *args: Any, **options: Any) -> "_Cursor":
        try:
            return super().execute(*args, **options)  # type: ignore[return-value] # pyright: ignore[reportReturnType] -- itself
        except apsw.ExecTraceAbort:  # of `apsw.ext.query_info`
            raise
        except apsw.Error as error:
            raise self._named(error) from error

    @override
    def __iter__(self) -> Any:
        try:
            yield from iter(super().fetchone, None)
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._named(error) from error

    @override
    def fetchone(self) -> Any:
        try:
            return super().fetchone()
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._named(error) from error

    @override
    def fetchall(self) -> list[Any]:
        try:
            return list(iter(super().fetchone, None))  # that of apsw asks `__iter__`: a frame a row
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._named(error) from error

    def _named(self, error: Exception) -> StoreError:
        connection = self.connection
        assert isinstance(connection, Connection)
        return connection.named(error)


def connect_writer(path: str, *, extension: str = "") -> Connection:
    """Open the connection that writes to the database at `path`, which is made if there is none, for its owner alone.

    `extension` is a library of functions to load.

    `lock.py` has decided before who may write. The connection waits only for those who hold the database for a moment:
    a reader that comes first after a kill reads the log anew, and others back it up.
    """
    refuse_other_files(path)
    real = os.path.realpath(path)
    with suppress(FileExistsError), _named_by_system(path):
        os.close(os.open(real, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    connection = Connection(path, real, _WRITE, extension=extension)
    try:
        _refuse_other_encodings(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: str, *, extension: str = "", of_others: bool = False) -> Connection:
    """Open a connection that only reads, and needs to write nothing to do so, not even beside the database.

    A database in WAL mode whose `-wal` and `-shm` are gone can only be opened where they can be made again. In a
    directory that cannot be written it is therefore opened as immutable. With a `-wal` that holds something this would
    hide the newest rows, and with a `-journal` show half of a transaction, so it is an error then. Outside WAL mode, a
    transaction that a kill has cut off is rolled back first, as everybody does who opens such a database.

    A database `of_others` may have views, any encoding and several names.
    """
    if not of_others:
        refuse_other_files(path)
    connection = Connection(path, _uri(path, "mode=ro"), _READ, extension=extension, views=of_others)
    try:
        try:
            connection.pragma("schema_version")
        except StoreError as error:
            cause = error.__cause__
            if not isinstance(cause, apsw.CantOpenError | apsw.ReadOnlyError):
                raise
            if getattr(cause, "extendedresult", 0) == apsw.SQLITE_READONLY_ROLLBACK:
                _roll_back(path)
            elif os.access(Path(path).parent, os.W_OK) or _size(f"{path}-wal") or _size(f"{path}-journal"):
                raise
            else:
                connection.close()
                connection = Connection(path, _uri(path, "immutable=1"), _READ, extension=extension, views=of_others)
            connection.pragma("schema_version")
        if not of_others:
            _refuse_other_encodings(connection)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: Connection) -> Generator[None]:
    """Open a transaction: all or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite may have rolled back by itself, for example when the disk is full
            with suppress(StoreError):
                connection.execute("ROLLBACK")
        raise


@contextmanager
def named_errors(path: str) -> Generator[None]:
    """Turn what SQLite raises into a `StoreError` in one line that names the database."""
    try:
        yield
    except apsw.Error as error:
        raise _named(path, error) from error


def refuse_other_files(path: str) -> None:
    """Raise `StoreError` if the database has a second name, or files beside it are not its own; reads only.

    Locks and logs go by the name: through two names two processes would write at once, and neither see the other's
    rows.
    """
    real = os.path.realpath(path)
    found = _status(path, real)
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise StoreError(f"{path}: not a regular file")
    if found is not None and found.st_nlink > 1:
        raise StoreError(f"{path}: has {found.st_nlink} names (hard links): a database must have one")
    for suffix, magic in _MAGIC.items():
        is_read = suffix != "-shm" or not Path(f"{real}-wal").exists()  # else its end may take locks of this process
        _refuse_other_file(path, f"{real}{suffix}", magic if is_read else ())


def shown(value: object) -> str:
    """Show a value in a message."""
    text = repr(value if not isinstance(value, str | bytes) else value[: _REFUSED + 1])
    return text if len(text) <= _REFUSED else f"{text[:_REFUSED]}..."


def _refuse_other_file(path: str, beside: str, magic: tuple[bytes, ...]) -> None:
    found = _status(path, beside)
    if found is None:
        return
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise StoreError(f"{path}: {beside} stands where SQLite would write, and is no file of its own")
    if not found.st_size or not magic:
        return
    with suppress(FileNotFoundError, PermissionError):  # it may be gone again, or SQLite cannot read it, either
        descriptor = os.open(beside, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            begins = os.pread(descriptor, 8, 0)
        finally:
            os.close(descriptor)
        cut = begins.rstrip(b"\0")  # zeros stand where a crash came before the rest, or SQLite is done with it
        if not any(begins.startswith(each) or each.startswith(cut) for each in magic):
            raise StoreError(f"{path}: {beside} stands where SQLite would write, and was not made by it")


def _status(path: str, place: str) -> os.stat_result | None:
    try:
        return os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path}: cannot be opened: {(error.strerror or str(error)).lower()}") from error


def _refuse_other_encodings(connection: Connection) -> None:
    """Raise unless the encoding is UTF-8: keys are passed over in its order."""
    encoding = connection.pragma("encoding")
    if encoding != "UTF-8":
        raise StoreError(f"{connection.path}: a database in {encoding}, it must be in UTF-8")


@contextmanager
def _named_by_system(path: str) -> Generator[None]:
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        kind = StoreFullError if error.errno in _NO_ROOM else StoreError
        raise kind(f"{path}: cannot be opened: {(error.strerror or str(error)).lower()}") from error


def _named(path: str, error: Exception) -> StoreError:
    if isinstance(error, UnicodeDecodeError):
        return TextError(f"{path}: the database is damaged: it holds a text that is not UTF-8")
    reason = next((text for kind, text in _REASONS if isinstance(error, kind)), str(error))
    if isinstance(error, apsw.CantOpenError) and not os.path.lexists(path):
        reason = f"{reason}: there is no such file"
    kind = next((ours for theirs, ours in _KINDS if isinstance(error, theirs)), StoreError)
    return kind(f"{path}: {reason}")


_KINDS: Final[tuple[tuple[type[apsw.Error], type[StoreError]], ...]] = (
    (apsw.FullError, StoreFullError),
    (apsw.ConstraintError, ConstraintError),
    (apsw.TooBigError, TooLargeError),
)

_WRITE = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
_READ = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI


def _uri(path: str, option: str) -> str:
    return f"file:{quote(os.fsencode(Path(path).absolute()))}?{option}"


def _roll_back(path: str) -> None:
    connection = Connection(path, path, _WRITE)
    try:
        connection.pragma("schema_version")
    finally:
        connection.close()


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0
