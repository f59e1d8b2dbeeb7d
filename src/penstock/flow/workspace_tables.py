"""The tables of `workspace.db`, and what their rows say of runs and steps."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from penstock.durable.store_errors import StoreError
from penstock.flow.usage import Usage

if TYPE_CHECKING:
    from penstock.durable.sqlite.connection import Connection

FORMAT: Final = 1
"""The number of the format of these tables."""

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


def check_format(connection: "Connection") -> bool:
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
