"""Ends processes that were forked inside of work and return instead of exiting.

Such a child is a copy of this process in the middle of a run: it would go on with the loop, the items and the results
of its parent, but without its threads. It may do what it likes until the function that forked returns into one of our
frames; then it exits, as a child of `multiprocessing` does. This costs a run nothing: only the child watches its frames
(`sys.monitoring`), and runs that the child begins itself are not affected.
"""

import inspect
import os
import sys
import traceback
from contextlib import suppress
from types import CodeType, FrameType
from typing import NoReturn

_above: set[FrameType] = set()
"""Our frames on the stack when this process was forked."""


def _watch() -> None:
    _above.clear()
    for frame, _ in traceback.walk_stack(inspect.currentframe()):
        name = frame.f_globals.get("__name__", "")
        if name.startswith("penstock.") and name != __name__ and not name.startswith("penstock.testing"):
            _above.add(frame)
    if not _above:
        return
    monitoring, events = sys.monitoring, sys.monitoring.events
    for tool in (4, 3):
        with suppress(ValueError):  # somebody has it
            monitoring.use_tool_id(tool, "penstock")
            break
    else:
        return
    for event in (events.LINE, events.PY_RETURN, events.PY_YIELD):
        monitoring.register_callback(tool, event, _end_if_above)
    for code in {frame.f_code for frame in _above}:
        monitoring.set_local_events(tool, code, events.LINE | events.PY_RETURN | events.PY_YIELD)


def _end_if_above(_code: CodeType, _where: int, _value: object = None) -> None:
    """End the process when one of our frames goes on."""
    ours = inspect.currentframe()
    if ours is not None and ours.f_back in _above:
        _end(sys.exception())


def _end(error: BaseException | None) -> NoReturn:
    """Exit as Python does, but without the exit functions that others have registered: they belong to the parent."""
    status = 0
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        status = 1
        with suppress(Exception):
            os.write(2, "".join(traceback.format_exception(error)).encode(errors="backslashreplace"))
    os._exit(status)


def watch() -> None:
    """Watch all children that are forked from now on."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_watch)
