"""Sinks of durable runs: where results go, one outside system each."""

from typing import TYPE_CHECKING, Any

from penstock.core.extras import imported

if TYPE_CHECKING:
    from penstock.durable.sink import Delivery, Durability, Sink, Store
    from penstock.sinks.callback import Callback, Delivered
    from penstock.sinks.finding import Found
    from penstock.sinks.store import SqliteStore
    from penstock.sinks.table import SqliteTable
    from penstock.sinks.vectors import Made, SqliteVectors

_HOMES = {
    "durable.sink": ("Delivery", "Durability", "Sink", "Store"),
    "sinks.callback": ("Callback", "Delivered"),
    "sinks.finding": ("Found",),
    "sinks.store": ("SqliteStore",),
    "sinks.table": ("SqliteTable",),
    "sinks.vectors": ("Made", "SqliteVectors"),
}
_HOME_OF = {name: f"penstock.{home}" for home, names in _HOMES.items() for name in names}

__all__ = [
    "Callback",
    "Delivered",
    "Delivery",
    "Durability",
    "Found",
    "Made",
    "Sink",
    "SqliteStore",
    "SqliteTable",
    "SqliteVectors",
    "Store",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: the library behind it is an extra."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'penstock.sinks' has no attribute {name!r}")
    value = globals()[name] = imported("penstock.sinks", name, _HOME_OF[name])
    return value


def __dir__() -> list[str]:
    return __all__
