"""A PostgreSQL server of our own, in a directory of its own, on a socket there and a port of loopback."""

import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from time import sleep

import pytest

PLACES = ("/usr/lib/postgresql", "/usr/local/pgsql", "/opt/homebrew/opt/postgresql")

FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=32MB", "max_connections=50")


@cache
def programs():
    """The directory of the server's programs; None if there is none."""
    found = [found for place in PLACES for found in sorted(Path(place).glob("**/bin/initdb"))]
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else found[-1].parent if found else None


def why_not():
    """Why no server can be started here; None if one can."""
    try:
        import psycopg  # noqa: F401, PLC0415
    except ImportError:
        return "psycopg is not installed"
    if programs() is None:
        return "no PostgreSQL server is installed"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "PostgreSQL refuses root, and there is no user postgres"
    return None


class Server:
    """A server that can be killed and started again.

    Attributes:
        folder: where its data and its socket are.
        port: where it listens on loopback.
    """

    def __init__(self, folder, options=FAST):
        self.folder = Path(folder)
        self.port = free_port()
        self._options = options
        self._names = count(1)
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self.folder, "postgres")
        self._run("initdb", "-D", self.data, "-U", "penstock", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        self.start()

    @property
    def data(self):
        return self.folder / "data"

    def _run(self, program, *arguments):
        subprocess.run(
            [programs() / program, *arguments],
            cwd=self.folder,
            user=self._user,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )

    def start(self):
        """Start it, and wait until it answers. It is a daemon, no child of ours."""
        settings = ("-k", self.folder, "-h", "127.0.0.1", "-p", self.port)
        options = " ".join(map(str, (*settings, *(part for option in self._options for part in ("-c", option)))))
        self._run("pg_ctl", "-D", self.data, "-l", self.folder / "log", "-o", options, "-w", "-t", "60", "start")
        self.pid = int((self.data / "postmaster.pid").read_text().split()[0])

    def dsn(self, name):
        return f"postgresql://penstock@127.0.0.1:{self.port}/{name}"

    def new(self):
        """Make an empty database; its connection string."""
        name = f"test{next(self._names)}"
        self.ask("postgres", f"CREATE DATABASE {name}")
        return self.dsn(name)

    def ask(self, name, statement, *values):
        """Run a statement in a database; its rows, if it has any."""
        import psycopg  # noqa: PLC0415

        dsn = name if "://" in name else self.dsn(name)
        with psycopg.connect(dsn, autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def kill(self):
        """Kill it as a crash of the machine would: no process of it has time for anything."""
        listings = [listing.read_text() for listing in Path(f"/proc/{self.pid}/task").glob("*/children")]
        processes = [self.pid, *(int(pid) for listing in listings for pid in listing.split())]
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while any(Path(f"/proc/{pid}").exists() for pid in processes):
            sleep(0.005)

    def stop(self):
        """Stop it in order, with the connections of its clients."""
        if Path(f"/proc/{self.pid}").exists():
            self._run("pg_ctl", "-D", self.data, "-m", "fast", "-w", "stop")


class Cutting:
    """A proxy to a server that cuts the connection at a COMMIT: before the server has it, or before its reply is there.

    Attributes:
        dsn: the database, through the proxy.
        cuts: what becomes of the next COMMITs, one after another: "before", "after", or "" for none.
        seen: how many there were.
    """

    def __init__(self, dsn):
        self._target = int(dsn.rpartition(":")[2].partition("/")[0])
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.dsn = dsn.replace(f":{self._target}/", f":{self._listening.getsockname()[1]}/")
        self.cuts = []
        self.seen = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client):
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            while True:
                ready, _, _ = select.select([client, server], [], [])
                for each, other in ((client, server), (server, client)):
                    if each not in ready:
                        continue
                    try:
                        data = each.recv(1 << 16)
                        if not data:
                            return
                        if each is client and b"COMMIT\0" in data:  # not BEGIN, which says READ COMMITTED
                            self.seen += 1
                            cut = self.cuts.pop(0) if self.cuts else ""
                            if cut == "before":
                                return
                            if cut == "after":
                                server.sendall(data)
                                server.recv(1 << 16)
                                return
                        other.sendall(data)
                    except OSError:
                        return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def server(options=FAST):
    """A server of one's own, in a directory of its own."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    made = None
    try:
        made = Server(folder, options)
        yield made
    finally:
        if made is not None:
            made.stop()
        shutil.rmtree(folder, ignore_errors=True)


needs_postgres = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
