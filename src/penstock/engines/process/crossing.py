"""Values on their way to another process: pickled by name where that can be, by value (cloudpickle) where it must be.

Large arrays, `bytes` and `bytearray` go beside the pickle, as they are (protocol 5).
"""

import pickle
import sys
from collections.abc import Iterable
from functools import partial
from importlib import import_module
from io import BytesIO
from pickle import PickleBuffer
from types import CellType, CodeType, FunctionType
from typing import Any, Final

LARGE: Final = 1 << 16
"""Bytes from which on a buffer goes beside the pickle."""

MOST_BUFFERS: Final = 256
"""Buffers of one group that go so."""

_MAIN: Final = b"__main__"


class Crossing:
    """How values of this process are pickled.

    `main_is_there`: the other process finds what the module `__main__` has by its name.
    """

    def __init__(self, *, main_is_there: bool) -> None:
        self._main_is_there = main_is_there

    def dumps(self, value: Any, buffers: list[memoryview] | None = None) -> bytes:
        """Pickle a value, and add its large buffers to the list, if there is one.

        Raises:
            Exception: it cannot be pickled; anything, as it is the value that says so.
        """
        count = len(buffers or ())
        try:
            data = pickle.dumps(value, 5, buffer_callback=None if buffers is None else partial(_stays, buffers))
        except Exception as error:
            cloud = _cloudpickle()
            if cloud is None:
                if isinstance(error, (AttributeError, pickle.PicklingError)):
                    raise pickle.PicklingError(f"{error}; {NEEDS_CLOUDPICKLE}") from error
                raise
            return self._by_value(cloud, value, buffers, count)
        if not self._main_is_there and _MAIN in data:
            cloud = _cloudpickle()
            if cloud is None:
                raise pickle.PicklingError(
                    f"workers do not have the module __main__ of this process; {NEEDS_CLOUDPICKLE}"
                )
            return self._by_value(cloud, value, buffers, count)
        return data

    def _by_value(self, cloud: Any, value: Any, buffers: list[memoryview] | None, count: int) -> bytes:
        """Pickle with cloudpickle; the list has `count` buffers of other values."""
        if buffers is not None:
            del buffers[count:]
        main_is_there = self._main_is_there

        class Pickler(cloud.CloudPickler):  # type: ignore[misc]
            """Pickles by name what workers have in their `__main__`: a class of it stays one class."""

            def reducer_override(self, obj: "Any") -> "Any":  # cloudpickle does not see what a class body refers to
                if main_is_there and isinstance(obj, (FunctionType, type)) and _is_of_main(obj):
                    return NotImplemented
                if isinstance(obj, FunctionType) and _is_inner(obj):
                    return _reduced(obj)
                above: Any = super()
                return above.reducer_override(obj)

        file = BytesIO()
        Pickler(file, 5, buffer_callback=None if buffers is None else partial(_stays, buffers)).dump(value)
        return file.getvalue()


NEEDS_CLOUDPICKLE: Final = (
    "what has no name in a module that workers import needs cloudpickle: pip install 'penstock[process]'"
)


def _stays(buffers: list[memoryview], buffer: PickleBuffer) -> bool:
    """Return whether a buffer stays in the pickle; else add it to the list."""
    try:
        view = buffer.raw()
    except BufferError:
        return True
    if view.nbytes < LARGE or len(buffers) >= MOST_BUFFERS:
        return True
    buffers.append(view)
    return False


def loads(data: bytes | bytearray | memoryview, buffers: Iterable[Any] = ()) -> Any:
    """Return the value of a pickle, which comes from a process of ours."""
    return pickle.loads(data, buffers=buffers)  # noqa: S301


def is_plain(value: Any) -> bool:
    """Whether a value is small, cannot change and refers to nothing: it may go in any way, and together with others."""
    kind: object = type(value)  # pyright: ignore[reportUnknownVariableType] # Any spares a cast
    if kind is int:
        plain: bool = -_LARGEST < value < _LARGEST
        return plain
    return kind in _SCALARS or (kind in _TEXTS and len(value) < _SHORT)


def are_plain(values: tuple[Any, ...]) -> bool:
    """Whether all are."""
    for value in values:  # noqa: SIM110 -- all() takes three times as long with one value
        if not is_plain(value):
            return False
    return True


_SCALARS: Final = frozenset((float, bool, type(None)))
_TEXTS: Final = frozenset((str, bytes))
_SHORT: Final = 1 << 10
_LARGEST: Final = 1 << 63


def whole(value: Any) -> Any:
    """Wrap `bytes` and `bytearray` that are large: they go beside the pickle, and come out as they were."""
    return PickleBuffer(value) if type(value) in _BYTES and len(value) >= LARGE else value


def whole_arguments(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Do the same to each argument."""
    for value in arguments:
        if type(value) in _BYTES:
            return tuple(map(whole, arguments))
    return arguments


_BYTES: Final = frozenset((bytes, bytearray))


def why(error: BaseException) -> str:
    """Return type and text of an exception on one line."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 -- the user's
        text = "?"
    return f"{type(error).__name__}: {' '.join(text.split())[:500]}"


def type_name(value: object) -> str:
    """Return the name of a value's type, for a message."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _is_of_main(value: Any) -> bool:
    if getattr(value, "__module__", None) != "__main__":
        return False
    found: Any = sys.modules.get("__main__")
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is value


def _is_inner(fn: FunctionType) -> bool:
    """Whether it is a function of this library that was made inside of another one, or a lambda."""
    return str(fn.__module__).startswith("penstock.") and "<" in fn.__qualname__


def _reduced(fn: FunctionType) -> tuple[object, ...]:
    """Reduce such a function to its code and what it holds.

    Its globals are those of its module in the other process. cloudpickle would copy them: a marker that is compared by
    `is` would become two, and a lock cannot be copied.
    """
    held = [cell.cell_contents for cell in fn.__closure__ or ()]
    state = held, fn.__defaults__, fn.__kwdefaults__, fn.__dict__
    return _hollow, (fn.__module__, fn.__code__, fn.__qualname__), state, None, None, _filled


def _hollow(module: str, code: CodeType, name: str) -> FunctionType:
    fn = FunctionType(code, vars(import_module(module)), None, None, tuple(CellType() for _ in code.co_freevars))
    fn.__qualname__ = name
    return fn


def _filled(fn: FunctionType, state: tuple[list[object], Any, Any, dict[str, object]]) -> None:
    held, fn.__defaults__, fn.__kwdefaults__, attributes = state
    fn.__dict__.update(attributes)
    for cell, value in zip(fn.__closure__ or (), held, strict=True):
        cell.cell_contents = value


def _cloudpickle() -> Any:
    try:
        return import_module("cloudpickle")  # an extra, without types, for some
    except ImportError:
        return None
