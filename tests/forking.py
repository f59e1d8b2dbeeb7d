"""A process that has imported what programs need, and forks for each: a start costs milliseconds, not half a second.

What runs in the fork is `python -m MODULE ARGUMENTS`, in a process of its own that ends as any other. Programs whose
start is the point, or that need more than a directory and an environment, are started as ever.
"""

import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

LIMIT = 300.0
"""Seconds after which a program counts as hung."""


class Forking:
    """Runs `python *options -m module` again and again, one at a time.

    Args:
        first: arguments with which it does nothing but import what it needs in order to begin.
        imports: modules that it needs besides; `package.*` are all modules of a package.
    """

    def __init__(self, module, first, *, imports=(), options=(), env=None):
        self._options, self._arguments, self._env = options, (module, first, *imports), env or {}
        self._begin()

    def _begin(self):
        self._channel, theirs = socket.socketpair()
        self._channel.settimeout(LIMIT)
        with theirs:
            command = [sys.executable, *self._options, __file__, str(theirs.fileno()), *self._arguments]
            env = os.environ | self._env
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=env, process_group=0
            )

    def __call__(self, *arguments, cwd, env=None):
        """Run it to its end, with the environment that this process has now."""
        with TemporaryDirectory(prefix="penstock-forking-") as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            request = {
                "arguments": [os.fspath(each) for each in arguments],
                "cwd": os.fspath(cwd),
                "env": os.environ | (env or {}),
                "out": str(out),
                "err": str(err),
            }
            self._channel.sendall(json.dumps(request).encode() + b"\n")
            try:
                code = int(self._channel.recv(100))
            except TimeoutError as error:
                os.killpg(self._process.pid, signal.SIGKILL)
                error.add_note(f"{arguments}: {err.read_text('utf-8', 'replace')}")
                self.close()
                self._begin()  # for the programs that come after it
                raise
            told = (path.read_text("utf-8", "replace") for path in (out, err))
            return subprocess.CompletedProcess(arguments, code, *told)

    def close(self):
        self._channel.close()
        self._process.wait()


def next_request(channel):
    """Fork for each request: returns it in the fork."""
    for line in channel.makefile("rb"):
        pid = os.fork()
        if not pid:
            return json.loads(line)
        channel.sendall(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    sys.exit()


def become(module, request):
    """Be the program that is asked for, from here to the end of the process."""
    for stream, name in (1, "out"), (2, "err"):
        file = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, stream)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = [module, *request["arguments"]]
    sys.path[0] = ""
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main():
    number, module, first, *imports = sys.argv[1:]
    for name in imports:
        package = importlib.import_module(name.removesuffix(".*"))
        if name.endswith(".*"):
            for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                importlib.import_module(each.name)
    sys.argv = [module, *first.split()]
    with suppress(SystemExit), redirect_stdout(StringIO()):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    gc.freeze()
    with socket.socket(fileno=int(number)) as channel:
        request = next_request(channel)
    become(module, request)


if __name__ == "__main__":
    main()
