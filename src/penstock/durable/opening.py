"""Opens a run: the store of its sink, and the run in the journal there."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from shlex import quote
from typing import Final

from penstock.core.log import LOG
from penstock.durable.errors import HeldError, StoreError
from penstock.durable.job import Job
from penstock.durable.sink import Store, identity_of
from penstock.durable.sqlite.journal import Opened
from penstock.durable.sqlite.lock import owner, reached

_WAITS: Final = (0.01, 0.02, 0.05, 0.1)
"""Seconds that one who holds the sink gets: the child of a process that was killed takes a moment to end, too."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A run that was opened: the store that it writes to, and what the journal there says of it."""

    store: Store
    run: Opened


async def open_run(job: Job) -> Opening:
    """Open it, and tell what others have done to it since it was open last.

    Raises:
        HeldError: another process is writing to the sink.
        StoreError: the sink cannot be written, or knows the run as another one; or nothing is left of what it stored.
    """
    opening = await open_again(job)
    changed, lost = opening.run.changed, opening.run.lost
    if changed:
        LOG.warning("run %r: the code has changed since the last time: %s", job.options.run, ", ".join(changed))
    if lost:
        lacking = "run %r: somebody has removed rows of %s; %s has them done again"
        LOG.warning(
            lacking,
            job.options.run,
            f"{lost:,} root{'' if lost == 1 else 's'}",
            _redo(job),
        )
    return opening


async def open_again(job: Job) -> Opening:
    """The same without a word."""
    store = await _open_store(job)
    options = job.options
    try:
        with store.transaction():
            run = store.journal.open_run(
                options.run,
                job.source.name,
                identity_of(job.sink),
                owner(),
                stages=job.source.stages,
                on_change=options.on_change,
            )
            lost = store.lost(run.id)
            _refuse_if_all_are_lost(job, store, run, lost)
            store.journal.deaths.learn(reached(job.sink.path))
            return Opening(store, replace(run, keeps_rows_of_dead=options.on_dead == "keep", lost=len(lost)))
    except BaseException:
        store.close()
        raise


async def _open_store(job: Job) -> Store:
    for wait in _WAITS:
        with suppress(HeldError):
            return job.sink.open(job.options.durability)
        await asyncio.sleep(wait)
    return job.sink.open(job.options.durability)


def _refuse_if_all_are_lost(job: Job, store: Store, run: Opened, lost: Sequence[tuple[int, int]]) -> None:
    """`StoreError` if nothing is left of all that the run had stored: its table was dropped, or emptied."""
    if any(rows for _, rows in lost) or not lost or store.journal.roots_with_rows(run.id) > len(lost):
        return
    raise StoreError(
        f"{job.sink.path}: somebody has removed all rows of run {run.name!r} ({len(lost):,} roots); {_redo(job)} has "
        "them done again, `penstock forget` begins anew"
    )


def _redo(job: Job) -> str:
    return f"`penstock redo {quote(job.sink.path)} --run {quote(job.options.run)} --missing-rows`"
