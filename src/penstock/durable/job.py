"""What a durable run is to do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from penstock.core.policy import Tolerance
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.durable.fingerprint import OnChange, StageCode
from penstock.durable.ledger import Ledger
from penstock.durable.roots import Key
from penstock.durable.sink import Durability, Sink

type OnDead = Literal["keep", "remove"]
type OnDuplicate = Literal["refuse", "first"]
type OnMissing = Literal["keep", "delete", "delete_all"]
type OpenTracked = Callable[[Scope, Ledger, str, bool], Stage[Any]]


@dataclass(frozen=True, slots=True)
class IdentifiedSource:
    """A source of roots.

    Attributes:
        name: what it is called.
        open: opens a stage of tracked items, their keys with a prefix; the last argument says whether whoever reads it
            can see their order.
        stages: the code of the stages that it has already.
        one_shot: whether it can be read only once.
        tolerance: how many failures the last of its stages puts up with that does not raise the first; None if all do.
    """

    name: str
    open: OpenTracked
    stages: tuple[StageCode, ...] = ()
    one_shot: bool = False
    tolerance: Tolerance | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """What is to run, and into what.

    Attributes:
        progress: whether to show on stderr how it goes.
        on_dead: what becomes of the rows that a root has of a version before, when it fails.
        on_duplicate: what becomes of an item with a key that another one has.
        limit: how many roots to do, or None for all.
        retries_dead: whether a root that fails is tried again by the next run, as one that may do better then.
        tolerance: how many rows that the sink refuses are set aside; None if the first one ends the run.
        is_missing: whether a root that was settled before and was not seen is one that the source should have had.
        stages: the code of its stages.
        on_change: what becomes of roots that were done by other code.
        one_shot: whether its source can be read only once.
        finds_killers: whether roots that may have killed the process are run alone: in a fork of it, which not all
            libraries put up with.
    """

    open_tracked: OpenTracked
    source: str
    sink: Sink
    name: str
    durability: Durability
    on_missing: OnMissing
    grace: float
    progress: bool = False
    on_dead: OnDead = "keep"
    on_duplicate: OnDuplicate = "refuse"
    limit: int | None = None
    retries_dead: bool = False
    tolerance: Tolerance | None = None
    is_missing: Callable[[Key], bool] = lambda _: True
    stages: tuple[StageCode, ...] = ()
    on_change: OnChange = "continue"
    one_shot: bool = False
    finds_killers: bool = True
