"""Describes, in one line, something that waits for ever or was left behind."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from types import FrameType
from typing import Any


def describe_task(task: asyncio.Task[Any]) -> str:
    """Return the name of `task` and the line where it waits."""
    frames = list(_frames(task.get_coro()))
    own = [frame for frame in frames if not frame.f_globals.get("__name__", "").startswith("asyncio.")]
    return f"task {task.get_name()!r}{_place((own or frames)[-1]) if frames else ''}"


def describe_generator(generator: AsyncGenerator[Any, Any]) -> str:
    """Return the name of `generator` and the line where it is suspended."""
    frame = getattr(generator, "ag_frame", None)
    return f"async generator{_place(frame) if frame else ''}"


def _frames(coroutine: Any) -> Iterator[FrameType]:
    """Return the frames of a suspended coroutine, the innermost last; of a running one only the first.

    Python 3.12.1 crashes when a running coroutine is asked for its `cr_await`.
    """
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        yield frame
        coroutine = None if coroutine.cr_running else coroutine.cr_await


def _place(frame: FrameType) -> str:
    code = frame.f_code
    return f" in {code.co_qualname} ({code.co_filename}:{frame.f_lineno})"
