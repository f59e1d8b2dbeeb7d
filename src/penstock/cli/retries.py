"""Tells of requests that are made again: without it, a server in trouble would look like a command that hangs."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic
from typing import Final, override

from penstock.cli.failing import complain
from penstock.core.log import LOG

_EVERY: Final = 1.0
"""Seconds between two lines, at least: several requests are under way at once."""

_ABOUT: Final = "stage 'request': ", "stage 'ask': "

_BREAKER: Final = "Breaker("
"""How messages of a breaker begin: that it is open, that it is closed."""


@contextmanager
def told() -> Generator[None]:
    """Print what the log says of requests that have failed and are made again."""
    handler, level = _Retries(), LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOG.setLevel(level)
        LOG.removeHandler(handler)


class _Retries(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._last = -_EVERY

    @override
    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        about = next((stage for stage in _ABOUT if message.startswith(stage)), None)
        if about is None and not message.startswith(_BREAKER):
            return
        if monotonic() - self._last >= _EVERY:
            self._last = monotonic()
            complain(message.removeprefix(about or ""))
