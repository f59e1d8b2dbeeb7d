"""Values as JSON writes them, for texts and for the command line."""

import dataclasses
import math
from collections.abc import Mapping
from datetime import date, time
from enum import Enum
from typing import Any, cast


def as_json(value: object) -> Any:
    """Return `value` made of what JSON has: a dataclass as an object, a date in its ISO form; of all else its `str`."""
    if isinstance(value, Enum):
        return as_json(value.value)
    if isinstance(value, Mapping):
        return {_key(key): as_json(each) for key, each in cast("Mapping[object, object]", value).items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return _scalar(value) if value is None or isinstance(value, bool | str | int | float) else _other(value)


def _scalar(value: float | str | None) -> Any:
    """Return it as its plain type; what JSON has no number for as a text."""
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    return float(value) if math.isfinite(value) else str(value)


def _other(value: object) -> Any:
    names = cast("tuple[str, ...] | None", getattr(value, "_fields", None))  # of a named tuple
    if names is not None:
        return {name: as_json(getattr(value, name)) for name in names}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_json(each) for each in cast("list[object]", value)]
    if isinstance(value, date | time):
        return value.isoformat()
    dump = getattr(value, "model_dump", None)  # of pydantic
    if callable(dump) and hasattr(type(value), "model_fields"):
        return as_json(dump())
    to_list = getattr(value, "tolist", None)  # of numpy
    if callable(to_list) and hasattr(value, "dtype"):
        return as_json(to_list())
    return str(value)


def _key(key: object) -> str:
    made = as_json(key)
    return made if isinstance(made, str) else str(made).lower() if isinstance(made, bool) else str(made)
