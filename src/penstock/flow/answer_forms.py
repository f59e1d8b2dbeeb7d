"""What the answer of a model has to be: JSON that fits a schema, or a model of pydantic."""

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast, override

from penstock.core.errors import OptionError, PenstockError
from penstock.core.text import one_line, shown
from penstock.exports import naming_extras

type Schema = Mapping[str, Any] | str | os.PathLike[str] | type[Any]
"""The option `schema`: a JSON schema, or the path of a file with one, or a model of pydantic."""

_FENCED: Final = re.compile(r"```[\w-]*[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_QUOTED: Final = 500
"""Characters of a reason, which the model is told, too."""


class AnswerError(PenstockError):
    """An answer of a model does not fit what was asked for.

    Attributes:
        answer: the text of the answer, as it came; a note of the error has it, too.
        reason: what does not fit.
    """

    def __init__(self, answer: str, reason: str) -> None:
        super().__init__(f"the answer does not fit: {reason}")
        self.answer: str = answer
        self.reason: str = reason
        self.add_note(f"penstock: the answer was: {answer}")

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.answer, self.reason), {"__notes__": self.__notes__}


class AnswerForm(ABC):
    """What an answer has to be.

    Attributes:
        schema: the JSON schema, which the model is told.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema: Mapping[str, Any] = schema

    @abstractmethod
    def check(self, value: Any) -> Any:
        """Return what a value of JSON is in this form; raise `ValueError` that says why it does not fit."""

    @property
    def instruction(self) -> str:
        """What the model is told beside the prompt."""
        return f"Answer with JSON that fits this JSON schema, and with nothing else:\n{_written(self.schema)}"

    def read(self, answer: str) -> Any:
        """Return the value of an answer; raise `AnswerError` if it does not fit."""
        try:
            value = json.loads(_bare(answer), parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise AnswerError(answer, f"it is not JSON: {one_line(str(error), _QUOTED)}") from None
        try:
            return self.check(value)
        except OptionError:  # of the schema
            raise
        except ValueError as error:
            raise AnswerError(answer, one_line(str(error), _QUOTED)) from None


class _BySchema(AnswerForm):
    """A value that fits a JSON schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        with naming_extras("schema", {"jsonschema": "schema"}):
            import jsonschema  # type: ignore[import-untyped]  # noqa: PLC0415 -- an extra; it has no types
            import referencing  # noqa: PLC0415 -- comes with it
        of: Any = jsonschema
        registry: Any = referencing
        kind = of.validators.validator_for(schema, default=of.Draft202012Validator)
        try:
            kind.check_schema(schema)
        except of.SchemaError as error:
            raise OptionError(f"schema must be a JSON schema, got {shown(schema)}: {one_line(error.message)}") from None
        super().__init__(schema)
        self._validator = kind(schema, registry=registry.Registry())  # which fetches nothing
        self._best = of.exceptions.best_match
        self._unresolvable: type[Exception] = registry.exceptions.Unresolvable

    @override
    def check(self, value: Any) -> Any:
        try:
            found = self._best(self._validator.iter_errors(value))
        except self._unresolvable as error:
            raise OptionError(f"schema must have what it refers to: {one_line(str(error))}") from None
        if found is not None:
            raise ValueError(f"at {found.json_path}: {found.message}")
        return value


class _ByModel(AnswerForm):
    """A value of a model of pydantic."""

    def __init__(self, model: Any) -> None:
        super().__init__(model.model_json_schema())
        self._model = model

    @override
    def check(self, value: Any) -> Any:
        try:
            return self._model.model_validate_json(json.dumps(value))
        except ValueError as error:
            found = cast("Any", error)
            if not hasattr(found, "errors"):
                raise
            each = found.errors(include_url=False, include_context=False, include_input=False)[0]
            place = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in each["loc"])
            raise ValueError(f"at ${place}: {each['msg']}") from None


def form_of(schema: object) -> AnswerForm | None:
    """Return the form that the option `schema` asks for.

    Raises:
        OptionError: it is no schema.
        ModuleNotFoundError: jsonschema is missing; the message says which extra installs it.
    """
    if schema is None:
        return None
    if isinstance(schema, type) and callable(getattr(schema, "model_json_schema", None)):
        return _ByModel(schema)
    if isinstance(schema, str | os.PathLike):
        schema = _in_file(os.fspath(cast("str | os.PathLike[str]", schema)))
    if not isinstance(schema, Mapping):
        raise OptionError(
            f"schema must be a JSON schema (a dict, or the path of a file) or a model of pydantic, got {shown(schema)}"
        )
    return _BySchema(cast("Mapping[str, Any]", schema))


def _in_file(path: str) -> object:
    try:
        found: object = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise OptionError(f"schema must be in a file that can be read, got {path!r}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise OptionError(f"schema must be in a file of JSON, got {path!r}: {one_line(str(error), 200)}") from None
    if not isinstance(found, dict):
        raise OptionError(f"schema must be a JSON object, got {shown(found)} in {path!r}")
    return cast("object", found)


def _bare(answer: str) -> str:
    """Return the JSON of an answer: models like to put a fence of Markdown round it."""
    answer = answer.strip()
    if answer[:1] in {"{", "["}:
        return answer
    fenced = _FENCED.findall(answer)
    return fenced[0] if len(fenced) == 1 else answer


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _written(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema, ensure_ascii=False)
