"""What a power failure leaves: all that was synced and any part of the rest, in any order."""

import pytest

from .looking import look
from .recording import after_a_power_failure, applied, recorded, written
from .scenes import LIVES, Scene, acknowledged, expected

pytestmark = pytest.mark.slow

FAILURES = 100


def missing(found, beginning):
    """The roots that were acknowledged and are not there, in that version or a later one."""
    return {key for key, version in acknowledged(beginning).items() if found.settled.get(key, ("", 0))[0] < version}


def failures(folder, durability, sink="table"):
    """Files that a power failure may leave at some instant of three lives, with what was acknowledged by then."""
    scene = Scene(folder / "run.db", durability, sink)
    with recorded(scene.tape):
        for items in LIVES:
            assert scene.live(items).complete
    for seed in range(FAILURES):
        beginning = scene.tape[: 1 + seed * len(scene.tape) // FAILURES]
        yield seed, beginning, after_a_power_failure({}, beginning, seed)


@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("sink", ["table", "index"])
def test_after_a_power_failure_roots_are_whole_and_the_run_goes_on(memory, durability, sink):
    """P11: committed roots may be gone with "process", half a root never; with "power" nothing acknowledged is gone."""
    (folder := memory / "life").mkdir()
    (cut := memory / "cut").mkdir()
    gone = 0
    for seed, beginning, files in failures(folder, durability, sink):
        database = written(files, cut, folder)
        found = look(database, expected)
        assert found.is_whole, (seed, found)
        gone += len(missing(found, beginning))
        assert Scene(written(files, cut, folder), durability, sink).live(LIVES[-1]).complete
        assert look(database, expected).is_whole, seed
    assert bool(gone) == (durability == "process")


def test_nothing_is_gone_without_a_power_failure(memory):
    """The model is not too hard: with all that was written, everything acknowledged is there."""
    (folder := memory / "life").mkdir()
    (cut := memory / "cut").mkdir()
    for _, beginning, _ in failures(folder, "process"):
        assert not missing(look(written(applied({}, beginning), cut, folder), expected), beginning)
