"""What tells a sink from others at the same path."""

from penstock import Callback, SqliteTable, SqliteVectors
from penstock.durable.sink import identity_of


class Own:
    """A sink that does not say."""


class Named(Own):
    identity = "words"


def test_a_sink_is_named_by_its_identity_or_by_its_class():
    sinks = [SqliteTable("x.db", "notes"), SqliteVectors("x.db"), Callback(print, journal="x.db"), Named(), Own()]
    assert [identity_of(sink) for sink in sinks] == ["table notes", "vectors", "callback", "words", "Own"]


def test_one_table_has_one_identity_whatever_the_case_of_its_name():
    """SQLite takes `Notes` and `NOTES` for one table, but `Ä` and `ä` for two."""
    names = ["Notes", "NOTES", "Ä", "ä"]
    assert [SqliteTable("x.db", name).identity for name in names] == [
        f"table {n}" for n in ("notes", "notes", "Ä", "ä")
    ]
