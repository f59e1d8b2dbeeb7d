"""P10, P11: a run that is cut off after any write, or in the middle of one, is whole and goes on (a model check)."""

import pytest

from .looking import look
from .recording import applied, recorded, written
from .scenes import LIVES, Scene, acknowledged, expected

pytestmark = pytest.mark.slow


def lives(folder, sink):
    """The files before each of three lives, and what it writes."""
    scene = Scene(folder / "run.db", sink=sink)
    for items in LIVES:
        before = {str(path): path.read_bytes() for path in folder.iterdir() if path.suffix == ".db"}
        scene.tape.clear()
        with recorded(scene.tape):
            report = scene.live(items)
        assert report.complete
        assert report.commits >= 2
        yield items, before, list(scene.tape)


def prefixes(tape):
    """Every beginning of the tape that ends with a write, whole or cut in half; and what it is called."""
    for n, (operation, path, offset, data) in enumerate(tape, 1):
        if operation == "write":
            yield f"{n}, cut", [*tape[: n - 1], (operation, path, offset, data[: len(data) // 2])]
        if operation in {"create", "write", "truncate", "delete"}:
            yield str(n), tape[:n]


@pytest.mark.parametrize("life", range(len(LIVES)), ids=["new", "changed and dead", "big"])
@pytest.mark.parametrize("sink", ["table", "index"])
def test_every_beginning_of_what_is_written_is_whole_and_goes_on(memory, sink, life):
    """The rows of a root are there if and only if it is settled; the next run comes to the end."""
    (folder := memory / "life").mkdir()
    (cut := memory / "cut").mkdir()
    items, before, tape = list(lives(folder, sink))[life]
    seen = set()
    for name, beginning in prefixes(tape):
        database = written(applied(before, beginning), cut, folder)
        found = look(database, expected)
        assert found.is_whole, (name, found)
        known = {key: version for key, (version, _) in found.settled.items()}
        assert known.items() >= acknowledged(beginning).items(), name
        seen.add(tuple(sorted(known.items())))
        assert Scene(written(applied(before, beginning), cut, folder), sink=sink).live(items).complete
        after = look(database, expected)
        assert after.is_whole, (name, after)
        assert {key: version for key, (version, _) in after.settled.items()} == {
            item.key: str(item.version) for item in items
        }
    assert len(seen) >= 3, "the roots came in at least two transactions"
