"""The tables of a journal in a schema, and their format."""

from typing import TYPE_CHECKING, Final, LiteralString

from penstock.durable.store_errors import StoreError

if TYPE_CHECKING:
    from penstock.durable.postgres.postgres_connection import PostgresConnection, WritingConnection

FORMAT: Final = 1

NUMBERS: Final = 1_000
"""Numbers of roots that are taken from their sequence together: none of them is ever given twice."""

_TABLES: Final[LiteralString] = """
CREATE TABLE penstock_journal (
    format integer NOT NULL, epoch bigint NOT NULL, serial bigint NOT NULL, holder text NOT NULL,
    since timestamptz NOT NULL);
CREATE UNIQUE INDEX penstock_journal_one ON penstock_journal ((true));
CREATE SEQUENCE penstock_numbers INCREMENT 1000;
CREATE TABLE penstock_runs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, source text NOT NULL,
    sink text NOT NULL, owner text NOT NULL, times bigint NOT NULL, clean boolean NOT NULL,
    began double precision NOT NULL, ended double precision);
CREATE TABLE penstock_stages (
    run bigint NOT NULL, number integer NOT NULL, name text NOT NULL, fingerprint bytea NOT NULL,
    PRIMARY KEY (run, number));
CREATE TABLE penstock_codes (
    run bigint NOT NULL, since bigint NOT NULL, code bytea NOT NULL, PRIMARY KEY (run, since));
CREATE TABLE penstock_roots (
    id bigint PRIMARY KEY, run bigint NOT NULL, key bytea NOT NULL, version bytea NOT NULL, state integer NOT NULL,
    position bigint NOT NULL, times bigint NOT NULL, rows bigint NOT NULL, UNIQUE (run, key));
CREATE TABLE penstock_dead (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, root bigint NOT NULL, stage text NOT NULL,
    attempts bigint NOT NULL, error text NOT NULL, traceback text NOT NULL, item text NOT NULL,
    at double precision NOT NULL);
CREATE INDEX penstock_dead_root ON penstock_dead (root);
CREATE TABLE penstock_staged (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, staging bigint NOT NULL, rows bytea NOT NULL);
CREATE INDEX penstock_staged_staging ON penstock_staged (staging, id);
CREATE TABLE penstock_memo (
    stage bytea NOT NULL, item bytea NOT NULL, value bytea NOT NULL, PRIMARY KEY (stage, item));
CREATE TABLE penstock_deaths (
    run bigint NOT NULL, opening bigint NOT NULL, noted boolean NOT NULL, PRIMARY KEY (run, opening));
CREATE TABLE penstock_dispatched (
    run bigint NOT NULL, key bytea NOT NULL, opening bigint NOT NULL, version bytea NOT NULL, source integer NOT NULL,
    position bigint NOT NULL, PRIMARY KEY (run, key, opening));
COMMENT ON COLUMN penstock_roots.key IS
    'text is convert_from(substr(key, 2), ''UTF8'') where get_byte(key, 0) = 1; a number is there plus 2^63';
"""


def make(connection: "WritingConnection") -> None:
    """Make the tables if there are none, in the open transaction; else check their format."""
    if connection.exists("penstock_journal"):
        check(connection)
        return
    connection.execute(_TABLES)
    connection.execute("INSERT INTO penstock_journal VALUES (%s, 0, 0, '', now())", (FORMAT,))


def require(connection: "PostgresConnection") -> None:
    """Raise `StoreError` if the schema has no journal, or one of another format."""
    if not connection.exists("penstock_journal"):
        raise StoreError(f"{connection.place}: no durable run has written to it")
    check(connection)


def check(connection: "PostgresConnection") -> None:
    """Raise `StoreError` if the journal is of another format."""
    found = connection.ask("SELECT format FROM penstock_journal")
    if found != [(FORMAT,)]:
        its = found[0][0] if len(found) == 1 else "an unknown one"
        raise StoreError(f"{connection.place}: a journal of format {its}; this penstock knows format {FORMAT}")
