"""Names that no package has are mistakes that type checkers find, though names are imported when first used."""

import penstock
import penstock.durable
import penstock.sinks
import penstock.workflows


def misspelled() -> None:
    penstock.strean([1])  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    penstock.durable.run("index.db")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    penstock.sinks.Table("t")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    penstock.workflows.embedd("docs")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def right() -> None:
    """What the lines above are mistakes for."""
    penstock.stream([1])
    penstock.durable.runs("index.db")
    penstock.sinks.SqliteTable("index.db", "t")
