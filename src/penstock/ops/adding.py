"""What `Stream.add` puts into a stream: steps, which act on each item, and transforms, which read the items themselves.

A part makes its operator itself, so streams need not know what steps are.
"""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from typing import Any, ClassVar, Final, Generic, TypedDict, TypeVar, override

from penstock.core.errors import OptionError
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.core.text import call
from penstock.core.transforming import Transforming
from penstock.ops.kind import Kind
from penstock.ops.operator import Operator

I_contra = TypeVar("I_contra", contravariant=True)
O_co = TypeVar("O_co", covariant=True)


class AddOptions(TypedDict, total=False):
    """Options of `Stream.add`, beside `on_error`; they mean what they mean for `Stream.map`.

    Attributes:
        concurrency: calls that run at once, an int >= 1; None, the default, means 1, or the slots of a shared engine.
        ordered: True hands results on in the order of the items, False as they finish; by default in order wherever
            that can be seen below.
        buffer: finished results that may wait beside the running calls, an int >= 0; default 0.
        name: the stage's name in errors and statistics; default that of the step.
        max_failures: how many failures "skip" and "collect" accept, an int >= 0. Default: any number.
        max_failure_rate: the share of failures among the items settled so far, 0 to 1, that they accept.
    """

    concurrency: int | None
    ordered: bool | None
    buffer: int
    name: str | None
    max_failures: int | None
    max_failure_rate: float | None


class Addable(Generic[I_contra, O_co]):  # noqa: UP046 -- the new form infers no variance from a class without members
    """Something that `Stream.add` puts into a stream."""

    __slots__ = ()

    def operator(self, options: Mapping[str, Any]) -> Operator:
        """Return the operator that it is in a stream, with these options of `add`.

        Raises:
            OptionError: an option breaks its rule, or it cannot be part of a stream.
        """
        raise NotImplementedError


class AddableStep(Addable[I_contra, O_co]):
    """A part that is called for each item: a step."""

    __slots__ = ()


ADD: Final = Kind("add")
"""The kind of the operator that calls a step for each item."""

type MakeReader = Callable[[Scope], tuple[Callable[[AsyncIterator[Any]], AsyncIterable[Any]], Callable[[], None]]]
"""Gives for a run the function of a transform, and what signals that it will be cancelled."""


class Transform(Addable[I_contra, O_co]):
    """A stage that reads the items itself: made by `penstock.flow.transform`, for `Stream.add`.

    Attributes:
        name: of the stage.
    """

    __slots__ = ("_make", "name")
    kind: ClassVar[str] = "transform"
    name: str

    def __init__(self, name: str, make: MakeReader) -> None:
        self.name = name
        self._make = make

    @override
    def __repr__(self) -> str:
        return f"<transform {self.name!r}>"

    @override
    def operator(self, options: Mapping[str, Any]) -> Operator:
        for option in options:
            raise OptionError(
                f"a transform has no option {option!r}: it is one generator over all items, and none that has raised "
                "can be called again"
            )
        return Operator("transform", self._open, text=call("add", repr(self)))

    def _open(self, scope: Scope, upstream: Stage[Any], _adapt: object, _in_order: bool) -> Stage[Any]:  # noqa: FBT001 -- as all
        make, signal = self._make(scope)
        return Transforming(scope, upstream, self.name, make, signal)
