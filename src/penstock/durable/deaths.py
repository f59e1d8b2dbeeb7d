"""Who may have killed a process: the roots that were under way at both of the last two deaths of a run.

An opening is noted before it begins its work, and is crossed out when it ends in order: those that remain have died.
Only after a death is it noted which roots are begun; of an opening before, it is known how far it read its sources.
"""

from collections.abc import Sequence

from penstock.durable.store import Deaths, Suspect


def suspects(deaths: Deaths, run: int) -> Sequence[Suspect]:
    """Return the roots that were under way at both of the last two deaths and are not settled.

    At a death before which nothing was noted, these are the roots up to which the source was read by then.
    """
    died = deaths.last(run)
    if len(died) < 2 or not died[0].noted:  # noqa: PLR2004 -- the last two
        return ()
    last, before = died
    begun = deaths.begun(run, last.opening)
    if before.noted:
        keys = {each.key for each in deaths.begun(run, before.opening)}
        return [each for each in begun if each.key in keys]
    reached = before.reached
    return [each for each in begun if not 0 <= each.source < len(reached) or each.position < reached[each.source]]
