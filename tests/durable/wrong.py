"""Wrong ways to run durably, which the kills must find."""

from contextlib import contextmanager
from functools import wraps

from penstock.durable.roots import RootId
from penstock.durable.sqlite import lock
from penstock.durable.sqlite.journal import SqliteJournal
from penstock.sinks.sqlite_store import SqliteStore
from penstock.sinks.table import TableStore


def done_before_rows():
    """Note that a root is done in a transaction before that of its rows: loses rows."""

    def for_itself(settle):
        @wraps(settle)
        def settled_for_itself(self, *args, **options):
            number = settle(self, *args, **options)
            self._connection.execute("COMMIT")
            self._connection.execute("BEGIN IMMEDIATE")
            return number

        return settled_for_itself

    SqliteJournal.settle, SqliteJournal.settle_new = (
        for_itself(SqliteJournal.settle),
        for_itself(SqliteJournal.settle_new),
    )


def rows_before_done():
    """Store the rows of a root in a transaction before that of the note that it is done."""
    settle, replace = SqliteJournal.settle, TableStore.replace

    @wraps(settle)
    def settled_later(self, *args):
        number = settle(self, *args)
        known = list(self._connection.execute("SELECT version FROM penstock_roots WHERE id = ?", (number,)))
        self._connection.execute("UPDATE penstock_roots SET version = 'not yet' WHERE id = ?", (number,))
        self._later = number, known[0]
        return number

    @wraps(replace)
    def replaced_first(self, root, rows):
        replace(self, root, rows)
        self.connection.execute("COMMIT")
        self.connection.execute("BEGIN IMMEDIATE")
        number, (version,) = self.journal._later
        self.connection.execute("UPDATE penstock_roots SET version = ? WHERE id = ?", (version, number))

    SqliteJournal.settle, TableStore.replace = settled_later, replaced_first


def lock_is_inherited():
    """Let children hold the lock."""
    lock._let_go.__code__ = (lambda: None).__code__


def rows_are_added():
    """Add the rows of a root that has changed to those that are there."""
    replace = TableStore.replace

    @wraps(replace)
    def added(self, root, rows):
        replace(self, RootId(-1, root.key), rows)
        self.connection.execute(f"UPDATE rows SET penstock_root = {root.number} WHERE penstock_root = -1")

    TableStore.replace = added


def commits_come_at_the_end():
    """Acknowledge roots that are not committed yet."""
    close = SqliteStore.close

    @contextmanager
    def transaction(self):
        if not self.connection.in_transaction:
            self.connection.execute("BEGIN IMMEDIATE")
        yield

    @wraps(close)
    def closed(self):
        if self.connection.in_transaction:
            self.connection.execute("COMMIT")
        close(self)

    SqliteStore.transaction, SqliteStore.close = transaction, closed


TWINS = {
    name.replace("_", " "): wrong
    for name, wrong in list(globals().items())
    if getattr(wrong, "__module__", "") == __name__
}
