"""Prints of functions and values: bytes that differ when the results may differ, and are the same in every process.

A print is made of the prints of parts, down to values that tell all of themselves. It depends on no address, no order
of a set, and nothing that was printed before: sets are sorted by the prints of their members, and a reference back to
the value itself is known by how far up it leads. An object of a class written in Python is what its attributes are. A
value that holds more (a file, a client, a lock) is *opaque*: it is known by its type alone, and named for those who
must know everything.
"""

import array
import collections
import contextvars
import copyreg
import functools
import inspect
import logging
import operator
import re
import sys
import types
import typing
import zoneinfo
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from hashlib import blake2b
from pathlib import PurePath
from typing import Any, Final, cast
from uuid import UUID

from penstock.core.text import a
from penstock.durable.values import kind_of, pack, type_name

MOST: Final = 100_000
"""Values that are looked at, containers and their contents; a function that holds more is opaque."""

TELLS: Final = "tell_code"
"""The method of objects of ours that say themselves what their results depend on: they hold what changes, too."""

_DEPTH: Final = 100
_BYTES: Final = 1 << 28
"""Bytes of an array that is looked at, at most: they are copied."""

_WORD: Final = object.__basicsize__ // 2

_SAY_ALL: Final = frozenset((type(None), bool, int, float, complex, str, bytes))
_COLLECTIONS: Final = frozenset((list, tuple, dict, set, frozenset))
_BY_REPR: Final = (timedelta, timezone, Decimal, Fraction, UUID, zoneinfo.ZoneInfo)
_TYPING: Final = (types.GenericAlias, types.UnionType, typing.TypeVar, type(typing.List[int]), type(typing.Any))  # noqa: UP006
_BASES: Final = (dict, list, tuple, set, frozenset, str, int, float, complex, bytes, bytearray, BaseException)
"""Built-in types whose values hold more than attributes, as do their subclasses."""

_GETTERS: Final = (operator.itemgetter, operator.attrgetter, operator.methodcaller)
_OF_C: Final = (
    types.BuiltinFunctionType,
    types.MethodWrapperType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
)
_COMPILED: Final = {"cython_function_or_method", "fused_cython_function", "nb_func", "nb_method", "ufunc"}
_DESCRIBED_WHOLLY: Final = (Enum, type, types.FunctionType, types.CodeType, types.ModuleType, logging.Logger)
_CELLS_OF_CLASSES: Final = {"_abc_impl"}


class Opaque(Exception):
    """A value that cannot tell all that it holds."""


class Held:
    """Makes prints; `opaque` names the values that were known by their types alone, and where they are."""

    def __init__(self) -> None:
        self.opaque: list[str] = []
        self._path: list[str] = []
        self._above: dict[int, int] = {}  # what is being printed, by address: how deep
        self._turns = 0  # how often something led back up
        self._known: dict[int, tuple[object, bytes]] = {}
        self._left = MOST
        self._ways: tuple[tuple[Any, Callable[[Any], object]], ...] = (
            (types.CodeType, self._code),
            (functools.partial, self._partial),
            (types.MethodType, self._method),
            (types.FunctionType, self._function),
            (Enum, lambda value: (kind_of(value), value.name, value.value)),
            (type, self._class),
            (types.ModuleType, lambda value: ("module", value.__name__)),
            (logging.Logger, lambda value: ("logger", value.name)),
            (contextvars.ContextVar, lambda value: ("context", value.name)),
            (_OF_C, self._of_c),
            (_GETTERS, lambda value: (type_name(kind_of(value)), value.__reduce__())),
            (re.Pattern, lambda value: ("pattern", value.pattern, value.flags)),
            (range, lambda value: ("range", value.start, value.stop, value.step)),
            (slice, lambda value: ("slice", value.start, value.stop, value.step)),
            (
                collections.deque,
                lambda value: ("deque", list(value), value.maxlen),
            ),
            (array.array, lambda value: ("array", value.typecode, value.tobytes())),
            (memoryview, lambda value: ("view", value.format, value.shape, value.tobytes())),
            (types.MappingProxyType, lambda value: ("proxy", dict(value))),
            (PurePath, lambda value: (type_name(kind_of(value)), str(value))),
            ((datetime, time), lambda value: (value.replace(tzinfo=None).isoformat(), value.fold, value.tzinfo)),
            (date, lambda value: ("date", value.isoformat())),
            (_BY_REPR, lambda value: (type_name(kind_of(value)), repr(value))),
            (_TYPING, lambda value: ("typing", repr(value))),
            ((types.EllipsisType, types.NotImplementedType), lambda value: (type_name(kind_of(value)),)),
            (property, lambda value: ("property", value.fget, value.fset)),
            ((staticmethod, classmethod), lambda value: (type_name(kind_of(value)), value.__func__)),
        )

    def print(self, value: Any) -> bytes:
        """Return 16 bytes for a value."""
        kind = kind_of(value)
        if kind in _SAY_ALL:
            return _hash(b"v", pack(value))
        address = id(value)
        if address in self._known:
            return self._known[address][1]
        depth = len(self._above)
        if address in self._above:
            self._turns += 1
            return _hash(b"up", depth - self._above[address])
        turns, opaque = self._turns, len(self.opaque)
        self._above[address] = depth
        try:
            self._take(1)
            made = self._made(value, kind)
        except Exception:  # noqa: BLE001 -- it is opaque, has no end, or is code of others, asked for an attribute
            made = self._by_type(kind, opaque)
        finally:
            del self._above[address]
        if self._turns == turns:  # nothing in it leads back up: it is the same wherever it stands
            self._known[address] = value, made  # and alive, so that nothing else has its address
        return made

    def _take(self, number: int) -> None:
        self._left -= number
        if self._left < 0 or len(self._above) > _DEPTH:
            raise Opaque

    def _by_type(self, kind: type[Any], before: int) -> bytes:
        del self.opaque[before + 1 :]
        if len(self.opaque) == before:
            self.opaque.append(f"{self._place()} is {a(type_name(kind))}")
        return _hash(b"type", type_name(kind).encode())

    def _place(self) -> str:
        place = ""
        for part in self._path:
            place += f".{part}" if place and part[:1].isidentifier() else part
        return place if place and not place.startswith(".") else f"self{place}"

    def _made(self, value: Any, kind: type[Any]) -> bytes:
        if kind in _COLLECTIONS:
            return self._collection(value, kind)
        for kinds, describe in self._ways:
            if isinstance(value, kinds):
                made = [self._at("", part) for part in cast("tuple[Any, ...]", describe(value))]
                return _hash(b"way", *made, self._rest(value, kind))
        numpy: Any = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic, numpy.dtype)):
            return self._array(value, kind, numpy)
        return self._object(value, kind)

    def _collection(self, value: Any, kind: type[Any]) -> bytes:
        self._take(len(value))
        name = kind.__name__.encode()
        if kind is dict:  # what reads it reads it in this order
            entries = [(self.print(key), self._at(f"[{_short(key)}]", entry)) for key, entry in value.items()]
            return _hash(name, *(part for entry in entries for part in entry))
        if kind in {set, frozenset}:
            return _hash(name, *sorted(map(self.print, value)))
        if set(map(type, value)) <= _SAY_ALL:
            return _hash(b"values", pack(value))
        return _hash(name, *self._each(value))

    def _each(self, values: Iterable[Any]) -> list[bytes]:
        return [self._at(f"[{number}]", value) for number, value in enumerate(values)]

    def _at(self, place: str, value: Any) -> bytes:
        if kind_of(value) in _SAY_ALL:
            return _hash(b"v", pack(value))
        with self._inside(place):
            return self.print(value)

    @contextmanager
    def _inside(self, place: str) -> Generator[None]:
        self._path.append(place)
        try:
            yield
        finally:
            self._path.pop()

    def _named(self, values: Iterable[tuple[str, Any]], place: str = ".{}") -> bytes:
        return _hash(
            b"named",
            *(
                part
                for name, value in sorted(values, key=operator.itemgetter(0))
                for part in (name.encode("utf-8", "surrogatepass"), self._at(place.format(name), value))
            ),
        )

    # Functions

    def _function(self, function: types.FunctionType) -> object:
        defaults = function.__defaults__ or ()
        parameters = (
            function.__code__.co_varnames[: function.__code__.co_argcount][-len(defaults) :] if defaults else ()
        )
        keywords = function.__kwdefaults__ or {}
        closure = zip(function.__code__.co_freevars, map(_content, function.__closure__ or ()), strict=True)
        return (
            "function",
            function.__module__,
            function.__qualname__,
            function.__code__,
            self._named([*zip(parameters, defaults, strict=True), *keywords.items()], "{}"),
            self._named(closure, "{}"),
            self._named(vars(function).items()),
        )

    def _code(self, code: types.CodeType) -> object:
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

    def _partial(self, part: functools.partial[Any]) -> object:
        keywords = self._named(part.keywords.items(), "partial.keywords[{!r}]")
        return "partial", part.func, self._at("partial.args", part.args), keywords

    def _method(self, method: types.MethodType) -> object:
        of = method.__self__
        kind = cast("type[Any]", of) if isinstance(of, type) else kind_of(of)
        return "method", method.__func__, self._at("self", of), _methods_used(kind, method.__func__)

    def _of_c(self, function: Any) -> object:
        of = getattr(function, "__self__", None)
        of = None if isinstance(of, types.ModuleType) else of
        owner = getattr(function, "__objclass__", None)
        name = getattr(function, "__qualname__", function.__name__)
        return "C", str(getattr(function, "__module__", "")), name, owner and type_name(owner), self._at("self", of)

    # Classes and objects

    def _class(self, kind: type[Any]) -> object:
        if _is_of_a_library(kind):
            return "class", type_name(kind)
        made_by = [inspect.getattr_static(kind, name, None) for name in ("__new__", "__init__", "__post_init__")]
        fields: dict[str, Any] = getattr(kind, "__pydantic_fields__", None) or {}
        defaults = [
            (name, field.is_required(), field.is_required() or field.default, field.default_factory)
            for name, field in fields.items()
        ]
        return (
            "class",
            type_name(kind),
            tuple(function for function in made_by if isinstance(function, types.FunctionType)),
            self._data_of_class(kind),
            defaults,
            [(member.name, member.value) for member in cast("Iterable[Any]", kind)] if issubclass(kind, Enum) else None,
        )

    def _data_of_class(self, kind: type[Any]) -> bytes:
        """Return the data attributes of a class and its bases: not the methods, nor what Python adds."""
        data: dict[str, Any] = {}
        for each in reversed(kind.__mro__):
            if not _is_of_a_library(each):
                data |= {name: value for name, value in vars(each).items() if _is_data(name, value)}
        return self._named(data.items(), f".{{}} of {kind.__qualname__}") if data else b""

    def _object(self, value: Any, kind: type[Any]) -> bytes:
        if (tells := getattr(kind, TELLS, None)) is not None:
            return _hash(b"told", *self._each((type_name(kind), tells(value))))
        wrapped = inspect.getattr_static(value, "__wrapped__", None)
        if kind.__name__ in _COMPILED and hasattr(value, "__name__"):
            return _hash(b"compiled", *self._each((str(value.__module__), value.__name__)))
        base = next((base for base in _BASES if isinstance(value, base)), None)
        content = None if base is None else self._content_of(value, base)
        if wrapped is None and not _says_all(kind, base):
            raise Opaque
        call = inspect.getattr_static(kind, "__call__", None)
        used = _methods_used(kind, call)
        call = call if isinstance(call, types.FunctionType) else None
        factory = value.default_factory if isinstance(value, collections.defaultdict) else None
        parts = ("object", type_name(kind), content, factory, call, used)
        opaque = len(self.opaque)
        made = _hash(b"object", *self._each(parts), self._data_of_class(kind), self._attributes(value, _slots(kind)))
        if len(self.opaque) > opaque:  # what it has beside that may be of this process alone, as clients have it
            raise Opaque
        return made

    def _content_of(self, value: Any, base: type[Any]) -> object:
        """Return what a value of a subclass of a built-in type holds as one of that type, whatever the class does."""
        of: Any = base
        if isinstance(value, collections.OrderedDict):
            return list(collections.OrderedDict[Any, Any].items(cast("Any", value)))
        if base is dict:
            return dict(of.items(value))
        if base in {list, tuple, set, frozenset}:
            return of(of.__iter__(value))
        if base is BaseException:
            return value.args
        if base is str:
            return str.__str__(value)
        return bytes(value) if base in {bytes, bytearray} else of.__repr__(value)

    def _rest(self, value: Any, kind: type[Any]) -> bytes:
        """Return what an object of a subclass adds to a value that is described otherwise."""
        if isinstance(value, _DESCRIBED_WHOLLY) or _is_of_a_library(kind):
            return b""
        own = [each for each in kind.__mro__ if not _is_of_a_library(each)]
        slots = [name for name in _slots(kind) if any(name in vars(each) for each in own)]  # others have hashes there
        return _hash(type_name(kind).encode(), self._data_of_class(kind), self._attributes(value, slots))

    def _attributes(self, value: Any, slots: Iterable[str]) -> bytes:
        try:
            found: dict[str, Any] = dict(object.__getattribute__(value, "__dict__"))
        except AttributeError:
            found = {}
        for name in slots:
            try:
                found[name] = object.__getattribute__(value, name)
            except AttributeError:  # a slot that is empty
                continue
        return self._named((str(name), each) for name, each in found.items())

    def _array(self, value: Any, kind: type[Any], numpy: Any) -> bytes:
        if isinstance(value, numpy.dtype):
            return _hash(b"dtype", *self._each((value.descr, value.hasobject)))
        if value.dtype.hasobject or value.nbytes > _BYTES or kind not in {numpy.ndarray, type(value[()])}:
            raise Opaque
        return _hash(b"array", *self._each((type_name(kind), value.dtype.descr, value.shape)), value.tobytes())


def _slots(kind: type[Any]) -> list[str]:
    """Return the names of the slots of a class and its bases, as pickle does."""
    names: Callable[[type[Any]], list[str]] = vars(copyreg)["_slotnames"]
    return names(kind)


def _says_all(kind: type[Any], base: type[Any] | None) -> bool:
    """Whether objects of a class hold only attributes and what one of `base` holds, as pickle sees it."""
    if base is not None:
        return all(
            each is base or each in base.__mro__ or _is_of_python(each) or each in _CONTAINERS for each in kind.__mro__
        )
    size = object.__basicsize__ + _WORD * len(_slots(kind))
    size += _WORD * (kind.__dictoffset__ > 0) + _WORD * (kind.__weakrefoffset__ > 0)
    return not kind.__itemsize__ and kind.__basicsize__ <= size


def _methods_used(kind: type[Any], function: object) -> list[tuple[str, list[types.FunctionType]]]:
    """Find the methods of a class that a function uses by their names, and those that these use: of all classes above.

    A name counts wherever it stands in the code: `self` may be called otherwise.
    """
    used: dict[str, list[types.FunctionType]] = {}
    left = _functions_in(function)
    while left:
        for name in _names_in(left.pop().__code__):
            if name not in used:
                classes = [each for each in kind.__mro__ if name in vars(each) and not _is_of_a_library(each)]
                used[name] = [found for each in classes for found in _functions_in(vars(each)[name])]
                left += used[name]
    return [(name, used[name]) for name in sorted(used) if used[name]]


def _names_in(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names_in(constant)
    return names


def _functions_in(value: object) -> list[types.FunctionType]:
    """Find the functions of an attribute of a class: its own, those of a property, and what a decorator has wrapped."""
    found: list[types.FunctionType] = []
    seen: list[object] = []
    left: list[Any] = [value]
    while left:
        each = left.pop()
        if any(each is other for other in seen) or isinstance(each, type):
            continue
        seen.append(each)
        if isinstance(each, types.FunctionType):
            found.append(each)
            contents = map(_content, each.__closure__ or ())
            left += [content for content in contents if isinstance(content, types.FunctionType)]
        elif isinstance(each, property):
            left += [each.fget, each.fset]
        elif isinstance(each, functools.cached_property | functools.partialmethod):
            left.append(cast("Any", each).func)
        elif isinstance(each, staticmethod | classmethod):
            left.append(cast("Any", each).__func__)
        left.append(inspect.getattr_static(cast("object", each), "__wrapped__", None))
    return found


_CONTAINERS: Final = {collections.OrderedDict, collections.defaultdict}


def _is_of_python(kind: type[Any]) -> bool:
    """Whether a class was made by a `class` statement, or is a built-in exception: these hold only `args`."""
    return issubclass(kind, BaseException) or bool(kind.__flags__ & _HEAP)


_HEAP: Final = 1 << 9


def _is_of_a_library(kind: type[Any]) -> bool:
    return kind.__module__.partition(".")[0] in sys.stdlib_module_names


def _is_data(name: str, value: object) -> bool:
    is_special = name.startswith("__") and name.endswith("__")
    return not (
        is_special or name in _CELLS_OF_CLASSES or isinstance(value, type) or hasattr(kind_of(value), "__get__")
    )


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "empty"


def _hash(kind: bytes, *parts: bytes | int) -> bytes:
    made = blake2b(digest_size=16)
    for part in (kind, *parts):
        content = part if isinstance(part, bytes) else str(part).encode()
        made.update(len(content).to_bytes(8, "little") + content)
    return made.digest()


def _short(key: object) -> str:
    return repr(key)[:40] if kind_of(key) in _SAY_ALL else "..."
