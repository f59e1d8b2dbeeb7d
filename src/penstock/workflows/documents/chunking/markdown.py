"""Markdown: a section for every heading of CommonMark, named by it and the headings above it."""

import re
from collections.abc import Iterator
from functools import cache
from threading import Lock
from typing import Any, Literal, override

from markdown_it import MarkdownIt, rules_block
from markdown_it.parser_block import RuleFuncBlockType
from markdown_it.ruler import Ruler
from markdown_it.rules_block import StateBlock
from markdown_it.token import Token

from penstock.workflows.documents.chunking.headings import Heading, by_headings
from penstock.workflows.documents.chunking.pieces import LONGEST, Checkpoint, Section, Text, unchecked

_LEVELS = 6
_MOST_INDENTED = 3
"""Columns: a line that is indented further begins no block within a paragraph."""

_NESTED = frozenset(("blockquote_open", "list_item_open"))
_NESTED_ENDS = frozenset(("blockquote_close", "list_item_close"))
_YAML = re.compile(r"[^\s#:\[\]{}][^:\n]*:(?:[ \t]|$)")

_BEGINS: dict[RuleFuncBlockType, str] = {
    rules_block.fence: "`~",
    rules_block.blockquote: ">",
    rules_block.hr: "*-_",
    rules_block.list_block: "*-+0123456789",
    rules_block.reference: "[",
    rules_block.html_block: "<",
    rules_block.heading: "#",
}
"""The first characters of lines that begin the blocks of a rule, where they are few."""

_MOST_READ = 50_000
"""Characters of titles with markup that are parsed; later titles stay as written. A hostile 400 take 7 ms."""

_MARKUP = re.compile(r"[*_`\[<&\\]")
_SEEN = {"softbreak": " ", "hardbreak": " ", "html_inline": ""}

# Parsing holds the interpreter lock anyway; two documents at once would only double the memory.
_parser = Lock()


def sections(text: Text, check: Checkpoint) -> Iterator[Section]:
    """Cut into sections by heading, as `Install > Linux`; text before the first heading has none.

    A heading in a quote or a list item counts until that ends.
    """
    with _parser:
        check()
        found = _headings(text, check)
    return by_headings(found, len(text.starts))


def _headings(text: Text, check: Checkpoint = unchecked) -> list[Heading]:
    state = _BlockState(text.content, check)
    start = _front_matter(text.lines)
    if start < state.lineMax:
        state.md.block.tokenize(state, start, state.lineMax)
    return state.headings


class _BlockState(StateBlock):
    """Keeps the headings of a document and none of its other blocks: the tokens of 2 MB took a gigabyte.

    The rules of the parser fill in a token after they have pushed it, and look at no token that they pushed before.
    """

    def __init__(self, content: str, check: Checkpoint) -> None:
        super().__init__(content, _markdown(), {"references": _NoReferences()}, [])
        self._check = check
        self.headings = list[Heading]()
        self._token = Token("", "", 0)
        self._outside = list[int]()
        self._unread = _MOST_READ

    @override
    def isEmpty(self, line: int) -> bool:
        self._check()
        return super().isEmpty(line)

    @override
    def push(self, ttype: str, tag: str, nesting: Literal[-1, 0, 1]) -> Token:
        self.level += nesting
        if ttype == "heading_close":
            self._add_heading(int(tag[1]))
        elif ttype in _NESTED:
            self._outside.append(len(self.headings))
        elif ttype in _NESTED_ENDS and len(self.headings) > self._outside.pop():
            self.headings.append((self.line + 1, _LEVELS * (len(self._outside) + 1) + 1, ""))
        return self._token

    def _add_heading(self, level: int) -> None:
        assert self._token.map is not None
        title = self._token.content[: 2 * LONGEST]
        if _MARKUP.search(title) and (left := self._unread - len(title)) > 0:
            title, self._unread = _shown(self.md, title), left
        self.headings.append((self._token.map[0] + 1, _LEVELS * len(self._outside) + level, " ".join(title.split())))


def _shown(md: MarkdownIt, title: str) -> str:
    """Return a title as it is read: without signs of emphasis and code, without addresses of links and images."""
    tokens = list[Token]()
    md.inline.parse(title, md, {"references": _NoReferences()}, tokens)
    return "".join(_SEEN.get(token.type, token.content) for token in tokens)


class _NoReferences(dict[str, Any]):
    """The link references of a document: they are not kept, as nobody asks for them."""

    @override
    def __setitem__(self, label: str, reference: Any) -> None:
        pass


class _Rules(Ruler[RuleFuncBlockType]):
    """Joins the rules of a chain into one, which asks only those whose blocks the line may begin: half the time."""

    def __init__(self, rules: Ruler[RuleFuncBlockType]) -> None:
        super().__init__()
        chains = ("", "paragraph", "reference", "blockquote", "list")
        self._rules = rules
        self._chains = {chain: [_chosen(rules.getRules(chain))] for chain in chains}

    @override
    def getRules(self, chainName: str = "") -> list[RuleFuncBlockType]:
        return self._chains[chainName]

    @override
    def get_active_rules(self) -> list[str]:
        return self._rules.get_active_rules()


def _chosen(rules: list[RuleFuncBlockType]) -> RuleFuncBlockType:
    rules = [each for rule in rules for each in ((_line, rule) if rule is rules_block.lheading else (rule,))]
    others = [each for each in rules if each not in _BEGINS]
    by_first = {char: [each for each in rules if char in _BEGINS.get(each, char)] for char in "".join(_BEGINS.values())}

    def rule(state: StateBlock, start: int, end: int, silent: bool) -> bool:  # noqa: FBT001 -- as all
        at = state.bMarks[start] + state.tShift[start]
        for each in by_first.get(state.src[at : at + 1], others):  # noqa: SIM110 -- `any` takes twice as long
            if each(state, start, end, silent):
                return True
        return False

    return rule


def _line(state: StateBlock, start: int, _end: int, _silent: bool) -> bool:  # noqa: FBT001 -- as all
    """Parse a paragraph of one line: it need not be scanned twice, for an underline and for its end."""
    below = start + 1
    state.parentType = "paragraph"
    if below < state.lineMax and not state.isEmpty(below):
        at, indent = state.bMarks[below] + state.tShift[below], state.sCount[below] - state.blkIndent
        may_underline = indent >= 0 and state.src[at] in "-="
        goes_on = may_underline or state.sCount[below] < 0 or indent > _MOST_INDENTED
        (ends,) = state.md.block.ruler.getRules("paragraph")
        if goes_on or not ends(state, below, state.lineMax, True):
            return False
    state.line = below
    return True


class _Parser(MarkdownIt):
    def __init__(self) -> None:
        super().__init__("commonmark")
        self.block.ruler = _Rules(self.block.ruler)

    @override
    def normalizeLink(self, url: str) -> str:
        """Return the link unchanged: only its place matters, and the encoding of a host takes quadratic time."""
        return url


@cache
def _markdown() -> MarkdownIt:
    return _Parser()


def _front_matter(lines: list[str]) -> int:
    """Return how many lines the block of YAML between `---` takes, at the very beginning."""
    if lines[0].rstrip() != "---":
        return 0
    first = next((line for line in lines[1:] if not line.startswith("#")), "")
    if not _YAML.match(first):
        return 0
    return next((number for number, line in enumerate(lines[1:], 2) if line.rstrip() in ("---", "...")), 0)
