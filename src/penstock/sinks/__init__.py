"""Sinks of durable runs: where results go, one outside system each."""

from typing import TYPE_CHECKING

from penstock.exports import exports, installed

if TYPE_CHECKING:
    from penstock.durable.roots import RootId
    from penstock.durable.sink import Delivery, Durability, Sink
    from penstock.durable.store import Store
    from penstock.durable.store_errors import RowError
    from penstock.sinks.callback import Callback, Delivered
    from penstock.sinks.directory import Files
    from penstock.sinks.finding import Found
    from penstock.sinks.json_lines import JsonLines
    from penstock.sinks.postgres_table import PostgresTable
    from penstock.sinks.sqlite_store import SqliteStore
    from penstock.sinks.table import SqliteTable
    from penstock.sinks.vectors import Made, SqliteVectors
else:
    __getattr__, __dir__ = exports(
        __name__,
        {
            "penstock.durable.store_errors": ("RowError",),
            "penstock.durable.roots": ("RootId",),
            "penstock.durable.sink": ("Delivery", "Durability", "Sink"),
            "penstock.durable.store": ("Store",),
            "penstock.sinks.callback": ("Callback", "Delivered"),
            "penstock.sinks.directory": ("Files",),
            "penstock.sinks.finding": ("Found",),
            "penstock.sinks.json_lines": ("JsonLines",),
            "penstock.sinks.postgres_table": ("PostgresTable",),
            "penstock.sinks.sqlite_store": ("SqliteStore",),
            "penstock.sinks.table": ("SqliteTable",),
            "penstock.sinks.vectors": ("Made", "SqliteVectors"),
        },
        extras={"apsw": "durable", "sqlite_vec": "durable", "numpy": "embed", "psycopg": "postgres"},
    )

__all__ = [
    "Callback",
    "Delivered",
    "Delivery",
    "Durability",
    "Files",
    "Found",
    "JsonLines",
    "Made",
    "PostgresTable",
    "RootId",
    "RowError",
    "Sink",
    "SqliteStore",
    "SqliteTable",
    "SqliteVectors",
    "Store",
]

if not TYPE_CHECKING:
    _VECTORS = ("Made", "SqliteVectors")
    _SQLITE = ("Callback", "Delivered", "Files", "Found", "JsonLines", "SqliteStore", "SqliteTable", *_VECTORS)
    __all__[:] = installed(
        __all__, {"apsw": _SQLITE, "numpy": _VECTORS, "sqlite_vec": _VECTORS, "psycopg": ("PostgresTable",)}
    )
