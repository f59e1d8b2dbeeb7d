"""Texts with the columns of a row in them, `Classify: {text}`: filled in for each row. Nothing is evaluated."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast, override

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.flow.json_values import as_json
from penstock.flow.templates import Filled, Reference

_COLUMN: Final = re.compile(r"\{\{([^{}\"':,\n]+)\}\}|\{([^{}\"':,\n]+)\}")
"""A column in braces; in double braces it stands for itself. All other braces, as those of JSON, are text."""

_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class RowTemplate(Filled):
    """A text with columns in it.

    Attributes:
        text: as it was given.
        columns: those that it needs, in their order.
        pieces: texts and columns, in turn: a text first.
    """

    text: str
    columns: tuple[str, ...]
    pieces: tuple[str, ...]

    @override
    def source(self) -> str:
        return self.text

    @override
    def references(self) -> Iterator[Reference]:
        return iter(())

    @override
    def fill(self, value: Any, outputs: Mapping[str, Any]) -> str:
        row = cast("Mapping[str, Any]", value if isinstance(value, Mapping) else {"value": value})
        made: list[str] = []
        for number, piece in enumerate(self.pieces):
            if number % 2 == 0:
                made.append(piece)
            elif piece in row:
                made.append(_written(row[piece]))
            else:
                names = ", ".join(map(repr, list(row)[:_SHOWN])) or "none"
                raise OptionError(f"the prompt needs the column {piece!r}, which the row has not: it has {names}")
        return "".join(made)

    @override
    def __call__(self, value: Any) -> str:
        return self.fill(value, {})


def template(text: str, /) -> RowTemplate:
    """Make a function of a row that fills its columns into a text, for `prompt`.

    `{name}` is the value of the column of that name: a text as it is, all else as JSON. `{{name}}` is `{name}` itself.
    All other braces stay. A row that is no mapping has the column `value`.

    Raises:
        OptionError: `text` is no str. When it is called: the row has no such column.
    """
    validate.instance("text", text, str, "a str")
    pieces = [""]
    at = 0
    for found in _COLUMN.finditer(text):
        pieces[-1] += text[at : found.start()]
        at = found.end()
        if found[1] is not None:
            pieces[-1] += f"{{{found[1]}}}"
        else:
            pieces += [found[2].strip(), ""]
    pieces[-1] += text[at:]
    return RowTemplate(text, tuple(dict.fromkeys(pieces[1::2])), tuple(pieces))


def _written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(as_json(value), ensure_ascii=False)
