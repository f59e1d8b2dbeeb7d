"""An operator of a stream, as a description: how to open its stage."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.core.errors import OptionError
from penstock.core.plan import Plan, Tolerance
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.core.text import call, name_of
from penstock.ops.kind import Kind

type Adapt = Callable[[Kind, Plan[Any, Any]], Plan[Any, Any]]
"""Adapts the plan of an operator of that kind to wrapped items: unwraps arguments, wraps results."""


@dataclass(frozen=True, slots=True)
class Code:
    """What the results of an operator depend on, beside its items.

    Attributes:
        title: the name of its stage.
        fn: the user's function.
        in_band: whether results are `Ok` or `Failed`.
        deps: what else the results depend on, as the user says.
        memo: whether results are kept from run to run.
        memo_of: gives what of an item its result depends on; None: all of it.
        tolerance: how many failures are accepted; None if the first is raised.
    """

    title: str
    fn: Callable[..., Any]
    in_band: bool
    deps: object
    memo: bool
    tolerance: Tolerance | None = None
    memo_of: Callable[[Any], object] | None = None


@dataclass(frozen=True, slots=True)
class Operator:
    """How to open a stage under another one.

    Attributes:
        name: of the operator.
        open: opens its stage. An operator that acts item by item can be given `adapt`, for wrapped items. The last
            argument says whether the order of its output can be seen below.
        item_by_item: whether its output for an item depends on that item alone.
        code: what its results depend on, if it runs a function of the user.
        ordered: whether its output shows the order of its items; None if its output is in their order, or need not be.
        text: the call that made it, in a line.
        runs_elsewhere: whether its function runs in other processes.
        follows: opens the stages above it, if it wants to know where their items come from.
        checkpoints: the names by which the state of the run knows what it keeps, also in its branches.
    """

    name: str
    open: Callable[[Scope, Stage[Any], Adapt | None, bool], Stage[Any]]
    item_by_item: bool = False
    code: Code | None = None
    ordered: bool | None = True
    text: str = ""
    runs_elsewhere: bool = False
    checkpoints: tuple[str, ...] = ()
    follows: "Following | None" = None

    def shows_order(self, in_order: bool) -> bool:  # noqa: FBT001 -- it is what the answer may be
        """Whether the order of its items can be seen, if the order of its output can, or cannot (P3)."""
        return in_order if self.ordered is None else self.ordered

    def check_durable(self) -> None:
        """Raise OptionError if it cannot be part of a durable run."""
        for name in self.checkpoints:
            raise OptionError(
                f"checkpoint({name}) cannot be part of a durable run: it is a snapshot in memory, and no "
                "place to resume from"
            )
        if not self.item_by_item:
            raise OptionError(
                f"{self.name} cannot be part of a durable run: after a resume it would mean something else, as it "
                "would not see the items that are done"
            )
        if self.code is not None and self.code.in_band:
            raise OptionError(
                f"on_error of {self.code.title} must be 'raise', 'skip' or 'collect' in a durable run, got 'return': "
                "rows are results, and what has failed is set aside with 'collect'"
            )


class Following(Protocol):
    """Opens the stages above an operator so that each item knows where it came from."""

    def begin(self, scope: Scope, source: Stage[Any]) -> Stage[Any]:
        """Open a stage that wraps the items of the source."""
        ...

    def open(self, operator: Operator, scope: Scope, upstream: Stage[Any], in_order: bool, /) -> Stage[Any]:  # noqa: FBT001 -- as all
        """Open an operator on wrapped items."""
        ...


def passing(
    name: str,
    open_stage: Callable[[Scope, Stage[Any]], Stage[Any]],
    *given: object,
    item_by_item: bool = False,
) -> Operator:
    """Describe an operator that runs no function, or one on more than a single item: it sees the order of its items.

    `given` are its arguments, for its text.
    """
    ordered = None if item_by_item else True
    text = call(name, *(str(each) if type(each) in {int, float} else name_of(each) for each in given))
    return Operator(
        name, lambda scope, upstream, _, __: open_stage(scope, upstream), item_by_item, ordered=ordered, text=text
    )
