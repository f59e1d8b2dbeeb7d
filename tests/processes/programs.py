"""Programs that run worker processes, as users write them: a test runs each as a file of its own."""

GUARDED = """
import asyncio
import penstock

class Point:
    def __init__(self, x):
        self.x = x

def move(point):
    assert type(point) is Point
    return Point(point.x + 1)

def is_ours(point):
    return type(point) is Point

async def main():
    points = penstock.stream(Point(n) for n in range(5)).map(move, engine="process")
    print([(type(point) is Point, point.x) async for point in points])
    by_lambda = penstock.stream([Point(7)]).map(lambda point: (isinstance(point, Point), move(point)), engine="process")
    ((there, point),) = await by_lambda.to_list()
    print(there, type(point) is Point, point.x)

print(f"imported as {__name__}" + chr(10), end="")
if __name__ == "__main__":
    asyncio.run(main())
"""

UNGUARDED = """
import asyncio, sys
import penstock

def double(number):
    return 2 * number

print("running", flush=True)
print(asyncio.run(penstock.stream(range(5)).map(double, engine="process", on_error="skip").to_list()))
"""

INTERACTIVE = """
import asyncio
import penstock

class Point:
    def __init__(self, x):
        self.x = x

STEP = 2

def move(point):
    return Point(point.x + STEP)

points = asyncio.run(penstock.stream([Point(1)]).map(move, engine="process").to_list())
print([(type(point) is Point, point.x) for point in points])
"""

DEFINED_UNDER_THE_GUARD = """
import asyncio
import penstock

if __name__ == "__main__":
    def double(number):
        return 2 * number

    print(asyncio.run(penstock.stream(range(5)).map(double, engine="process").to_list()))
"""

WITH_SYNC = """
import penstock

def double(number):
    return 2 * number

if __name__ == "__main__":
    with penstock.stream(range(5)).map(double, engine="process").sync() as items:
        print(list(items))
"""

NESTED = """
import asyncio
import penstock

def double(number):
    return 2 * number

def double_all(numbers):
    return asyncio.run(penstock.stream(numbers).map(double, engine="process").to_list())

if __name__ == "__main__":
    print(asyncio.run(penstock.stream([[1, 2], [3]]).map(double_all, engine="process").to_list()))
"""

BUSY = """
import asyncio, ctypes, os, subprocess, sys
import penstock
from penstock.engines import Call, processes

def busy(_):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    print(os.getpid(), child.pid, flush=True)
    ctypes.PyDLL(None).sleep(3600)  # in C code, with the lock of the interpreter

async def main():
    async with processes(2) as engine:
        busy_ = engine.prepare(busy)
        await asyncio.gather(*(engine.submit([Call(busy_, (n,))]) for n in range(2)))

if __name__ == "__main__":
    asyncio.run(main())
"""

INTERRUPTED = """
import asyncio, os, signal, time
import penstock

def slow(number):
    print("begun", os.getpid(), flush=True)
    time.sleep(3600)

async def main():
    await penstock.stream(range(5)).map(slow, engine="process", concurrency=1).drain()

if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""

NO_CHILD_SIGNALS = """
import asyncio, os, signal
from pathlib import Path
import penstock

signal.signal(signal.SIGCHLD, signal.SIG_IGN)

def exit_at_three(number):
    if number == 3:
        os._exit(1)
    return number

async def main():
    numbers = penstock.stream(range(6)).map(exit_at_three, engine="process", on_error="skip")
    print(await numbers.to_list())

if __name__ == "__main__":
    asyncio.run(main())
    print(Path("/proc/self/task", str(os.getpid()), "children").read_text().split())
"""

LEFT_OPEN = """
import asyncio
from penstock.engines import Call, processes

def double(number):
    return 2 * number

engine = processes(1)

async def main():
    (answer,) = await engine.submit([Call(engine.prepare(double), (4,))])
    print(answer.value)

if __name__ == "__main__":
    asyncio.run(main())
"""

CELLS = (
    """
import penstock

class Point:
    def __init__(self, x):
        self.x = x

STEP = 2

def move(point):
    return Point(point.x + STEP)
""",
    """
points = await penstock.stream([Point(1)]).map(move, engine="process").to_list()
print(type(points[0]) is Point, points[0].x)
""",
    """
with penstock.stream([Point(1)]).map(lambda point: move(point).x, engine="process").sync() as items:
    print(list(items))
""",
)

NOTEBOOK = """
import sys, nbclient, nbformat
cells = [nbformat.v4.new_code_cell(cell) for cell in sys.argv[1:]]
notebook = nbclient.NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=60).execute()
print("".join(output["text"] for cell in notebook.cells for output in cell.outputs), end="")
"""

FORKED = """
import asyncio, os, warnings
import penstock
from penstock.engines import processes

def double(number):
    return 2 * number

async def doubled(engine, number):
    return await penstock.stream([number]).map(double, engine=engine).to_list()

async def main():
    async with processes(1) as engine:
        print(await doubled(engine, 1), flush=True)
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
        if not child:
            try:
                asyncio.set_event_loop(None)
                asyncio._set_running_loop(None)
                print(asyncio.run(doubled(engine, 2)), flush=True)
                os._exit(0)
            finally:
                os._exit(9)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), await doubled(engine, 3))

if __name__ == "__main__":
    asyncio.run(main())
"""
