"""The logger `penstock`: silent until the application configures logging."""

import logging

LOG = logging.getLogger("penstock")
LOG.addHandler(logging.NullHandler())
