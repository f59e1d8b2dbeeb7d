"""`penstock thumbnails`."""

import signal

import pytest
from PIL import Image

from .conftest import BOUND, make_room

pytestmark = pytest.mark.slow

MANY = 800
"""So many pictures that no machine is through before a signal comes."""


@pytest.fixture
def photos(tmp_path):
    """A function that makes so many pictures."""

    def make(count):
        (tmp_path / "photos").mkdir()
        for number in range(count):
            colour = number % 256, number // 256, 0
            Image.new("RGB", (60, 40), colour).save(tmp_path / "photos" / f"{number:04}.jpg", quality=95)
        return tmp_path / "photos"

    return make


def there(tmp_path):
    root = tmp_path / "thumbs"
    found = [path for path in root.rglob("*") if path.is_file() and ".penstock" not in path.parts]
    assert not list(root.rglob("*.part"))
    return {str(path.relative_to(root)) for path in found}


COMMAND = ("thumbnails", "photos", "--to", "thumbs", "--size", "32", "--size", "8")


def names(count):
    return {f"{size}/{number:04}.jpg" for size in (32, 8) for number in range(count)}


def test_the_summary_the_report_and_the_codes(photos, penstock, tmp_path):
    photos(3)
    (tmp_path / "photos" / "bad\x1b.png").write_bytes(b"no picture")
    done = penstock(*COMMAND)
    assert done.code == 1
    assert done.out.splitlines()[0].startswith("thumbs: 6 thumbnails of 3 pictures in ")
    assert done.out.splitlines()[1:] == [
        "  1 picture failed:",
        "    photos/bad\\x1b.png: no picture that can be read: its format is not known",
    ]
    assert there(tmp_path) == names(3)
    dead = penstock("dead", "thumbs")
    assert "PictureError: no picture that can be read" in dead.out
    (tmp_path / "photos" / "bad\x1b.png").unlink()
    (tmp_path / "photos" / "0002.jpg").unlink()
    done = penstock(*COMMAND, "--json", "--prune")
    assert (done.code, done.json["pictures"], done.json["unchanged"], done.json["removed"]) == (0, 0, 2, 2)
    assert there(tmp_path) == names(2)
    assert "complete" in penstock("runs", "thumbs").out


def test_default_sizes(photos, penstock, tmp_path):
    photos(1)
    assert penstock("thumbnails", "photos", "--to", "thumbs").code == 0
    assert there(tmp_path) == {f"{size}/0000.jpg" for size in (64, 256, 1024)}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("none", "--to", "thumbs"), 2, "none: no such directory"),
        (("photos", "--to", "photos"), 2, "--to must be a directory of its own, got 'photos': the pictures are there"),
        (("photos", "--to", "file"), 2, "file: not a directory"),
        (("photos", "--to", "a/b/c"), 2, "a/b/c: its directory does not exist"),
        (("photos", "--to", "thumbs", "--size", "0"), 2, "--size must be an int >= 1, got 0"),
        (("photos", "--to", "thumbs", "--engine", "gpu"), 2, "--engine must be one of 'inline', 'thread', 'process'"),
        (("photos", "--to", "thumbs", "--max-pixels", "999999999"), 2, "--max-pixels must be at most 178,956,970"),
        (("photos", "--to", "thumbs", "--timeout", "-1"), 2, "--timeout must be"),
        (("photos", "--to", "thumbs", "--glob", "*.xyz"), 1, "there are no pictures below photos"),
    ],
)
def test_bad_usage_is_one_line(photos, penstock, arguments, code, message):
    (photos(1).parent / "file").touch()
    done = penstock("thumbnails", *arguments)
    assert done.code == code
    (line,) = done.err.splitlines()
    assert message in line


def test_a_journal_of_another_kind_is_refused(photos, penstock, tmp_path):
    photos(1)
    (tmp_path / "thumbs" / ".penstock").mkdir(parents=True)
    (tmp_path / "thumbs" / ".penstock" / "journal.db").write_text("no database" * 100)
    assert penstock(*COMMAND).code == 2


def test_a_signal_finishes_what_is_in_flight_and_the_command_goes_on(photos, penstock, started_penstock, tmp_path):
    photos(MANY)
    running = started_penstock(*COMMAND)
    running.wait_for("first picture stored")
    running.process.send_signal(signal.SIGINT)
    done = running.finish()
    assert done.code == 130
    assert "ended early; what was stored is in thumbs, and the same command goes on from there" in done.err
    some = len(there(tmp_path)) // 2
    assert 0 < some < MANY
    again = penstock(*COMMAND, "--json")
    assert (again.code, again.json["unchanged"], again.json["pictures"]) == (0, some, MANY - some)
    assert there(tmp_path) == names(MANY)


def test_killed_twice_each_thumbnail_is_there_once(photos, penstock, started_penstock, tmp_path):
    photos(MANY)
    for _ in range(2):
        running = started_penstock(*COMMAND)
        running.wait_for("first picture stored")
        running.process.kill()
        running.process.wait()
        for path in (tmp_path / "thumbs" / "32").iterdir():
            Image.open(path).close()
    done = penstock(*COMMAND, "--json")
    assert done.code == 0
    assert done.json["pictures"] + done.json["unchanged"] == MANY
    assert there(tmp_path) == names(MANY)


def test_a_second_signal_aborts_and_loses_nothing(photos, penstock, started_penstock, tmp_path):
    photos(MANY)
    running = started_penstock(*COMMAND)
    running.wait_for("first picture stored")
    running.process.send_signal(signal.SIGINT)
    running.process.send_signal(signal.SIGTERM)
    assert running.finish().code in {130, 143}
    assert penstock(*COMMAND).code == 0
    assert there(tmp_path) == names(MANY)


def test_a_full_disk_is_said_and_the_command_goes_on_when_there_is_room(photos, penstock, small_disk):
    photos(400)
    command = ("thumbnails", "photos", "--to", "disk/thumbs")
    done = penstock(*command)
    assert done.code == 3
    assert "the disk is full" in done.err
    make_room(small_disk)
    assert penstock(*command).code == 0
    assert len(list((small_disk / "thumbs" / "64").iterdir())) == 400


@pytest.mark.skipif(not BOUND, reason="for root, who is let in everywhere")
def test_places_without_permission_are_named(photos, penstock, tmp_path):
    photos(2)
    (tmp_path / "photos" / "0001.jpg").chmod(0)
    (tmp_path / "photos" / "closed").mkdir(0)
    done = penstock(*COMMAND, prefix=BOUND)
    assert done.code == 1
    assert "photos/0001.jpg: permission denied" in done.out
    assert "1 place that could not be looked at" in done.out
    (tmp_path / "thumbs" / "32").chmod(0o500)
    Image.new("RGB", (9, 9)).save(tmp_path / "photos" / "new.jpg")
    done = penstock(*COMMAND, prefix=BOUND)
    assert (done.code, "thumbs/32/new.jpg: permission denied" in done.err) == (3, True)


def test_one_run_at_a_time(photos, penstock, started_penstock):
    photos(MANY)
    running = started_penstock(*COMMAND)
    running.wait_for("first picture stored")
    done = penstock(*COMMAND)
    assert (done.code, "is writing to it" in done.err) == (3, True), done.err
    running.process.kill()
    running.process.wait()
