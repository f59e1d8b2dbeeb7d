"""By which code roots were made: by that of the opening that settled them.

A code is noted with the opening from which on it made roots; it did so up to the next one.
"""

from bisect import bisect_right
from collections.abc import Iterator
from operator import itemgetter

type MadeBy = tuple[tuple[int, bytes], ...]
"""From which opening on roots were made by which code, in order; the last is that of the last opening."""


def is_by_other_code(codes: MadeBy, times: int) -> bool:
    """Whether the code of that opening was another one than the last."""
    before = bisect_right(codes, times, key=itemgetter(0))
    return bool(codes) and codes[max(before - 1, 0)][1] != codes[-1][1]


def openings_by_others(codes: MadeBy, code: bytes) -> Iterator[tuple[int, int | None]]:
    """The openings that had another code: from which one on, and before which one, if there is one."""
    for (since, made_by), before in zip(codes, (*(opening for opening, _ in codes[1:]), None), strict=True):
        if made_by != code:
            yield since, before


def going_on(codes: MadeBy, times: int, code: bytes) -> MadeBy:
    """What is known once that opening makes roots by that code."""
    return codes if codes and codes[-1][1] == code else (*codes, (times, code))
