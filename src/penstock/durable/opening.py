"""Opens a run: the store of its sink, and the run in the journal there. The rules for that stand here."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from shlex import quote
from typing import Final, NoReturn

from penstock.core.log import LOG
from penstock.durable.fingerprint import changes, code_of
from penstock.durable.job import Job
from penstock.durable.made_by import MadeBy, going_on, openings_by_others
from penstock.durable.owner import owner
from penstock.durable.sink import identity_of, place_of
from penstock.durable.store import Journal, Opened, RunRecord, Store
from penstock.durable.store_errors import HeldError, StoreError
from penstock.durable.transact import transact

_WAITS: Final = (0.01, 0.02, 0.05, 0.1)
"""Seconds that a holder of the sink gets: the worker of a process that was killed takes a moment to end, too."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A run that was opened: its store, and what the journal there knows of it."""

    store: Store
    run: Opened


async def open_run(job: Job) -> Opening:
    """Open it, and tell what others have done to it since it was last open.

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
    """Open it as `open_run` does, but tell nothing."""
    store = await _open_store(job)
    try:
        return Opening(store, transact(store, lambda: _begun_in(job, store)))
    except BaseException:
        store.close()
        raise


def _begun_in(job: Job, store: Store) -> Opened:
    run = _begun(job, store.journal)
    lost = store.lost(run.id)
    _refuse_if_all_are_lost(job, store, run, lost)
    return replace(run, lost=len(lost))


async def _open_store(job: Job) -> Store:
    for wait in _WAITS:
        with suppress(HeldError):
            return job.sink.open(job.options.durability)
        await asyncio.sleep(wait)
    return job.sink.open(job.options.durability)


def _begun(job: Job, journal: Journal) -> Opened:
    """Begin the run, or begin it once more, with the code that its stages have now."""
    options, stages = job.options, job.source.stages
    before, code = journal.run(options.run), code_of(stages)
    changed: tuple[str, ...] = ()
    codes: MadeBy = ()
    if before is not None and _is_of_another(job, before):
        if journal.some_roots(before.number, 1):
            _refuse_other_ends(job, before)
        journal.forget_run(before.number)  # nothing is known of it: its source could not be read
        before = None
    if before is not None:
        stages_before = journal.stages(before.number)
        changed = changes(stages_before, stages)
        if changed and options.on_change == "refuse":
            raise StoreError(
                f"{place_of(job.sink)}: the code of the run {options.run!r} has changed: {', '.join(changed)}; "
                'on_change="continue" leaves what is done, "restart" does all of it again'
            )
        codes = before.codes or ((1, code_of(stages_before)),)  # a journal of an older format does not say
        if options.on_change == "restart":
            codes, _, _ = redo_by_other_code(journal, before.number, codes, code)
    times = 1 if before is None else before.times + 1
    codes = going_on(codes, times, code)
    return Opened(
        id=journal.begin(options.run, job.source.name, identity_of(job.sink), owner(), stages, codes),
        name=options.run,
        times=times,
        clean=before is None or before.clean,
        changed=changed,
        codes=codes,
        keeps_rows_of_dead=options.on_dead == "keep",
    )


def _is_of_another(job: Job, before: RunRecord) -> bool:
    """Whether the run is over another source or into another sink; a journal of an older format names no sink."""
    return before.source != job.source.name or before.sink not in {identity_of(job.sink), ""}


def _refuse_other_ends(job: Job, before: RunRecord) -> NoReturn:
    """Raise `StoreError`: the run is over another source or into another sink."""
    source, sink = job.source.name, identity_of(job.sink)
    other = f"over {before.source}, not over {source}"
    if before.source == source:
        other = f"into {before.sink}, not into {sink}"
    raise StoreError(
        f"{place_of(job.sink)}: the run {before.name!r} is {other}; give this one another name (run=, or --run)"
    )


def redo_by_other_code(journal: Journal, run: int, codes: MadeBy, code: bytes) -> tuple[MadeBy, int, int]:
    """Have roots done again that other code made; return which code made the rest, the number of roots, and of rows."""
    others = [journal.redo(run, openings=openings) for openings in openings_by_others(codes, code)]
    if others:
        codes = ((1, code),)
    return codes, sum(roots for roots, _ in others), sum(rows for _, rows in others)


def _refuse_if_all_are_lost(job: Job, store: Store, run: Opened, lost: Sequence[tuple[int, int]]) -> None:
    """Raise `StoreError` if nothing is left of all that the run had stored: its table was dropped, or emptied."""
    if any(rows for _, rows in lost) or not lost or store.journal.roots_with_rows(run.id) > len(lost):
        return
    raise StoreError(
        f"{place_of(job.sink)}: somebody has removed all rows of run {run.name!r} ({len(lost):,} roots); {_redo(job)} "
        "has them done again, `penstock forget` begins anew"
    )


def _redo(job: Job) -> str:
    if not hasattr(job.sink, "path"):
        return f'penstock.durable.redo(sink, run={job.options.run!r}, which="missing rows")'
    return f"`penstock redo {quote(place_of(job.sink))} --run {quote(job.options.run)} --missing-rows`"
