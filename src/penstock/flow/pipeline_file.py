"""Pipelines in YAML files. Read are PyYAML's nodes, each as its key wants it; mistakes are told with their place.

A `_Spot` is a node of a file with its place, and says of itself what it is to be. The `_Builder` knows the keys.
"""

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from os import PathLike, fspath
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NoReturn, cast

from penstock.core import validate
from penstock.core.errors import OptionError, PenstockError
from penstock.core.retry import Retry
from penstock.core.text import named, one_line
from penstock.exports import naming_extras
from penstock.flow.anthropic_messages import AnthropicMessages
from penstock.flow.commands import command
from penstock.flow.function import step
from penstock.flow.models import Model, transient
from penstock.flow.openai_chat import OpenAIChat
from penstock.flow.pipeline import Pipeline
from penstock.flow.prompts import prompt
from penstock.flow.secrets import EnvSecret, secret
from penstock.flow.shapes import parallel, review
from penstock.flow.steps import Step, checked_name, refuses_unknown
from penstock.flow.templates import Malformed, Reference, Template, Words, parsed
from penstock.flow.trigger import Cron, Event, Trigger

_MOST_NODES: Final = 100_000
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_DECIMAL: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)", re.ASCII)


class FileError(PenstockError):
    """A file of a pipeline has a mistake: `PATH:LINE:COLUMN: what is wrong`.

    Attributes:
        path: the path, as it was given.
        line: from 1; 0: the file cannot be read.
        column: from 1.
    """

    def __init__(self, path: str, line: int, column: int, message: str) -> None:
        super().__init__(f"{path}:{line}:{column}: {message}" if line else f"{path}: {message}")
        self.path = path
        self.line = line
        self.column = column


@refuses_unknown
def load(path: str | PathLike[str], /) -> Pipeline[Any, Any]:
    """Read the pipeline in a YAML file; docs/pipelines.md has the keys.

    Modules that it names are imported; the directory of the file is looked in first, from then on.

    Raises:
        FileError: the file cannot be read, or has a mistake; the message says where.
        OptionError: `path` is no path.
        ModuleNotFoundError: PyYAML is not installed; the message says how to install it.
    """
    name = validate.path("path", fspath(path) if isinstance(path, PathLike) else path)
    root = _composed(name)
    directory = Path(name).absolute().parent
    built = _Builder(directory).pipeline(root)
    return built.read_from(str(Path(name).absolute()))


def _composed(name: str) -> "_Spot":
    """Read a file, and return its root."""
    with naming_extras("penstock.flow.load", {"yaml": "flow"}):
        import yaml  # noqa: PLC0415 -- an extra
    try:
        content = Path(name).read_bytes()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise FileError(name, 0, 0, f"the file cannot be read: {why}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _place_after(content[: error.start].decode("utf-8-sig", errors="replace"))
        raise FileError(name, line, column, "the file is no UTF-8") from None
    try:
        found: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(filter(None, (error.context, error.problem)))
        at = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
        raise FileError(name, *at, f"the file is no YAML: {one_line(what, 300)}") from None
    except yaml.YAMLError as error:
        at = _place_after(text[: getattr(error, "position", 0)])
        raise FileError(name, *at, f"the file is no YAML: {getattr(error, 'reason', error)}") from None
    except RecursionError:
        raise FileError(name, 1, 1, "the file is nested too deeply") from None
    if found is None:
        raise FileError(name, 1, 1, "the file is empty: it must be a mapping with pipeline and steps")
    return _Spot(name, found, (), [0])


def _place_after(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


class _Spot:
    """A node of a file at its place, with what it is called in messages."""

    def __init__(self, path: str, node: Any, above: tuple[int, ...], count: list[int], label: str = "the file") -> None:
        self._path = path
        self._node = node
        self._above = (*above, id(node))
        self._count = count
        self.label = label
        count[0] += 1
        if id(node) in above or count[0] > _MOST_NODES:
            self.fail("aliases lead in a circle, or make the file larger than it may be")

    def fail(self, message: str) -> NoReturn:
        """Raise a `FileError` with this place."""
        mark = self._node.start_mark
        raise FileError(self._path, mark.line + 1, mark.column + 1, message)

    def _below(self, node: Any, label: str) -> "_Spot":
        return _Spot(self._path, node, self._above, self._count, label)

    @property
    def got(self) -> str:
        """What stands here, for a message."""
        if self._node.id == "sequence":
            return "a list"
        if self._node.id == "mapping":
            return "a mapping"
        return "nothing" if self.is_empty else named(self._node.value, 60)

    @property
    def is_empty(self) -> bool:
        """Whether nothing stands here."""
        return self._node.id == "scalar" and self._node.value == "" and self._node.style is None

    @property
    def is_mapping(self) -> bool:
        """Whether it is a mapping."""
        return bool(self._node.id == "mapping")

    def items(self) -> "list[_Spot]":
        """Return its items; it must be a list."""
        if self._node.id != "sequence":
            self.fail(f"{self.label} must be a list, got {self.got}")
        return [self._below(each, f"an item of {self.label}") for each in self._node.value]

    def mapping(self, what: str = "") -> "dict[str, tuple[_Spot, _Spot]]":
        """Return its keys and values by key; it must be a mapping, without a key that stands twice."""
        if self._node.id != "mapping":
            self.fail(f"{what or self.label} must be a mapping, got {self.got}")
        found: dict[str, tuple[_Spot, _Spot]] = {}
        for key, value in self._node.value:
            name = self._below(key, "a key").text()
            ours = self._below(key, name), self._below(value, name)
            if name in found:
                ours[0].fail(f"the key {named(name, 60)} stands twice")
            found[name] = ours
        return found

    def fields(self, known: Iterable[str], required: Iterable[str] = (), what: str = "") -> "dict[str, _Spot]":
        """Return its values by key, if all keys are known and those that are required are there."""
        found = self._unknown_first(known, what)
        for name in required:
            if name not in found:
                self.fail(f"{what or self.label} must have the key {name!r}")
        return {name: value for name, (_, value) in found.items()}

    def _unknown_first(self, known: Iterable[str], what: str) -> "dict[str, tuple[_Spot, _Spot]]":
        names = sorted(known)
        if self._node.id == "mapping":
            for key, _ in self._node.value:
                if key.id != "scalar" or key.value not in names:
                    given = key.value if key.id == "scalar" else "?"
                    near = get_close_matches(given, names, n=1, cutoff=0.5)
                    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
                    of = f" of {what}" if what else ""
                    self._below(key, "a key").fail(f"unknown key {named(given, 60)}{of}: {hint}")
        return self.mapping(what)

    def text(self, *, empty: bool = False) -> str:
        """Return the text that stands here, unchanged."""
        if self._node.id != "scalar":
            self.fail(f"{self.label} must be a text, got {self.got}")
        if not empty and self._node.value == "":
            self.fail(f"{self.label} must be a text, got {self.got}")
        return str(self._node.value)

    def integer(self) -> int:
        """Return it as a whole number."""
        if self._node.id != "scalar" or not _INTEGER.fullmatch(self._node.value):
            self.fail(f"{self.label} must be a whole number, got {self.got}")
        return int(self._node.value)

    def number(self) -> float:
        """Return it as a decimal number."""
        if self._node.id != "scalar" or not _DECIMAL.fullmatch(self._node.value):
            self.fail(f"{self.label} must be a number, got {self.got}")
        return float(self._node.value)

    def flag(self) -> bool:
        """Return it as a truth value."""
        if self._node.id != "scalar" or self._node.value not in {"true", "false"}:
            self.fail(f"{self.label} must be true or false, got {self.got}")
        return bool(self._node.value == "true")

    def choice(self, *choices: str) -> str:
        """Return it, if it is one of these."""
        if self._node.id != "scalar" or self._node.value not in choices:
            self.fail(f"{self.label} must be {' or '.join(choices)}, got {self.got}")
        return str(self._node.value)

    def json(self) -> Any:
        """Return it as JSON has it; a text may stand without quotes."""
        if self._node.id == "sequence":
            return [each.json() for each in self.items()]
        if self._node.id == "mapping":
            return {name: value.json() for name, (_, value) in self.mapping().items()}
        if self._node.style is not None:
            return self._node.value
        if self.is_empty:
            return None
        try:
            return json.loads(self._node.value, parse_constant=_no_constant)
        except ValueError:
            return self._node.value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


@dataclass(frozen=True, slots=True)
class _Before:
    """Where a step stands: the names of those before it, here and around."""

    before: frozenset[str] = frozenset()


_TRIES: Final = frozenset({"retry", "timeout", "memo", "on_interrupted"})
_KINDS: Final[Mapping[str, tuple[frozenset[str], tuple[str, ...]]]] = {
    "python": (_TRIES, ()),
    "run": (_TRIES | {"stdin", "env", "cwd", "ok", "grace", "max_output"}, ()),
    "prompt": (_TRIES | {"model", "system", "max_tokens", "parse", "schema", "asks"}, ("model",)),
    "parallel": (frozenset({"concurrency"}), ()),
    "map": (frozenset({"concurrency", "on_error"}), ()),
    "loop": (frozenset({"until", "max_rounds"}), ("until", "max_rounds")),
    "branch": (frozenset({"choose", "otherwise"}), ("choose",)),
    "review": (frozenset({"check"}), ()),
    "steps": (frozenset(), ()),
}
"""The kinds of steps, each with its options and those that it must have."""

_ALL: Final = frozenset({"name", *_KINDS}).union(*(options for options, _ in _KINDS.values()))


class _Builder:
    """Makes a pipeline of the nodes of a file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._models: dict[str, Model] = {}

    def pipeline(self, root: _Spot) -> Pipeline[Any, Any]:
        """Build the pipeline of the file."""
        fields = root.fields(("pipeline", "trigger", "models", "steps"), ("pipeline", "steps"))
        name = self._name(fields["pipeline"])
        trigger = self._trigger(fields["trigger"]) if "trigger" in fields else "manual"
        if "models" in fields:
            self._models = {name: self._model(node) for name, (_, node) in fields["models"].mapping().items()}
        return Pipeline(name, self._steps(fields["steps"], _Before()), trigger=trigger)

    def _name(self, node: _Spot) -> str:
        try:
            return checked_name(node.text(), node.label)
        except OptionError as error:
            node.fail(str(error))

    def _trigger(self, node: _Spot) -> Trigger:
        fields = node.fields(("cron", "event"))
        if len(fields) != 1:
            node.fail(f"trigger must have one key, cron or event, got {len(fields)}")
        ((kind, value),) = fields.items()
        return Cron(value.text()) if kind == "cron" else Event(value.text())

    def _model(self, node: _Spot) -> Model:
        options = ("key", "base_url", "stream", "idle", "request")
        fields = node.fields(("openai", "anthropic", *options), what="a model")
        services = [name for name in ("openai", "anthropic") if name in fields]
        if len(services) != 1:
            node.fail(f"a model must have one of the keys openai and anthropic, got {' and '.join(services) or 'none'}")
        name = fields[services[0]].text()
        given: dict[str, Any] = {}
        for option in options:
            if option in fields:
                given[option] = self._model_option(option, fields[option])
        kind = OpenAIChat if services[0] == "openai" else AnthropicMessages
        return self._made(node, fields, lambda: kind(name, **given))

    def _model_option(self, option: str, node: _Spot) -> Any:
        match option:
            case "key":
                return None if node.is_empty else self._secret(node, node.text())
            case "stream":
                return node.flag()
            case "idle":
                return node.number()
            case "request":
                node.mapping()
                return node.json()
            case _:
                return node.text()

    def _secret(self, node: _Spot, name: str) -> EnvSecret:
        try:
            return secret(name)
        except OptionError as error:
            node.fail(f"{node.label}: {error}")

    # Steps

    def _steps(self, node: _Spot, scope: _Before, *, siblings_before: bool = True) -> list[Step[Any, Any]]:
        """Return the steps of a list; in a parallel they are not before each other."""
        found: list[Step[Any, Any]] = []
        names: set[str] = set()
        for each in node.items():
            before = scope.before | names if siblings_before else scope.before
            built, name = self._step(each, replace(scope, before=before), names)
            found.append(built)
            names.add(name)
        return found

    def _step(self, node: _Spot, scope: _Before, taken: set[str]) -> tuple[Step[Any, Any], str]:
        there = node.fields(_ALL, what="a step") if not (kinds := self._kinds(node)) else {}
        if not kinds:
            node.fail(f"a step must have one of the keys {', '.join(_KINDS)}, got {', '.join(there) or 'none'}")
        kind = next(iter(kinds))
        options, required = _KINDS[kind]
        if len(kinds) > 1:
            node.fields(_ALL, what="a step")
            other = list(kinds)[1]
            kinds[other][0].fail(f"a step must be of one kind, got {kind} and {other}")
        fields = node.fields({"name", kind} | options, ("name", *required), what=f"a step of kind {kind}")
        name = self._name(fields["name"])
        if name in taken:
            fields["name"].fail(f"the name {name!r} stands twice")
        build = getattr(self, f"_build_{kind}")
        return self._made(node, fields, lambda: build(name, fields, scope)), name

    def _kinds(self, node: _Spot) -> dict[str, tuple[_Spot, _Spot]]:
        return {key: pair for key, pair in node.mapping("a step").items() if key in _KINDS}

    def _made[T](self, node: _Spot, fields: Mapping[str, _Spot], make: Callable[[], T]) -> T:
        """Return what `make` gives; an option that breaks its rule is told at its place."""
        try:
            return make()
        except OptionError as error:
            option = str(error).partition(" ")[0]
            fields.get(option, node).fail(str(error))

    def _build_python(self, name: str, fields: Mapping[str, _Spot], _: _Before) -> Step[Any, Any]:
        return step(name, self._function(fields["python"]), **self._tries(fields, Exception))

    def _build_run(self, name: str, fields: Mapping[str, _Spot], scope: _Before) -> Step[Any, Any]:
        options: dict[str, Any] = self._tries(fields, Exception)
        words = tuple(self._template(word, scope) for word in fields["run"].items())
        if not words:
            fields["run"].fail("run must be a program and its arguments, got an empty list")
        if "env" in fields:
            options["env"] = {key: self._variable(node, scope) for key, (_, node) in fields["env"].mapping().items()}
        if "cwd" in fields:
            options["cwd"] = self._directory / fields["cwd"].text()
        if "ok" in fields:
            options["ok"] = [each.integer() for each in fields["ok"].items()]
        if "grace" in fields:
            options["grace"] = fields["grace"].number()
        if "max_output" in fields:
            options["max_output"] = fields["max_output"].integer()
        if "stdin" in fields:
            options["stdin"] = self._template(fields["stdin"], scope)
        static = [word.pieces for word in words]
        if all(isinstance(piece, str) for pieces in static for piece in pieces):
            return command(name, ["".join(cast("tuple[str, ...]", pieces)) for pieces in static], **options)
        return command(name, Words(words), **options)

    def _build_prompt(self, name: str, fields: Mapping[str, _Spot], scope: _Before) -> Step[Any, Any]:
        options: dict[str, Any] = self._tries(fields, transient)
        model = fields["model"].text()
        if model not in self._models:
            known = ", ".join(map(repr, self._models)) or "none"
            fields["model"].fail(f"there is no model {named(model, 60)}: there are {known}")
        if "system" in fields:
            options["system"] = fields["system"].text(empty=True)
        if "max_tokens" in fields:
            options["max_tokens"] = fields["max_tokens"].integer()
        if "parse" in fields:
            options["parse"] = self._function(fields["parse"])
        if "schema" in fields:
            options["schema"] = self._schema(fields["schema"])
        if "asks" in fields:
            options["asks"] = fields["asks"].integer()
        text = self._template(fields["prompt"], scope)
        static = all(isinstance(piece, str) for piece in text.pieces)
        return prompt(name, text.source() if static else text, model=self._models[model], **options)

    def _schema(self, node: _Spot) -> Any:
        """Return the JSON schema that stands here, or the path of its file."""
        return node.json() if node.is_mapping else self._directory / node.text()

    def _build_parallel(self, name: str, fields: Mapping[str, _Spot], scope: _Before) -> Step[Any, Any]:
        steps = self._steps(fields["parallel"], scope, siblings_before=False)
        if not steps:
            fields["parallel"].fail("parallel must have at least one step, got an empty list")
        return parallel(name, steps, concurrency=self._concurrency(fields))

    def _build_map(self, name: str, fields: Mapping[str, _Spot], scope: _Before) -> Step[Any, Any]:
        options: dict[str, Any] = {"concurrency": self._concurrency(fields)}
        if "on_error" in fields:
            options["on_error"] = fields["on_error"].choice("collect", "raise")
        body = Pipeline(name, self._steps(fields["map"], scope))
        return _only(Pipeline("p", ()).map(name, body, **options))

    def _build_loop(self, name: str, fields: Mapping[str, _Spot], scope: _Before) -> Step[Any, Any]:
        body = Pipeline(name, self._steps(fields["loop"], scope))
        until = self._function(fields["until"])
        most = fields["max_rounds"].integer()
        return _only(Pipeline("p", ()).loop(name, body, until=until, max_rounds=most))

    def _build_branch(self, name: str, fields: Mapping[str, _Spot], scope: _Before) -> Step[Any, Any]:
        cases: dict[str, Step[Any, Any]] = {}
        for case, (key, node) in fields["branch"].mapping().items():
            try:
                cases[case] = Pipeline(checked_name(case, "a case"), self._steps(node, scope))
            except OptionError as error:
                key.fail(str(error))
        otherwise = None
        if not cases and "otherwise" not in fields:
            fields["branch"].fail("branch must have at least one case, got an empty mapping")
        if "otherwise" in fields:
            otherwise = Pipeline("otherwise", self._steps(fields["otherwise"], scope))
        choose = self._function(fields["choose"])
        self._made(fields["choose"], fields, lambda: validate.plain_function("choose", choose))
        return _only(Pipeline("p", ()).branch(name, _text_of(choose, frozenset(cases)), cases, otherwise=otherwise))

    def _build_review(self, name: str, fields: Mapping[str, _Spot], _: _Before) -> Step[Any, Any]:
        if not fields["review"].is_empty:
            fields["review"].fail(f"review must be empty, got {fields['review'].got}")
        return review(name, check=self._function(fields["check"]) if "check" in fields else None)

    def _build_steps(self, name: str, fields: Mapping[str, _Spot], scope: _Before) -> Step[Any, Any]:
        return Pipeline(name, self._steps(fields["steps"], scope))

    # Options

    def _concurrency(self, fields: Mapping[str, _Spot]) -> int | None:
        return fields["concurrency"].integer() if "concurrency" in fields else None

    def _tries(self, fields: Mapping[str, _Spot], on: Any) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if "retry" in fields:
            node = fields["retry"]
            parts = node.fields(("attempts", "initial", "factor", "max", "jitter", "deadline"))
            given = {key: each.integer() if key == "attempts" else each.number() for key, each in parts.items()}
            options["retry"] = self._made(node, parts, lambda: Retry(on=on, **cast("dict[str, Any]", given)))
        if "timeout" in fields:
            options["timeout"] = fields["timeout"].number()
        if "memo" in fields:
            options["memo"] = fields["memo"].flag()
        if "on_interrupted" in fields:
            options["on_interrupted"] = fields["on_interrupted"].choice("again", "ask")
        return options

    def _variable(self, node: _Spot, scope: _Before) -> Any:
        """Return a value of `env`: a text, one with references, or a secret."""
        pieces = self._pieces(node)
        if len(pieces) == 1 and isinstance(pieces[0], Reference) and pieces[0].root == "secrets":
            return self._secret(node, cast("str", pieces[0].way[0]))
        template = self._checked(node, pieces, scope)
        return template if any(isinstance(piece, Reference) for piece in pieces) else template.source()

    def _template(self, node: _Spot, scope: _Before) -> Template:
        return self._checked(node, self._pieces(node), scope)

    def _pieces(self, node: _Spot) -> tuple[str | Reference, ...]:
        try:
            return parsed(node.text(empty=True))
        except Malformed as error:
            node.fail(str(error))

    def _checked(self, node: _Spot, pieces: tuple[str | Reference, ...], scope: _Before) -> Template:
        for piece in pieces:
            if isinstance(piece, str) or piece.root == "input":
                continue
            if piece.root == "secrets":
                node.fail(f"{piece.source}: a secret can only be a whole value of env")
            name = cast("str", piece.way[0])
            if re.sub(r"\[[0-9]+\]$", "", name.partition("/")[0]) not in scope.before:
                known = ", ".join(map(repr, sorted(scope.before))) or "none"
                node.fail(f"{piece.source}: {named(name, 60)} is no step before this one: there are {known}")
        return Template(pieces)

    def _function(self, node: _Spot) -> Callable[..., Any]:
        """Return the function that `module:function` names."""
        text = node.text()
        module_name, _, function = text.partition(":")
        if not re.fullmatch(r"[\w.]+:[\w.]+", text):
            node.fail(f"{node.label} must be module:function, got {named(text, 60)}")
        try:
            found: Any = imported(module_name, self._directory)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
                node.fail(f"there is no module {module_name!r}")
            node.fail(f"module {module_name!r} cannot be imported: {one_line(str(error), 200)}")
        except Exception as error:  # noqa: BLE001 -- code of the user
            node.fail(f"module {module_name!r} cannot be imported: {one_line(repr(error), 200)}")
        for part in function.split("."):
            names = [name for name in dir(found) if not name.startswith("_")]
            try:
                found = getattr(found, part)
            except AttributeError:
                near = get_close_matches(part, names, n=1)
                hint = f": did you mean {near[0]!r}?" if near else ""
                node.fail(f"module {module_name!r} has no {function!r}{hint}")
        if not callable(found):
            node.fail(f"{text} must be callable, got {one_line(repr(cast('object', found)), 60)}")
        return cast("Callable[..., Any]", found)


def _only(pipeline: Pipeline[Any, Any]) -> Step[Any, Any]:
    return pipeline.steps[0]


def _text_of(choose: Callable[[Any], Any], cases: frozenset[str]) -> Callable[[Any], str]:
    """Return `choose`, which gives the text of a case: of a truth value also as YAML writes it."""

    def case_of(value: Any) -> str:
        given = choose(value)
        text = str(given)
        return text.lower() if isinstance(given, bool) and text not in cases else text

    return case_of


def imported(name: str, directory: Path) -> ModuleType:
    """Import a module, looked for in `directory` first: also where another of that name was imported before."""
    place = str(directory)
    if place in sys.path:
        sys.path.remove(place)
    sys.path.insert(0, place)
    importlib.invalidate_caches()
    top = name.partition(".")[0]
    known = sys.modules.get(top)
    ours = [path for path in (directory / f"{top}.py", directory / top / "__init__.py") if path.is_file()]
    if known is not None and ours and getattr(known, "__file__", None) != str(ours[0]):
        for each in [each for each in sys.modules if each == top or each.startswith(f"{top}.")]:
            del sys.modules[each]
    return importlib.import_module(name)
