"""The options of a durable run: their names, defaults and rules.

An option is a line of `DeliverOptions`, which type checkers and readers see, a field of `RunOptions`, which checks it
once, and the place that uses it. Nothing hands it on in between.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypedDict

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.retry import Seconds
from penstock.durable.fingerprint import OnChange
from penstock.durable.sink import Durability
from penstock.progress import require_rich

type OnDead = Literal["keep", "remove"]
type OnDuplicate = Literal["refuse", "first"]
type OnMissing = Literal["keep", "delete", "delete_all"]
type OnRefused = Literal["raise", "collect"]
"""What becomes of a row that the sink cannot hold."""


class DeliverOptions(TypedDict, total=False):
    """Options of a durable run, beside its name.

    Attributes:
        durability: what committed rows survive: "process" (the default) the end of the process, also `kill -9`; "power"
            also a power failure, at the price of a sync for each commit.
        on_missing: what becomes of the rows of roots that are not in the source any more: "keep" (the default) or
            "delete". If the source gave nothing at all, as a truncated file does, only "delete_all" removes them.
        on_change: what becomes of roots that are done when the code of a stage has changed since the run was begun last
            (see `docs/memo.md` for what counts as code). "continue" (the default) leaves them done, and does the others
            by the new code. "restart" does those again that other code has made, at any time; each keeps its rows until
            then. "refuse" raises `StoreError`. The log and the report name the stages that have changed, and the report
            says how much of what is done was made by other code.
        on_error: what becomes of a row that the sink cannot hold (a value that no column has, a column that is not
            declared, the key of another row): "collect" sets it aside, and its root is dead; "raise" ends the run with
            the first one. Default: as the last stage with "collect" or "skip" does, that is "collect" with its
            `max_failures` and `max_failure_rate`, counted for the sink alone; "raise" if there is no such stage.
        on_dead: what becomes of the rows of a root's earlier version when the new one fails: "keep" (the default) or
            "remove".
        find_killers: whether roots that were under way at both of the last two kills of the run are tried first, in a
            worker process; a root that kills it is set aside. Default True. False neither tries them nor notes, after a
            kill, what is under way; nor does a run whose functions all run on engines of other processes.
        on_duplicate: what becomes of an item with the key of an earlier item: "refuse" (the default) ends the run with
            a `DuplicateKeyError`, "first" drops and counts it.
        limit: roots to do, an int >= 1: then the run ends in order, and the next one goes on. Roots that were done
            before do not count. Default: all.
        grace: seconds that work which ignores its cancellation gets when the run is left, >= 0, default 5; then a
            warning names it and it is left behind.
        progress: show on stderr how it goes, as `open` does; default False.
    """

    durability: Durability
    on_missing: OnMissing
    on_change: OnChange
    on_error: OnRefused | None
    on_dead: OnDead
    find_killers: bool
    on_duplicate: OnDuplicate
    limit: int | None
    grace: Seconds
    progress: bool


type _Check = Callable[[str, Any], Any]
"""Takes the name of an option and its value; returns the checked value, or raises."""


def _by(check: _Check) -> Mapping[str, _Check]:
    return {"check": check}


def _one_of(*choices: object) -> Mapping[str, _Check]:
    return _by(lambda option, value: validate.one_of(option, value, choices))


def _name(option: str, value: object) -> str:
    if not validate.is_utf8(name := validate.text(option, value)):
        raise OptionError(f"{option} must be a str that can be written as UTF-8, got {name!r}")
    return name


def _limit(option: str, value: object) -> int | None:
    return None if value is None else validate.whole(option, value, least=1)


def _grace(option: str, value: object) -> float:
    return validate.seconds(option, value, zero=True)


def _progress(option: str, value: object) -> bool:
    if validate.flag(option, value):
        require_rich()
    return bool(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The checked options of one opening of a run; `DeliverOptions` says what they mean."""

    run: str = field(metadata=_by(_name))
    durability: Durability = field(default="process", metadata=_one_of("process", "power"))
    on_missing: OnMissing = field(default="keep", metadata=_one_of("keep", "delete", "delete_all"))
    on_change: OnChange = field(default="continue", metadata=_one_of("continue", "restart", "refuse"))
    on_error: OnRefused | None = field(default=None, metadata=_one_of("raise", "collect", None))
    on_dead: OnDead = field(default="keep", metadata=_one_of("keep", "remove"))
    find_killers: bool = field(default=True, metadata=_by(validate.flag))
    on_duplicate: OnDuplicate = field(default="refuse", metadata=_one_of("refuse", "first"))
    limit: int | None = field(default=None, metadata=_by(_limit))
    grace: float = field(default=5.0, metadata=_by(_grace))
    progress: bool = field(default=False, metadata=_by(_progress))

    def __post_init__(self) -> None:
        for each in fields(self):
            object.__setattr__(self, each.name, each.metadata["check"](each.name, getattr(self, each.name)))


def run_options(run: str, given: Mapping[str, Any]) -> RunOptions:
    """Check the options.

    Raises:
        ModuleNotFoundError: `progress` needs rich, and it is not installed.
        OptionError: an option breaks its rule, or there is none of its name.
    """
    known = DeliverOptions.__optional_keys__
    if unknown := sorted(given.keys() - known):
        raise OptionError(f"a durable run has no option {unknown[0]!r}: there are {', '.join(sorted({*known, 'run'}))}")
    return RunOptions(run=run, **given)
