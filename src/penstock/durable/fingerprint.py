"""What the code of a stage is, in 16 bytes that are the same in every process: to tell whether it has changed.

The function is known by module, qualified name, byte code, constants (the docstring among them) and the names that it
uses; by its defaults, the arguments of a `partial` and what it closes over, as these are when the run begins. Of
functions among these, and of those defined inside it, the same is known; of other objects what they hold where it says
all (see `penstock.durable.values`), else the type. A callable object is known by its type and its `__call__`, and by
its fields if it is a dataclass. File names, line numbers and annotations are no part of it; nor are the global names
that it uses, beyond their being used: what they stand for is for `deps` to say. Byte code is that of one feature
release of Python: with another one, every function has changed.
"""

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from types import BuiltinFunctionType, CodeType, EllipsisType, FunctionType, MethodType, ModuleType
from typing import Any, Final, Literal, cast

from penstock.core.errors import OptionError
from penstock.durable.values import PackError, digest, kind_of, plain_stand_in, type_name
from penstock.ops.operator import Code, Operator

type OnChange = Literal["continue", "restart", "refuse"]
"""What becomes of what is done when the code has changed: it stays, it is done again, or the run is refused."""

LARGE: Final = 10_000
"""Entries of a list, tuple, dict or set beyond which only its type counts, as with arrays."""


@dataclass(frozen=True, slots=True)
class StageCode:
    """The code of one stage: its name, which may change, and its fingerprint."""

    name: str
    fingerprint: bytes


def stage_code(operator: Operator) -> StageCode | None:
    """The code of an operator, if it runs a function.

    Raises:
        OptionError: `deps` holds what has no digest.
    """
    return None if operator.code is None else StageCode(operator.code.title, fingerprint(operator.name, operator.code))


def fingerprint(operator: str, code: Code) -> bytes:
    """16 bytes that are others when the results of the operator may be."""
    try:
        deps = digest(code.deps)
    except PackError as error:
        raise OptionError(
            f"deps must be made of JSON-like values, bytes, arrays or dataclasses of them, "
            f"got {type_name(error.kind)} in {code.deps!r}"
        ) from None
    parts = (sys.implementation.cache_tag, operator, code.fn, deps)
    return digest(parts, _Describing().stand_in)


def code_of(stages: Sequence[StageCode]) -> bytes:
    """16 bytes for the code of all stages together."""
    return hashlib.blake2b(b"".join(stage.fingerprint for stage in stages), digest_size=16).digest()


def changes(before: Sequence[StageCode], now: Sequence[StageCode]) -> tuple[str, ...]:
    """The stages that have changed, by name; those that are new or gone are called so."""
    changed: list[str] = []
    matcher = SequenceMatcher(
        a=[stage.fingerprint for stage in before], b=[stage.fingerprint for stage in now], autojunk=False
    )
    for what, a, a_end, b, b_end in matcher.get_opcodes():
        if what == "equal":
            continue
        old, new = before[a:a_end], now[b:b_end]
        both = min(len(old), len(new))
        changed += [stage.name for stage in new[:both]]
        changed += [f"{stage.name} (new)" for stage in new[both:]]
        changed += [f"{stage.name} (gone)" for stage in old[both:]]
    return tuple(changed)


class _Describing:
    """What stands for functions and other objects in a digest."""

    def __init__(self) -> None:
        self._seen: dict[int, object] = {}
        self._ways: tuple[tuple[type, Callable[[Any], Any]], ...] = (
            (CodeType, _code),
            (functools.partial, self._partial),
            (MethodType, lambda method: ("method", method.__func__, self._held(method.__self__))),
            (type, lambda kind: ("class", type_name(kind))),
            (ModuleType, lambda module: ("module", module.__name__)),
            (BuiltinFunctionType, lambda builtin: ("builtin", str(builtin.__module__), builtin.__qualname__)),
            (EllipsisType, lambda _: ("ellipsis",)),
        )

    def stand_in(self, value: Any) -> Any:
        """What is known of it."""
        for kind, describe in self._ways:
            if isinstance(value, kind):
                return describe(value)
        if id(value) in self._seen:  # what leads to itself has no end
            return "seen", type_name(kind_of(value))
        self._seen[id(value)] = value
        return self._function(value) if isinstance(value, FunctionType) else self._object(value)

    def _partial(self, part: functools.partial[Any]) -> Any:
        keywords = {name: self._held(value) for name, value in part.keywords.items()}
        return "partial", part.func, tuple(map(self._held, part.args)), keywords

    def _function(self, function: FunctionType) -> Any:
        name = "function", function.__module__, function.__qualname__
        defaults = tuple(map(self._held, function.__defaults__ or ()))
        named = {name: self._held(value) for name, value in (function.__kwdefaults__ or {}).items()}
        closure = tuple(self._held(_content(cell)) for cell in function.__closure__ or ())
        return name, function.__code__, defaults, named, closure

    def _object(self, value: Any) -> Any:
        kind = kind_of(value)
        try:
            held = plain_stand_in(value)
        except PackError:
            held = None
        call = inspect.getattr_static(kind, "__call__", None)
        call = call if isinstance(call, FunctionType) else None
        return "object", type_name(kind), held, call, inspect.getattr_static(value, "__wrapped__", None)

    def _held(self, value: Any) -> Any:
        """What is known of a value that a function holds: of one that is large, or has no end, the type."""
        kind = kind_of(value)
        large = isinstance(value, list | tuple | dict | set | frozenset) and len(cast("list[Any]", value)) > LARGE
        try:
            return ("large", type_name(kind)) if large or hasattr(kind, "dtype") else digest(value, self.stand_in)
        except PackError:
            return "endless", type_name(kind)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "empty"


def _code(code: CodeType) -> Any:
    return (
        "code",
        code.co_code,
        code.co_consts,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags,
        code.co_exceptiontable,
    )
