"""Runs that die: each in a forked child."""

import asyncio
import os
import signal
import sys
import time
import traceback
from contextlib import suppress

import apsw


def life(main):
    """Run the coroutine `main()` in a child; 0 or how it ended, as `os.waitstatus_to_exitcode` has it."""
    child = os.fork()
    if not child:
        try:
            asyncio.run(main())
        except BaseException:  # noqa: BLE001 -- said, and told by the status
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(70)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_this():
    os.kill(os.getpid(), signal.SIGKILL)


def ask(path, question):
    """What a database answers, asked by a connection that only reads."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return list(connection.execute(question))
    finally:
        connection.close()


def wait_until(holds):
    """Wait for what another thread or process does."""
    for _ in range(10_000):
        if holds():
            return
        time.sleep(0.001)
    raise AssertionError("it did not come")


async def until(holds):
    """Wait for it as a coroutine."""
    for _ in range(1_000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


def append(path, line):
    """Add a line at one stroke, so that it is there whatever happens next."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def lives_until(main, holds):
    """Run it in a child, and kill that when it holds; its process id."""
    child = os.fork()
    if not child:
        with suppress(BaseException):
            asyncio.run(main())
        os._exit(0)
    try:
        wait_until(holds)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return child
