"""JSON read as values of a type: a dataclass from an object, a date from its ISO form."""

import dataclasses
import inspect
import types
from collections.abc import Collection, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import (
    Annotated,
    Any,
    Literal,
    TypeAliasType,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)
from uuid import UUID

from penstock.core.errors import OptionError
from penstock.core.text import a, named, one_line

_FROM_TEXT = (date, datetime, time)
_CALLED: dict[type[Any], str] = {bool: "true or false", int: "a whole number"}
_OF_TEXT = (Decimal, Fraction, UUID, complex)


def read_as(document: Any, kind: Any, place: str = "value") -> Any:  # noqa: C901, PLR0911 -- a case each
    """Return `document` as a value of `kind`; None and Any take what comes.

    Raises:
        OptionError: it is none; the message says the place.
    """
    if kind is Any:
        return document
    if isinstance(kind, TypeAliasType):
        return read_as(document, kind.__value__, place)
    origin = get_origin(kind)
    if origin is Annotated:
        return read_as(document, get_args(kind)[0], place)
    if origin is Union or isinstance(kind, types.UnionType):
        return _one_of(document, get_args(kind), place)
    if origin is Literal:
        if document not in get_args(kind):
            raise _refused(document, place, " or ".join(map(repr, get_args(kind))))
        return document
    if kind is None or kind is type(None):
        if document is not None:
            raise _refused(document, place, "null")
        return None
    whole: Any = origin or kind
    if not inspect.isclass(origin or kind) or whole is object:
        return document
    kind_of: type[Any] = whole
    if issubclass(whole, list | tuple | set | frozenset):
        return _collection(document, kind_of, get_args(kind), place)
    if _has_fields(whole):
        return _record(document, whole, place)
    if issubclass(whole, Mapping):
        return _mapping(document, get_args(kind), place)
    return _scalar(document, whole, place)


def read_like(document: Any, old: Any, place: str = "value") -> Any:
    """Return `document` as a value like `old`, which it replaces."""
    if old is None:
        return document
    if type(old) in {list, tuple, set, frozenset}:
        like = next(iter(cast("Collection[object]", old)), None)
        items = [read_like(each, like, f"{place}[{number}]") for number, each in enumerate(_items(document, place))]
        return type(old)(items)
    if type(old) is dict:
        like = next(iter(cast("dict[str, object]", old).values()), None)
        return {key: read_like(each, like, f"{place}.{key}") for key, each in _object(document, place).items()}
    if type(old) is int and isinstance(document, float):
        return document
    return read_as(document, cast("Any", type(old)), place)


def _has_fields(whole: Any) -> bool:
    return is_typeddict(whole) or dataclasses.is_dataclass(whole) or hasattr(whole, "model_validate")


def _refused(document: object, place: str, wanted: str) -> OptionError:
    return OptionError(f"{place} must be {wanted}, got {named(document, 100)}")


def _items(document: object, place: str) -> list[Any]:
    if not isinstance(document, list):
        raise _refused(document, place, "a list")
    return cast("list[Any]", document)


def _object(document: object, place: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise _refused(document, place, "an object")
    return cast("dict[str, Any]", document)


def _one_of(document: Any, kinds: tuple[Any, ...], place: str) -> Any:
    refused: list[OptionError] = []
    exact = [kind for kind in kinds if isinstance(kind, type) and type(document) is kind]
    for kind in (*exact, *kinds):
        try:
            return read_as(document, kind, place)
        except OptionError as error:
            refused.append(error)
    raise refused[0]


def _collection(document: Any, whole: type[Any], kinds: tuple[Any, ...], place: str) -> Any:
    names = getattr(whole, "_fields", None)
    if names is not None:
        return _named_tuple(document, whole, names, place)
    items = _items(document, place)
    made: Any = whole
    if issubclass(whole, tuple) and kinds and kinds[-1] is not Ellipsis:
        if len(items) != len(kinds):
            raise _refused(document, place, f"a list of {len(kinds)}")
        return tuple(
            read_as(each, kind, f"{place}[{number}]")
            for number, (each, kind) in enumerate(zip(items, kinds, strict=True))
        )
    kind = kinds[0] if kinds else Any
    return made(read_as(each, kind, f"{place}[{number}]") for number, each in enumerate(items))


def _named_tuple(document: Any, whole: type[Any], names: tuple[str, ...], place: str) -> Any:
    hints = _hints(whole)
    given = dict(zip(names, cast("list[Any]", document), strict=False)) if isinstance(document, list) else document
    read = {
        name: read_as(each, hints.get(name, Any), f"{place}.{name}") for name, each in _object(given, place).items()
    }
    return _built(whole, read, place)


def _mapping(document: Any, kinds: tuple[Any, ...], place: str) -> Any:
    key, kind = kinds if len(kinds) == 2 else (Any, Any)  # noqa: PLR2004 -- of keys and values
    return {
        _key(name, key, place): read_as(each, kind, f"{place}.{name}")
        for name, each in _object(document, place).items()
    }


def _key(name: str, kind: Any, place: str) -> Any:
    return int(name) if kind is int and name.lstrip("-").isdigit() else read_as(name, kind, f"{place}.{name}")


def _record(document: Any, whole: type[Any], place: str) -> Any:
    given = _object(document, place)
    validating = getattr(whole, "model_validate", None)
    if validating is not None:
        try:
            return validating(given)
        except ValueError as error:
            raise OptionError(f"{place}: {one_line(str(error), 300)}") from None
    hints = _hints(whole)
    if is_typeddict(whole):
        return {name: read_as(each, hints.get(name, Any), f"{place}.{name}") for name, each in given.items()}
    names = [field.name for field in dataclasses.fields(whole) if field.init]
    for name in given:
        if name not in names:
            raise OptionError(f"{place} has no field {name!r}: there are {', '.join(map(repr, names))}")
    return _built(whole, {name: read_as(each, hints[name], f"{place}.{name}") for name, each in given.items()}, place)


def _built(whole: type[Any], fields: dict[str, Any], place: str) -> Any:
    try:
        inspect.signature(whole).bind(**fields)
    except TypeError as error:
        raise OptionError(f"{place}: {error}") from None
    try:
        return whole(**fields)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{place}: {one_line(str(error), 300)}") from None


def _hints(whole: type[Any]) -> dict[str, Any]:
    try:
        return get_type_hints(whole, include_extras=True)
    except Exception:  # noqa: BLE001 -- annotations are code of the user
        return dict.fromkeys(whole.__annotations__, Any)


def _scalar(document: Any, whole: type[Any], place: str) -> Any:  # noqa: C901, PLR0911 -- as above
    if issubclass(whole, Enum):
        return _member(document, whole, place)
    if whole is bool or issubclass(whole, str) or whole is int:
        if type(document) is not (whole if whole in {bool, int} else str):
            raise _refused(document, place, _CALLED.get(whole, "a text"))
        return document if whole in {bool, int, str} else whole(document)
    if whole is float:
        if isinstance(document, bool) or not isinstance(document, int | float):
            raise _refused(document, place, "a number")
        return float(document)
    if whole is timedelta and isinstance(document, int | float):
        return timedelta(seconds=document)
    if whole is bytes and isinstance(document, str):
        return document.encode()
    try:
        if issubclass(whole, _FROM_TEXT) and isinstance(document, str):
            return whole.fromisoformat(document)
        if issubclass(whole, (*_OF_TEXT, PurePath)) and isinstance(document, str | int | float):
            return whole(str(document))
    except (ValueError, ArithmeticError):
        pass
    raise _refused(document, place, a(whole.__name__))


def _member(document: Any, whole: type[Enum], place: str) -> Enum:
    for member in whole:
        if document in (member.value, member.name):
            return member
    raise _refused(document, place, f"one of {', '.join(repr(member.value) for member in whole)}")
