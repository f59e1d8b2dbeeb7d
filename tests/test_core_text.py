"""Text from outside: on one line, escaped and of bounded length, in errors and in the log."""

import logging

import pytest

import penstock
from penstock.core.errors import note, said
from penstock.core.log import LOG
from penstock.core.text import LINE, a, escaped, named, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ø 日本", "plain ø 日本"),
        ("a\nb\r\x1b[31m\x00\x7f\x9b", "a\\nb\\r\\x1b[31m\\x00\\x7f\\x9b"),
        ("\u202eevil\u2028\ud83d", "\\u202eevil\\u2028\\ud83d"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    assert escaped(text) == one_line(text) == shown


def test_what_is_long_is_cut_and_says_so():
    assert one_line("a" * 2_005) == "a" * 2_000 + "... (5 more)"
    assert one_line("abc\n", 3) == "abc... (1 more)"
    assert len(named("k" * 10**6)) < 250
    assert named(5) == "5"
    assert named("a\nb") == "'a\\nb'"


@pytest.mark.parametrize(
    ("noun", "with_article"),
    [("int", "an int"), ("EnvSecret", "an EnvSecret"), ("UUID", "a UUID"), ("Union", "a Union"), ("str", "a str")],
)
def test_the_article_goes_with_the_sound(noun, with_article):
    assert a(noun) == with_article


class Evil(Exception):
    def __repr__(self):
        return "\x1b[2J\n" + "x" * 10**6


def test_an_error_says_a_line():
    assert "\x1b" not in said(Evil())
    assert len(said(Evil())) < LINE + 100
    error = ValueError()
    note(error, str(Evil.__repr__(error)))
    assert len(error.__notes__[0]) < LINE + 100
    assert error.__notes__[0].isprintable()


def test_each_record_of_the_log_is_a_line(caplog):
    """Whatever is told of keys, paths and errors of others: no line is forged, none is endless."""
    caplog.set_level(logging.INFO)
    LOG.warning("skipped: %s, %r", "a\nERROR root: forged\x1b[0m", "b" * 10**6)
    (message,) = caplog.messages
    assert message.startswith("skipped: a\\nERROR root: forged\\x1b[0m, 'bbb")
    assert len(message) < LINE + 100


async def test_an_item_that_fails_is_told_on_one_line(caplog):
    def fail(_):
        raise Evil

    await penstock.stream([1]).map(fail, on_error="skip", name="st\nage").drain()
    for message in caplog.messages:
        assert message.isprintable()
        assert len(message) < LINE + 200


async def test_the_table_of_a_run_stays_a_table(caplog):
    caplog.set_level(logging.INFO)
    await penstock.stream([1]).map(str).drain()
    assert "\n" in next(message for message in caplog.messages if message.startswith("run over: "))
