"""Work that kills its process, or takes until it is let; a module of its own, as workers import it, without pytest."""

import asyncio
import ctypes
import faulthandler
import os

from penstock.sources.keyed import keyed

from .dying import append, kill_this, lines, lives_until, until, wait_until


def crash():
    faulthandler.disable()
    ctypes.string_at(0)


def leave():
    os._exit(7)


def survive():
    """Do nothing."""


def as_row(item):
    return {"item": item}


def roots(items, version=""):
    return keyed(items, key=lambda item: item, version=lambda _: version)


class Deadly:
    """A row of an item, unless it is the one that kills; an object, so that its state is no part of the code."""

    def __init__(self, poison=3, how=kill_this):
        self.poison = poison
        self.how = how

    async def row(self, item):
        await asyncio.sleep(0)
        if item == self.poison:
            self.how()
        return {"item": item}

    def plain_row(self, item):
        if item == self.poison:
            self.how()
        return {"item": item}

    async def rows(self, items):
        return [await self.row(item) for item in items]

    async def row_or_none(self, item):
        yield await self.row(item)

    async def keep(self, item):
        await self.row(item)
        return True


class Slow:
    """Work on one item that takes until there is the file `go`; who works on it is written in `begun`."""

    def __init__(self, folder):
        self.folder = folder

    async def row(self, item):
        if item == 1:
            append(self.folder / "begun", os.getpid())
            await until((self.folder / "go").exists)
        return {"item": item}


BEGUN = set()
"""Which processes have begun which roots of four."""


class Four(Deadly):
    """Kills when all four are under way."""

    async def row(self, item):
        BEGUN.add((os.getpid(), item))
        if self.how is not survive:
            await until(lambda: sum(pid == os.getpid() for pid, _ in BEGUN) == 4)
            if item == self.poison:
                self.how()
            await asyncio.sleep(3600)
        return {"item": item}


class Together:
    """64 roots that are all under way before one kills; each call is written down, with its process."""

    def __init__(self, folder, killers=(37,), number=64):
        self.calls = folder / "calls"
        self.tried = folder / "tried"  # from now on, the suspects are tried
        self.killers = set(killers)
        self.number = number
        self.stream = roots(range(number)).map(self.row, concurrency=number, ordered=False)

    async def row(self, item):
        append(self.calls, f"{os.getpid()} {item}")
        if not self.tried.exists():  # all are under way at the first deaths
            if item in self.killers:
                await until(lambda: sum(pid == os.getpid() for pid, _ in self.begun()) == self.number)
                kill_this()
            await asyncio.sleep(3600)
        for _ in range(50):
            await asyncio.sleep(0)
        if item in self.killers:
            kill_this()
        if self.killers & {item for pid, item in self.begun() if pid == os.getpid()}:
            await asyncio.sleep(3600)  # nothing ends before it kills
        return {"item": item}

    def begun(self, since=0):
        """Which process has begun which root."""
        return [tuple(map(int, line.split())) for line in lines(self.calls)[since:]]

    def called(self, since=0):
        """How often each root was called, and by how many processes."""
        begun = self.begun(since)
        return [item for _, item in begun], {pid for pid, _ in begun}


class Pace:
    """Roots that wait until they are let."""

    def __init__(self, folder):
        self.folder = folder
        self.calls = folder / "paced"

    async def row(self, item):
        append(self.calls, f"{os.getpid()} {item}")
        await until((self.folder / f"let {item}").exists)
        return {"item": item}

    def let(self, items):
        for item in items:
            (self.folder / f"let {item}").touch()

    def under_way(self, since):
        return {int(line.split()[1]) for line in lines(self.calls)[since:]}

    def die_in(self, main, items, after=lambda: True):
        """A life that is killed while these are under way, after something else: what is done may be noted later."""
        since = len(lines(self.calls))
        lives_until(main, lambda: self.under_way(since) >= items and after())


class Waiting:
    """A plain function on one item that takes until there is the file `go`."""

    def __init__(self, folder):
        self.calls = folder / "calls"
        self.go = folder / "go"

    def row(self, item):
        append(self.calls, item)
        wait_until(self.go.exists)
        return {"item": item}
