"""Values of steps as bytes, and back as the same types; nothing is pickled.

Beside what `penstock.durable.values` packs: enum members, `Fraction`, dates and times of a `ZoneInfo`, named tuples,
dataclasses and pydantic models. A class is known by its module and name; reading sets fields, and runs no `__init__`.
"""

import dataclasses
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, time
from enum import Enum
from fractions import Fraction
from importlib import import_module
from typing import Any, Final, cast
from zoneinfo import ZoneInfo

from penstock.core.errors import PenstockError
from penstock.core.outcome import Failed, Ok
from penstock.core.text import a
from penstock.durable import values
from penstock.durable.values import PackError, TooDeepError, UnpackError, kind_of
from penstock.flow.results import OutputRefused, PipelineError


class ClassGone(PenstockError):
    """A stored value is of a class that is not there any more, or has other fields; the message names it."""


def packed(value: Any, what: str = "output") -> bytes:
    """Pack `value` into bytes.

    Raises:
        OutputRefused: it cannot be stored; says the place in it, which begins with `what`, and the type there.
    """
    try:
        return values.pack(value, _stand_in)
    except TooDeepError as error:
        holder = a(_called(error.kind))
        raise OutputRefused(f"{what} is {holder} that holds itself, or is nested too deep to be stored") from None
    except PackError as error:
        place, kind = _refused(value, what) or (what, error.kind)
        raise OutputRefused(f"{place} is {a(_called(kind))}, which cannot be stored") from None


def unpacked(content: bytes, hint: Any = None) -> Any:
    """Unpack a value; where its class is gone, that of the type `hint` is taken.

    Raises:
        ClassGone: a class is not there any more, or has other fields.
        UnpackError: the bytes are not those of a value.
    """
    return values.unpack(content, lambda what: _restored(what, hint))


def digest(value: Any) -> bytes:
    """16 bytes that tell `value`, which can be stored, from others."""
    return values.digest(value, _stand_in)


def _stand_in(value: Any) -> Any:
    for form in _FORMS:
        if form.knows(value):
            return form.letter, form.name(value), form.content(value)
    raise PackError(kind_of(value))


def _restored(what: Any, hint: Any) -> Any:
    match what:
        case (str(letter), str(name), content) if letter in _BY_LETTER:
            return _BY_LETTER[letter].restored(name, content, hint)
        case _:
            raise ValueError("it has what stands for nothing")


def _called(kind: type[Any]) -> str:
    return kind.__name__


def _refused(value: Any, place: str, deep: int = 0) -> tuple[str, type[Any]] | None:
    """Return the place in `value` that cannot be stored, and its type; None if there is none, or only far down."""
    if deep > _DEEPEST:
        return place, kind_of(value)
    try:
        values.pack(value, _stand_in)
    except PackError:
        for name, part in _parts(value):
            if (found := _refused(part, f"{place}{name}", deep + 1)) is not None:
                return found
        return place, kind_of(value)
    return None


_DEEPEST: Final = 50
"""Places one within the other that are looked into for what cannot be stored."""


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Give what is in a value that has parts, with how each is reached."""
    kind = kind_of(value)
    if kind is dict:
        for key, part in value.items():
            yield f"[{key!r}]", key
            yield f"[{key!r}]", part
    elif kind in {list, tuple}:
        for number, part in enumerate(value):
            yield f"[{number}]", part
    elif kind in {set, frozenset}:
        for part in value:
            yield "{...}", part
    else:
        for form in _FORMS:
            if form.knows(value):
                content = form.content(value)
                fields = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
                for name, part in fields.items():
                    yield f".{name}", part


class _ValueForm:
    """A kind of value that something stands for: its letter, and how it is taken apart and put together."""

    letter: str

    def knows(self, value: Any) -> bool:
        """Whether `value` is of this kind."""
        raise NotImplementedError

    def name(self, value: Any) -> str:
        """Return the class of `value`; `PackError` if it could not be found again."""
        return _name_of_class(kind_of(value))

    def content(self, value: Any) -> Any:
        """Return what there is to store."""
        raise NotImplementedError

    def restored(self, name: str, content: Any, hint: Any) -> Any:
        """Return the value."""
        raise NotImplementedError


class _Enum(_ValueForm):
    letter = "enum"

    def knows(self, value: Any) -> bool:
        return issubclass(kind_of(value), Enum)

    def content(self, value: Any) -> Any:
        kind: Any = kind_of(value)
        return value.name if value.name in kind.__members__ else [value.value]

    def restored(self, name: str, content: Any, hint: Any) -> Any:
        kind = _found(name, lambda kind: issubclass(kind, Enum), hint)
        try:
            return kind(*content) if isinstance(content, list) else kind[content]  # a list: of a combination of flags
        except (KeyError, ValueError):
            raise ClassGone(f"class {name} has no member {content!r}") from None


class _Named(_ValueForm):
    letter = "named"

    def knows(self, value: Any) -> bool:
        return issubclass(kind_of(value), tuple) and hasattr(value, "_fields")

    def content(self, value: Any) -> Any:
        names: tuple[str, ...] = value._fields
        return dict(zip(names, value, strict=True))

    def restored(self, name: str, content: Any, hint: Any) -> Any:
        kind = _found(name, _is_named, hint)
        defaults = kind._field_defaults
        found = _completed(name, content, kind._fields, lambda field: (field in defaults, defaults.get(field)))
        return cast("Any", tuple).__new__(kind, (found[field] for field in kind._fields))


def _is_named(kind: Any) -> bool:
    return issubclass(kind, tuple) and hasattr(cast("Any", kind), "_fields")


class _Data(_ValueForm):
    letter = "data"

    def knows(self, value: Any) -> bool:
        return dataclasses.is_dataclass(kind_of(value)) and not issubclass(kind_of(value), _BUILT_IN)

    def content(self, value: Any) -> Any:
        try:
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        except AttributeError:  # a field was never set
            raise PackError(kind_of(value)) from None

    def restored(self, name: str, content: Any, hint: Any) -> Any:
        kind = _found(name, dataclasses.is_dataclass, hint)
        fields = {field.name: field for field in dataclasses.fields(kind)}

        def default(name: str) -> tuple[bool, Any]:
            field = fields[name]
            if field.default is not dataclasses.MISSING:
                return True, field.default
            if field.default_factory is not dataclasses.MISSING:
                return True, field.default_factory()
            return False, None

        value = object.__new__(kind)
        for field, part in _completed(name, content, fields, default).items():
            object.__setattr__(value, field, part)
        return value


class _PydanticModel(_ValueForm):
    letter = "model"

    def knows(self, value: Any) -> bool:
        pydantic = sys.modules.get("pydantic")
        return pydantic is not None and issubclass(kind_of(value), pydantic.BaseModel)

    def content(self, value: Any) -> Any:
        extra: dict[str, Any] = value.__pydantic_extra__ or {}
        fields: dict[str, Any] = value.__dict__
        return {**fields, **extra}

    def name(self, value: Any) -> str:
        if value.__pydantic_private__:  # what they hold is the model's own affair
            raise PackError(kind_of(value))
        return super().name(value)

    def restored(self, name: str, content: Any, hint: Any) -> Any:
        kind = _found(name, lambda kind: hasattr(kind, "__pydantic_fields__"), hint)
        fields = kind.model_fields
        allows = kind.model_config.get("extra") == "allow"
        known = {key: part for key, part in content.items() if key in fields or not allows}

        def default(field: str) -> tuple[bool, Any]:
            info = fields[field]
            return not info.is_required(), info.get_default(call_default_factory=True)

        value = kind.__new__(kind)
        value.__setstate__(
            {
                "__dict__": _completed(name, known, fields, default),
                "__pydantic_extra__": {key: part for key, part in content.items() if key not in known}
                if allows
                else None,
                "__pydantic_fields_set__": set(content),
                "__pydantic_private__": None,
            }
        )
        return value


class _Plainly(_ValueForm):
    """Values of one class, which are made of others by a function."""

    def __init__(self, letter: str, kind: type[Any], content: Callable[[Any], Any], made: Callable[[Any], Any]) -> None:
        self.letter = letter
        self._kind = kind
        self._content = content
        self._made = made

    def knows(self, value: Any) -> bool:
        return kind_of(value) is self._kind

    def name(self, value: Any) -> str:  # noqa: ARG002 -- of its class there is nothing to say
        return ""

    def content(self, value: Any) -> Any:
        return self._content(value)

    def restored(self, name: str, content: Any, hint: Any) -> Any:  # noqa: ARG002 -- as above
        return self._made(content)


def _zoned(value: Any) -> Any:
    zone = value.tzinfo
    if type(zone) is not ZoneInfo or not zone.key:
        raise PackError(kind_of(value if zone is None else zone))
    return [value.replace(tzinfo=None).isoformat(), zone.key, value.fold]


def _failed(content: Any) -> Failed:
    return Failed(*content)


_BUILT_IN: Final = (dict, list, set, frozenset, tuple, str, bytes, int, float, BaseException)
"""Types whose content is not in fields."""

_FORMS: Final[tuple[_ValueForm, ...]] = (
    _Enum(),
    _Plainly("ok", Ok, lambda value: [value.value, value.index], lambda content: Ok(*content)),
    _Plainly(
        "failed",
        Failed,
        lambda value: [value.error, value.index, value.item, value.stage, value.attempts],
        _failed,
    ),
    _Plainly(
        "error",
        PipelineError,
        lambda value: [value.code, value.step, str(value)],
        lambda content: PipelineError(*content),
    ),
    _Plainly("fraction", Fraction, str, Fraction),
    _Plainly(
        "datetime",
        datetime,
        _zoned,
        lambda content: datetime.fromisoformat(content[0]).replace(tzinfo=ZoneInfo(content[1]), fold=content[2]),
    ),
    _Plainly(
        "time",
        time,
        _zoned,
        lambda content: time.fromisoformat(content[0]).replace(tzinfo=ZoneInfo(content[1]), fold=content[2]),
    ),
    _Named(),
    _Data(),
    _PydanticModel(),
)
_BY_LETTER: Final = {form.letter: form for form in _FORMS}


def _completed(
    name: str, content: Any, fields: typing.Iterable[str], default: Callable[[str], tuple[bool, Any]]
) -> Mapping[str, Any]:
    """Return what was stored by field, with defaults for fields that are new."""
    stored = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
    known = list(fields)
    if unknown := [field for field in stored if field not in known]:
        raise ClassGone(f"class {name} has no field {unknown[0]!r} any more, which is stored")
    found: dict[str, Any] = {}
    for field in known:
        if field in stored:
            found[field] = stored[field]
            continue
        has_default, value = default(field)
        if not has_default:
            raise ClassGone(f"class {name} has a field {field!r} without a default, which is not stored")
        found[field] = value
    return found


def _name_of_class(kind: type[Any]) -> str:
    module = sys.modules.get(kind.__module__)
    if module is None or _inner(module, kind.__qualname__) is not kind:  # of a function, or another one has its name
        raise PackError(kind)
    return f"{kind.__module__}:{kind.__qualname__}"


def _inner(module: Any, name: str) -> Any:
    found = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _found(name: str, is_one: Callable[[Any], bool], hint: Any) -> Any:
    """Return the class of that name; if it is gone, the one that `hint` has for it."""
    place, _, inside = name.partition(":")
    module = sys.modules.get(place)
    if module is None:
        with suppress(ImportError, ValueError):
            module = import_module(place)
    kind = _inner(module, inside)
    if isinstance(kind, type) and is_one(kind):
        return kind
    candidates = [each for each in _classes(hint, set()) if is_one(each)]
    same = [each for each in candidates if each.__qualname__ == inside]
    if same or len(candidates) == 1:
        return (same or candidates)[0]
    raise ClassGone(f"class {name} is not there")


def _classes(hint: Any, seen: set[Any]) -> Iterator[type[Any]]:
    """Give the classes that a type is made of, also those of the fields of dataclasses."""
    if isinstance(hint, typing.TypeAliasType):
        yield from _classes(hint.__value__, seen)
        return
    for part in typing.get_args(hint):
        yield from _classes(part, seen)
    kind: Any = typing.get_origin(hint) or hint
    if not isinstance(kind, type) or kind in seen:
        return
    seen.add(kind)
    yield kind
    if _has_fields(kind):
        with suppress(Exception):  # annotations are code of the user
            for part in typing.get_type_hints(cast("Any", kind)).values():
                yield from _classes(part, seen)


def _has_fields(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind) or hasattr(kind, "_fields") or hasattr(kind, "__pydantic_fields__")


__all__ = ["ClassGone", "UnpackError", "digest", "packed", "unpacked"]
