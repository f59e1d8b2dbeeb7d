"""What is to start a pipeline, described as data: nothing runs by itself."""

from dataclasses import dataclass
from typing import Literal

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.flow.steps import refuses_unknown


@refuses_unknown
@dataclass(frozen=True, slots=True)
class Cron:
    """At the times of a cron `expression`, as cron reads it.

    Raises:
        OptionError: `expression` is not a non-empty str.
    """

    expression: str

    def __post_init__(self) -> None:
        validate.text("expression", self.expression)


@refuses_unknown
@dataclass(frozen=True, slots=True)
class Event:
    """When an event of that `type` comes.

    Raises:
        OptionError: `type` is not a non-empty str.
    """

    type: str

    def __post_init__(self) -> None:
        validate.text("type", self.type)


type Trigger = Cron | Event | Literal["manual"]
"""What starts a pipeline: a time, an event, or somebody."""


def checked(trigger: object) -> Trigger:
    """Return the option `trigger`, if it is one."""
    if isinstance(trigger, Cron | Event) or (isinstance(trigger, str) and trigger == "manual"):
        return trigger  # type: ignore[return-value] # a str that equals it
    raise OptionError(f"trigger must be a Cron, an Event or 'manual', got {trigger!r}")
