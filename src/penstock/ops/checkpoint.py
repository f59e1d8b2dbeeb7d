"""Checkpoints: they keep in memory what passes, for the state of the run."""

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal, cast

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.scope import Scope
from penstock.core.snapshots import Snapshot
from penstock.core.stage import Stage
from penstock.core.text import call, shown
from penstock.ops.operator import Operator
from penstock.ops.passing import Passing

type Kept = Literal["last", "all"] | int

UNSET: Final[Any] = object()


class _Last:
    """The last item."""

    __slots__ = ("_item",)

    def __init__(self) -> None:
        self._item: Any = UNSET

    def note(self, item: Any) -> Any:
        """Keep an item that passes, and hand it on."""
        self._item = item
        return item

    @property
    def is_there(self) -> bool:
        """Whether an item has passed."""
        return self._item is not UNSET

    def read(self) -> Any:
        """Return it."""
        return self._item


class _Many:
    """The last `most` items, or all."""

    __slots__ = ("_items",)

    is_there = True

    def __init__(self, most: int | None) -> None:
        self._items: deque[Any] = deque(maxlen=most)

    def note(self, item: Any) -> Any:
        """Keep an item that passes, and hand it on."""
        self._items.append(item)
        return item

    def read(self) -> Any:
        """Return them in a list."""
        return list(self._items.copy())


class _Fold:
    """What a function has made of all items so far."""

    __slots__ = ("_fold", "_so_far")

    is_there = True

    def __init__(self, fold: Callable[[Any, Any], Any], initial: Any) -> None:
        self._fold = fold
        self._so_far = initial

    def note(self, item: Any) -> Any:
        """Fold an item that passes, and hand it on."""
        self._so_far = validate.plain_result("fold", self._fold(self._so_far, item))
        return item

    def read(self) -> Any:
        """Return it."""
        return self._so_far


def checkpoint(name: str, keep: Kept, fold: Callable[[Any, Any], Any] | None, initial: Any) -> Operator:
    """Make the operator that keeps a snapshot of what passes.

    Raises:
        OptionError: an argument breaks its rule.
    """
    checked = validate.text("name", name)
    make = _maker(keep, fold, initial)

    def open_stage(scope: Scope, upstream: Stage[Any], adapt: object, _in_order: bool) -> Stage[Any]:  # noqa: FBT001 -- as all
        snapshot = make()
        scope.snapshots.put(checked, cast("Snapshot", snapshot))
        note = snapshot.note if adapt is None else _inside(snapshot.note)
        return Passing(scope, upstream, f"checkpoint({checked})", note)

    text = call("checkpoint", repr(checked), keep=None if keep == "last" else keep)
    return Operator("checkpoint", open_stage, item_by_item=True, ordered=True, text=text, checkpoints=(checked,))


def _inside(note: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Wrap `note`: items come in envelopes."""

    def note_inside(envelope: Any) -> Any:
        note(envelope.value)
        return envelope

    return note_inside


def _maker(keep: Kept, fold: Callable[[Any, Any], Any] | None, initial: Any) -> Callable[[], _Last | _Many | _Fold]:
    """Return what makes a fresh snapshot for each run."""
    if fold is not None:
        validate.plain_function("fold", fold)
        if initial is UNSET:
            raise OptionError("initial must be given with fold")
        if keep != "last":
            raise OptionError(f"keep must not be given with fold, got {shown(keep)}")
        return lambda: _Fold(fold, initial)
    if initial is not UNSET:
        raise OptionError(f"fold must be given with initial, got initial={shown(initial)}")
    if isinstance(keep, str):
        if keep == "last":
            return _Last
        if keep == "all":
            return lambda: _Many(None)
    most = validate.as_int(keep)
    if most is None or most < 1:
        raise OptionError(f"keep must be 'last', 'all' or an int >= 1, got {shown(keep)}")
    return lambda: _Many(most)
