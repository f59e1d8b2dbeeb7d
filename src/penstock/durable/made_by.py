"""Which code made which roots: the code of the opening that settled them.

A code is noted with the opening from which on it made roots, until the next code.
"""

from bisect import bisect_right
from collections.abc import Iterator
from operator import itemgetter

type MadeBy = tuple[tuple[int, bytes], ...]
"""From which opening on roots were made by which code, in order; the last is that of the last opening."""


def is_by_other_code(codes: MadeBy, times: int) -> bool:
    """Whether that opening had another code than the last one."""
    before = bisect_right(codes, times, key=itemgetter(0))
    return bool(codes) and codes[max(before - 1, 0)][1] != codes[-1][1]


def openings_by_others(codes: MadeBy, code: bytes) -> Iterator[tuple[int, int | None]]:
    """Give the openings that had another code than that one: from one on, up to one or to the end."""
    for (since, made_by), before in zip(codes, (*(opening for opening, _ in codes[1:]), None), strict=True):
        if made_by != code:
            yield since, before


def going_on(codes: MadeBy, times: int, code: bytes) -> MadeBy:
    """Add that roots are made by that code from that opening on."""
    return codes if codes and codes[-1][1] == code else (*codes, (times, code))
