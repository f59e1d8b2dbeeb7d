"""The option `--engine` of commands that also run on clusters."""

from typing import Final

from penstock.cli.watching import Watched
from penstock.core import validate
from penstock.engines.engine import Engine

NAMES: Final = ("inline", "thread", "process", "ray", "dask")
"""The last two are those whose cluster the environment names, or one of this machine."""


def engine_named(name: str) -> str | Engine:
    """Return the engine of a name, as stages take it.

    Raises:
        OptionError: there is none of that name.
        ModuleNotFoundError: its library is not installed; the message says which extra brings it.
    """
    validate.one_of("engine", name, NAMES)
    if name not in {"ray", "dask"}:
        return name
    from penstock import engines  # noqa: PLC0415 -- its libraries are extras

    return engines.ray() if name == "ray" else engines.dask()


class OnEngine:
    """A job that enters its engine before it runs, if that is an object, and leaves it after."""

    def __init__(self, job: Watched, engine: object) -> None:
        self._job = job
        self._engine = engine

    async def run(self) -> object:
        """Do it."""
        if not isinstance(self._engine, Engine):
            return await self._job.run()
        async with self._engine:
            return await self._job.run()

    def stop(self) -> None:
        """Finish what is in flight and take nothing more."""
        self._job.stop()
