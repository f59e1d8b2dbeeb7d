"""Names that no package has are mistakes that type checkers find, though names are imported when first used."""

from typing import assert_type

import penstock


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


async def modules_need_no_import_of_their_own() -> None:
    assert_type(penstock.tasks.TaskQueue[int]().dequeue(), int)
    assert_type(penstock.testing.Gauge(), penstock.testing.Gauge)
    penstock.engines.__doc__  # noqa: B018 -- the access is the test


async def what_runs_give_has_names() -> None:
    async with penstock.stream([1]).map(str).open() as items:
        assert_type(items.stats(), penstock.Stats)
        assert_type(items.stats()[0], penstock.StageStats)
        assert_type(items.stats()[0].latency, penstock.Latency | None)
    with penstock.stream([1]).sync() as again:
        assert_type(again, penstock.SyncRun[int])
