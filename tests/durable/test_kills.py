"""P10, P11: runs that are killed again and again lose nothing, deliver nothing twice and redo nothing that is done."""

import json
import sys
from pathlib import Path

import pytest

from ..forking import Forking  # noqa: TID252 -- tests are no package to name
from .killing import TIME, TORN, WRITE
from .programs import PROGRAMS

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="adopting orphans is Linux's"),
    pytest.mark.slow,
]

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def campaign():
    """A function that runs a campaign in a process of its own: what it found, and what it said."""
    forking = Forking("tests.durable.killing", f"{next(iter(PROGRAMS))} 0 0", env={"PYTHONPATH": str(ROOT)})

    def run(program, seed, kills, twin=""):
        done = forking(program, str(seed), str(kills), twin, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    yield run
    forking.close()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_run_that_is_killed_again_and_again_comes_to_the_rows_of_plain_list_code(campaign, program):
    """P10, P11: at named points, at writes, in the middle of writes and at random times; see `killing`."""
    found, errors = campaign(program, 1, 6)
    assert found["problems"] == [], errors
    assert sum(tally["kills"] for tally in found["tallies"].values()) == 6


POINTS = {
    "before the migration",
    "after the migration",
    "before the dispatch of a root",
    "after the dispatch of a root",
    "before the taking of a row",
    "after the taking of a row",
    "inside a transaction",
    "before a commit",
    "after a commit",
    "before the acknowledgement",
    "after the acknowledgement",
    "before the removal of a missing root",
    "after the close of the run",
    WRITE,
    TORN,
    TIME,
}
"""Some of those at which a campaign kills."""

SEEDS = range(1, 8)
"""A life may end before it comes to its point, by chance: as many campaigns as it takes, up to so many."""


def test_kills_come_at_every_point(campaign):
    """The matrix reaches each point of the protocol, before it and after it."""
    missing = set(POINTS)
    for seed in SEEDS:
        found, errors = campaign("vanishing, deleted", seed, 40)
        assert found["problems"] == [], errors
        missing -= found["tallies"].keys()
        if not missing:
            break
    assert missing == set()


@pytest.mark.parametrize(
    ("twin", "program", "found"),
    [
        ("done before rows", "fan-out", "rows lost"),
        ("done before rows", "plain rows", "rows lost"),
        ("rows before done", "fan-out", "lost, "),
        ("lock is inherited", "grandchild", "ended with 1"),
        ("rows are added", "changing", "duplicated"),
        ("commits come at the end", "unordered", "acknowledged and not there"),
    ],
)
def test_the_kills_find_what_is_wrong(campaign, twin, program, found):
    """Each wrong way to do it is found: the oracle can fail (traps 43, 48)."""
    assert any(found in str(campaign(program, seed, 30, twin)[0]["problems"]) for seed in SEEDS)
