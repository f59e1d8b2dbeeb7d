"""Prepares texts and questions for an index of words: one function prepares both, and one tokenizer cuts them.

FTS5 cuts texts at characters that are neither letter nor digit. Text without spaces would then be one word: in such
scripts, overlapping pairs of characters become words. FTS5 also drops characters that readers do not: marks of vowels
and symbols are spelled out, as `ux1f600` for the character of that number.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple, cast
from unicodedata import category, normalize

import apsw

from penstock.durable.sqlite.connection import Connection

TOKENIZER: Final[str] = "porter unicode61 remove_diacritics 2"
MOST: Final = 64
"""Words and phrases of a question that are looked for, at most."""

_LONGEST_PHRASE = 8
_LONGEST_QUESTION = 100_000
_AS_QUESTION = apsw.FTS5_TOKENIZE_QUERY
_NAME = TOKENIZER.partition(" ")[0]
_ARGUMENTS = list[str](TOKENIZER.split()[1:])

_UNSPACED = (
    "\u0e01-\u0eff\u0f00-\u0fff"  # Thai, Lao, Tibetan
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff"  # Myanmar, Khmer
    "\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff"  # Hangul
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\u3041-\u309f\u30a1-\u30fa\u30fc-\u312f\u31a0-\u31bf\u31f0-\u31ff\U0001aff0-\U0001b16f"  # kana, Bopomofo
)


@cache
def _run() -> re.Pattern[str]:
    """Compile what finds runs of such scripts; only when a text may have some, as that takes 10 ms."""
    return re.compile(f"[{_UNSPACED}]+")


_SINGLE = re.compile(r"(.)(ux[0-9a-f]+)*")


def indexed(text: str) -> str:
    """Return `text` as it goes into the index of words."""
    return _prepared(text, _pairs_and_last)


class Word(NamedTuple):
    """A word of a question, or several that are written as one.

    Attributes:
        match: it in the language of FTS5.
        written: it as the question has it, prepared.
    """

    match: str
    written: str

    def is_in(self, text: str) -> bool:
        """Whether the text has exactly this word, not only its stem; looks for words of ASCII alone."""
        place, size, text = -1, len(self.written), text.lower()
        while self.written.isascii() and (place := text.find(self.written, place + 1)) >= 0:
            if not _is_inner(text[place - 1 : place]) and not _is_inner(text[place + size : place + size + 1]):
                return True
        return False


def _is_inner(char: str) -> bool:
    return char == "_" or (char.isalnum() and not _is_unspaced(char))


def _is_unspaced(char: str) -> bool:
    return not char.isascii() and _run().match(char) is not None


def asked(connection: Connection, text: str) -> list[Word]:
    """Return what to look for: the words of `text`, and a phrase for what is written without a space.

    Each once, the first 64 of the first 100,000 characters. A text without letters, digits and symbols has none.
    """
    cut = connection.fts5_tokenizer(_NAME, _ARGUMENTS)
    found = dict[Word, None]()
    question = text[:_LONGEST_QUESTION].encode(errors="replace").decode()
    for piece in _prepared(question, _pairs).split():
        written = piece.encode()
        spans: list[tuple[int, int]] = [token[:2] for token in cast("Any", cut(written, _AS_QUESTION, None))]
        words = [written[start:end].decode() for start, end in spans]
        whole = _underlined(piece, words) if words else ""
        if 1 < len(words) <= _LONGEST_PHRASE:
            found[Word(f'"{" ".join(words)}"', whole)] = None
        for word in words[:MOST]:
            match = f'"{word}" *' if (single := _SINGLE.fullmatch(word)) and _is_unspaced(single[1]) else f'"{word}"'
            found[Word(match, word if len(words) > 1 else whole)] = None
        if len(found) >= MOST:
            break
    return list(found)[:MOST]


def _underlined(piece: str, words: list[str]) -> str:
    """Return the piece from its first word to its last one, with underscores round them: `_name` is not `name`."""
    start, end = piece.index(words[0]), piece.rindex(words[-1]) + len(words[-1])
    before, after = piece[:start], piece[end:]
    return piece[len(before.rstrip("_")) : end + len(after) - len(after.lstrip("_"))]


def _prepared(text: str, cut: Callable[[re.Match[str]], str]) -> str:
    if text.isascii():
        return text.replace("\0", " ").lower()
    folded = normalize("NFC", normalize("NFC", text).casefold())
    plain = normalize("NFC", folded.translate(_PLAIN))
    return _run().sub(cut, plain).translate(_SPELLED)


def _pairs_and_last(run: re.Match[str]) -> str:
    """Return overlapping pairs of characters, and the last one: each character begins a word."""
    units = _units(run[0])
    return f" {' '.join([*map(str.__add__, units, units[1:]), *units[-1:]])} "


def _pairs(run: re.Match[str]) -> str:
    """Return overlapping pairs of characters.

    A single character stays alone, and is found as the beginning of a pair.
    """
    units = _units(run[0])
    return f" {' '.join(map(str.__add__, units, units[1:])) if len(units) > 1 else run[0]} "


def _units(run: str) -> list[str]:
    """Return the characters of a run with their marks."""
    units: list[str] = []
    for char in run:
        if units and category(char)[0] == "M":
            units[-1] += char
        else:
            units.append(char)
    return units


class _Plain(dict[int, str]):
    """Plain forms of letters and digits: of ligatures, full and half width, indices, Greek with accents.

    Soft hyphens become nothing.
    """

    def __missing__(self, code: int) -> str:
        char, plain = chr(code), normalize("NFKC", chr(code))
        if 0x370 <= code < 0x400 or 0x1F00 <= code < 0x2000:  # noqa: PLR2004 -- FTS5 takes accents from Latin letters only
            plain = normalize("NFKD", char)[0]
        is_plain = char.isalnum() and (plain.isalnum() or 0xFF66 <= code <= 0xFF9F)  # noqa: PLR2004 -- half width, with marks
        kept = plain.casefold() if is_plain else char
        self[code] = "" if char == "\xad" else " " if char == "\0" else kept
        return self[code]


class _Spelled(dict[int, str]):
    """Spells out marks and symbols by their numbers: marks within a word, symbols as words."""

    def __missing__(self, code: int) -> str:
        char, kind = chr(code), category(chr(code))
        if (kind[0] == "M" and not 0x300 <= code <= 0x36F) or code in _UNKNOWN:  # noqa: PLR2004 -- diacritics, which it knows
            char = f"ux{code:x}"
        elif kind in {"Sc", "Sm", "So"} and code > 0x7F and not 0x2500 <= code < 0x2600:  # noqa: PLR2004 -- ASCII, lines
            char = f" ux{code:x} "
        self[code] = char
        return char


_UNKNOWN = frozenset((*range(0x19B0, 0x19CA), 0x1CF2, 0x1CF3))
"""Letters that were marks when the tables of FTS5 were made."""

_PLAIN, _SPELLED = _Plain(), _Spelled()
