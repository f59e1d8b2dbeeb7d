"""Secrets, as names: their values are read where they are used, and are stored nowhere."""

import os
from typing import Final, override

from penstock.core.errors import FatalError, OptionError
from penstock.flow.added import CannotBegin
from penstock.flow.steps import refuses_unknown

_SHOWN: Final = 100


class NoSecret(CannotBegin, FatalError):
    """A secret is not there, or can be none."""


class EnvSecret:
    """An environment variable that holds a secret. It knows the name; the value is read at each use.

    It is equal to another of its name, and no codec stores it: an output that has one is refused.

    Raises:
        OptionError: the name cannot be that of an environment variable.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        if not _can_be_a_name(name):
            raise OptionError(
                f"the name of a secret must be that of an environment variable, a str without '=', got {_shown(name)}"
            )
        self._name = name

    @property
    def name(self) -> str:
        """The name of the environment variable."""
        return self._name

    def reveal(self) -> str:
        """Return the value, as it is now: not to be kept.

        Raises:
            NoSecret: there is no such environment variable.
        """
        try:
            return os.environ[self._name]
        except KeyError:
            pass
        raise NoSecret(f"there is no secret {self._name!r}: set the environment variable of that name")

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, EnvSecret) and other._name == self._name

    @override
    def __hash__(self) -> int:
        return hash((EnvSecret, self._name))

    @override
    def __repr__(self) -> str:
        return f"secret({self._name!r})"


def _can_be_a_name(name: object) -> bool:
    return isinstance(name, str) and name != "" and "=" not in name and name.isprintable()


def _shown(name: object) -> str:
    """Return what was given, but not what may be the secret itself."""
    return repr(name) if isinstance(name, str) and len(name) <= _SHOWN and name.isidentifier() else type(name).__name__


@refuses_unknown
def secret(name: str, /) -> EnvSecret:
    """Name the secret in the environment variable `name`, read at each use; its `repr` is `secret('NAME')`.

    Raises:
        OptionError: no environment variable can be called so.
    """
    return EnvSecret(name)
