"""The logger `penstock`: silent until the application configures logging. Records are lines of bounded length."""

import logging

from penstock.core.text import one_line

TABLE = {"is_table": True}
"""The `extra` of a record that has lines of ours."""


class _OneLine(logging.Filter):
    """Escapes control characters and cuts what is long: records show keys, paths and errors of others.

    A record is text from here on: a handler that keeps it keeps no item.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "is_table"):
            record.msg, record.args = one_line(record.getMessage()), ()
        return True


LOG = logging.getLogger("penstock")
LOG.addHandler(logging.NullHandler())
LOG.addFilter(_OneLine())
