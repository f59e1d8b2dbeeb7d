"""The source of a durable run: a stream whose items have keys, walked from its source down.

A stream shows what it is made of. Here its source becomes a source of roots, and its operators act on tracked items.
See `docs/decisions.md`, "Streams do not know durable runs".
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from penstock.core.errors import OptionError
from penstock.core.plan import Tolerance
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.durable.fingerprint import StageCode, stage_code
from penstock.durable.ledger import Identity, Ledger
from penstock.durable.resume import Resume
from penstock.durable.roots import Key
from penstock.durable.tracking import tracking
from penstock.ops.description import Combined, Description, Origin
from penstock.ops.operator import Operator

type OpenTracked = Callable[[Scope, Ledger, str, bool], Stage[Any]]
"""Opens a stage of tracked items, with a prefix for their keys.

The last argument says whether their order can be seen.
"""


@dataclass(frozen=True, slots=True)
class RootSource:
    """A source of roots, with the operators on it.

    Attributes:
        name: of the source.
        open: opens its stages.
        stages: the code of its stages.
        one_shot: whether it can be read only once.
        tolerance: how many failures the last stage accepts that does not raise the first; None if all stages raise.
        retries_dead: whether the next run tries a root again that fails, as it may succeed then.
        is_missing: whether a root that was settled before and not seen again should have been in the source.
        operators: all operators on it.
    """

    name: str
    open: OpenTracked
    stages: tuple[StageCode, ...] = ()
    one_shot: bool = False
    tolerance: Tolerance | None = None
    operators: tuple[Operator, ...] = ()
    retries_dead: bool = False
    is_missing: Callable[[Key], bool] = lambda _: True

    @property
    def runs_elsewhere(self) -> bool:
        """Whether there are functions, and all of them run in other processes."""
        functions = [each for each in self.operators if each.code is not None]
        return bool(functions) and all(each.runs_elsewhere for each in functions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed(Origin):
    """An origin whose items have keys, so that they can be roots.

    Attributes:
        identity: how its items are known from run to run.
        open_items: opens the stage of its items for a durable run, given its ledger and the prefix of their keys.
        one_shot: whether it can be read only once.
        in_run: tells a run what the source knows of it, beside its items; None: nothing.
    """

    identity: Identity
    open_items: Callable[[Scope, Ledger, str], Stage[Any]]
    one_shot: bool = False
    in_run: Callable[[RootSource], RootSource] | None = None

    def open_tracked(self, scope: Scope, ledger: Ledger, prefix: str, _in_order: bool) -> Stage[Any]:  # noqa: FBT001 -- as all
        """Open a stage of those of its items that are to be done."""
        return Resume(scope, self.open_items(scope, ledger, prefix), ledger, ledger.admitting(self.identity, prefix))


def source_of(description: Description) -> RootSource:
    """Turn a stream into a source of roots.

    Raises:
        OptionError: its items have no keys, or an operator would mean something else after a resume.
    """
    operators = description.operators
    for operator in operators:
        operator.check_durable()
    source = _source(description.origin)
    codes = [stage_code(operator) for operator in operators]

    def open_tracked(scope: Scope, ledger: Ledger, prefix: str, in_order: bool) -> Stage[Any]:  # noqa: FBT001 -- as all
        from_source, *orders = description.orders(in_order=in_order)
        stage = source.open(scope, ledger, prefix, from_source)
        for operator, code, shown in zip(operators, codes, orders, strict=True):
            stage = operator.open(scope, stage, tracking(operator, code, ledger), shown)
        return stage

    tolerant = [each.code.tolerance for each in operators if each.code and each.code.tolerance is not None]
    found = replace(
        source,
        open=open_tracked,
        stages=(*source.stages, *(code for code in codes if code is not None)),
        tolerance=tolerant[-1] if tolerant else source.tolerance,
        operators=(*source.operators, *operators),
    )
    origin = description.origin
    return origin.in_run(found) if isinstance(origin, Keyed) and origin.in_run is not None else found


def _source(origin: Origin) -> RootSource:
    if isinstance(origin, Keyed):
        return RootSource(origin.identity.source, origin.open_tracked, one_shot=origin.one_shot)
    if isinstance(origin, Combined) and origin.kind.keeps_keys and all(map(_has_keys, origin.parts)):
        return _merged(origin)
    raise OptionError(
        "a durable run needs a source whose items have keys: see penstock.keyed (chain and zip give none)"
    )


def _has_keys(description: Description) -> bool:
    origin = description.origin
    return isinstance(origin, Keyed) or (isinstance(origin, Combined) and all(map(_has_keys, origin.parts)))


def _merged(origin: Combined) -> RootSource:
    """Join the sources of several streams; the keys of each begin with its number."""
    sources = [source_of(each) for each in origin.parts]

    def open_tracked(scope: Scope, ledger: Ledger, prefix: str, in_order: bool) -> Stage[Any]:  # noqa: FBT001 -- as all
        return origin.kind.stage(
            scope,
            [source.open(scope, ledger, f"{prefix}{number}:", in_order) for number, source in enumerate(sources)],
        )

    return RootSource(
        f"{origin.kind.name}({', '.join(source.name for source in sources)})",
        open_tracked,
        stages=tuple(stage for source in sources for stage in source.stages),
        one_shot=any(source.one_shot for source in sources),
        tolerance=next((source.tolerance for source in sources if source.tolerance is not None), None),
        operators=tuple(each for source in sources for each in source.operators),
    )
