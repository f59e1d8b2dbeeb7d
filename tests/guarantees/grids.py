"""Grids of cases, each on a loop of its own, and what their tests have in common."""

import inspect
import itertools
from contextlib import contextmanager

from penstock import testing

ORDERS = (True, False)

AS_GIVEN = (*ORDERS, None)
"""With the default: what is read is in order, what is only counted or drained is not."""

SIZES = tuple({"concurrency": calls, "buffer": room} for calls, room in ((1, 0), (1, 2), (2, 2), (5, 0), (5, 5)))
"""What a window has room for."""

OUTCOMES = ("delivered", "dropped", "failed", "cancelled", "discarded", "in_flight")


def asynchronous(source):
    return source


def plain(source):
    return source.sync()


SOURCES = (asynchronous, plain)


@contextmanager
def named(**case):
    """Say in an error for which case it came."""
    try:
        yield
    except BaseException as error:
        error.add_note(", ".join(f"{name}={getattr(value, '__name__', value)}" for name, value in case.items()))
        raise


async def read_all(built):
    """Read a run to its end: the run, what it gave, and the error that ended it or None."""
    given = []
    try:
        async with built.open() as results:
            async for result in results:
                given.append(result)  # noqa: PERF401 -- what was given before an error counts
    except Exception as error:  # noqa: BLE001 -- it is for the test to judge
        return results, given, error
    return results, given, None


def grid(**axes):
    """Run a coroutine test for every combination of the axes, each on a loop and a clock of its own.

    One test of pytest's for all of them, at each of its places: a combination costs a tenth of a test.
    """

    def expand(test):
        parameters = inspect.signature(test).parameters
        fixtures = [name for name in parameters if name not in axes and name != "clock"]

        def whole(run, **given):
            for values in itertools.product(*axes.values()):
                case = dict(zip(axes, values, strict=True))
                clock = testing.Clock()
                arguments = {**given, **case, "clock": clock}
                with named(**case):
                    run(test(**{name: arguments[name] for name in parameters}), clock=clock)

        whole.__name__, whole.__qualname__, whole.__doc__ = test.__name__, test.__qualname__, test.__doc__
        whole.__module__ = test.__module__
        keyword = inspect.Parameter.KEYWORD_ONLY
        whole.__signature__ = inspect.Signature([inspect.Parameter(name, keyword) for name in ("run", *fixtures)])
        return whole

    return expand


def assert_balanced(stats):
    """Every count is one, and they add up."""
    for stage in stats:
        counts = [getattr(stage, name) for name in OUTCOMES]
        assert min(counts) >= 0, stage
        assert sum(counts) == stage.taken, stage


def totals(stage):
    return {name: count for name in ("taken", *OUTCOMES) if (count := getattr(stage, name))}
