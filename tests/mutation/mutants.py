"""The mutants of a module: its source with one small fault each, by the operators of mutmut and three of ours."""

import hashlib
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path

import libcst as cst
from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_string


@dataclass(frozen=True)
class Mutant:
    """One fault: `old` is the text of the lines that it changes, `new` what they become."""

    module: str
    function: str  # the outermost function that it is in, or "" at the top of a module or class
    first: int
    last: int
    old: str
    new: str
    number: int  # among those of the function with this `old` and `new`
    source: str
    body: str  # names the text of the function: a result holds for as long as it is the same

    @property
    def key(self) -> str:
        """What the mutant is known by from run to run: no line number is in it."""
        again = f" #{self.number}" if self.number > 1 else ""
        return f"{self.module.removeprefix('penstock.core.')}.{self.function}: {self.old} => {self.new}{again}"

    def diff(self, original: str) -> str:
        """What the mutant changes."""
        lines = unified_diff(original.splitlines(), self.source.splitlines(), lineterm="", n=2)
        return "\n".join([f"{self.module} {self.function}", *list(lines)[2:]])


def remove_call(node: cst.Expr) -> Iterator[cst.CSTNode]:
    """Leave out a statement that is a call."""
    if not isinstance(node.value, cst.BaseString | cst.Ellipsis | cst.Yield):
        yield cst.Pass()


def return_none(node: cst.Return) -> Iterator[cst.CSTNode]:
    """Return None instead of a value."""
    if node.value is not None and not (isinstance(node.value, cst.Name) and node.value.value == "None"):
        yield node.with_changes(value=cst.Name("None"))


def negate(node: cst.If | cst.While) -> Iterator[cst.CSTNode]:
    """Turn a condition round, where it is a bare name or call: comparisons have operators of their own."""
    if isinstance(node.test, cst.Name | cst.Attribute | cst.Call):
        yield node.test, cst.UnaryOperation(cst.Not(), node.test)


OPERATORS = [*mutation_operators, (cst.Expr, remove_call), (cst.Return, return_none), (cst.If | cst.While, negate)]
SKIPPED = (cst.Annotation, cst.Decorator, cst.TypeAlias, cst.TypeParameters, cst.Import, cst.ImportFrom)


def mutants_of(path: Path, module: str) -> list[Mutant]:
    """All mutants of a module, in the order of its text; none compiles to what the module does."""
    return list(_Maker(path.read_text(), module).make())


class _Maker:
    def __init__(self, source: str, module: str) -> None:
        self._source = source
        self._bytes = source.encode()
        self._module = module
        wrapper = MetadataWrapper(cst.parse_module(source))
        self._tree = wrapper.module
        self._spans = wrapper.resolve(ByteSpanPositionProvider)
        self._places = wrapper.resolve(PositionProvider)
        self._original = compile(source, "", "exec")
        self._seen: Counter[tuple[str, str, str]] = Counter()

    def make(self) -> Iterator[Mutant]:
        for node, changed, function in self._changes(self._tree, (), None):
            before, after = self._tree.code_for_node(node), self._tree.code_for_node(changed)
            if before.replace("False", "None") == after:
                continue  # None is as false as False
            source = self._replaced(node, changed)
            try:
                if compile(source, "", "exec") == self._original:
                    continue
            except SyntaxError:
                continue
            yield self._mutant(node, source, function)

    def _changes(self, node, names, function):
        """Every node with what may stand in its place, and the outermost function that it is in."""
        if isinstance(node, SKIPPED) or _is_for_types(node):
            return
        if isinstance(node, cst.Call) and _name(node.func) == "cast":
            yield from self._changes(node.args[1], names, function)
            return
        for kind, operator in OPERATORS:
            if isinstance(node, kind):
                for number, change in enumerate(operator(node)):
                    if operator is operator_string and number:
                        break  # in capitals or not: one way to spoil a text is enough
                    yield *(change if isinstance(change, tuple) else (node, change)), function
        if isinstance(node, cst.ClassDef | cst.FunctionDef):
            names = (*names, node.name.value)
        for child in node.children:
            inside = function
            if isinstance(node, cst.FunctionDef) and function is None and child is node.body:
                inside = ".".join(names), node
            yield from self._changes(child, names, inside)

    def _replaced(self, node, changed) -> str:
        span = self._spans[node]
        end = span.start + span.length
        text = self._bytes[span.start : end].decode()
        before, after = self._tree.code_for_node(node), self._tree.code_for_node(changed)
        if before != text:
            before, after = before.strip(), after.strip()
        if before != text:
            return self._tree.deep_replace(node, changed).code
        return (self._bytes[: span.start] + after.encode() + self._bytes[end:]).decode()

    def _mutant(self, node, source, function) -> Mutant:
        name, body = ("", self._source) if function is None else (function[0], self._tree.code_for_node(function[1]))
        first, last = self._places[node].start.line, self._places[node].end.line
        lines, changed = self._source.splitlines(), source.splitlines()
        old = _joined(lines[first - 1 : last])
        new = _joined(changed[first - 1 : last + len(changed) - len(lines)])
        self._seen[name, old, new] += 1
        digest = hashlib.sha256(body.encode()).hexdigest()[:16]
        return Mutant(self._module, name, first, last, old, new, self._seen[name, old, new], source, digest)


def _joined(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines)


def _name(node) -> str:
    return node.value if isinstance(node, cst.Name) else ""


def _is_for_types(node) -> bool:
    if isinstance(node, cst.If):
        return _name(node.test) == "TYPE_CHECKING"
    return isinstance(node, cst.FunctionDef) and any(_name(each.decorator) == "overload" for each in node.decorators)


def code_of(mutant: Mutant, filename: str) -> types.CodeType | None:
    """The code of the mutant's function, as it is in a module of that file; the last of that name is what counts."""
    found = None
    todo = [compile(mutant.source, filename, "exec")]
    while todo:
        code = todo.pop(0)
        if code.co_qualname == mutant.function:
            found = code
        else:
            todo += [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return found
