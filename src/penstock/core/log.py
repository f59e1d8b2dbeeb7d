"""The logger `penstock`: silent until the application configures logging. Records are lines of bounded length."""

import logging

from penstock.core.text import one_line

TABLE = {"is_table": True}
"""The `extra` of a record with several lines, all written by penstock."""


class _OneLine(logging.Filter):
    """Escapes control characters and cuts long records: they show keys, paths and errors of others.

    It turns the record into text, so that a handler that keeps records keeps no items.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "is_table"):
            record.msg, record.args = one_line(record.getMessage()), ()
        return True


LOG = logging.getLogger("penstock")
LOG.addHandler(logging.NullHandler())
LOG.addFilter(_OneLine())
