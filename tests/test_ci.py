"""What CI and make run, as far as their texts can say."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXTS = (ROOT / ".ci" / "run").read_text() + (ROOT / "Makefile").read_text()


def test_options_of_our_own_are_one_word():
    """The command line is read before tests/conftest.py names our options: a value apart would be a path."""
    own = re.findall(r"--(?:failed-to|places)(.)", TEXTS)
    assert own
    assert set(own) == {"="}
