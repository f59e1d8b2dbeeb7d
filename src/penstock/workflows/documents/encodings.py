"""Decodes bytes to text: by the encoding that they declare, as browsers do, else as UTF-8."""

import codecs
import re
from functools import cache
from pathlib import PurePath

from webencodings import labels  # type: ignore[import-untyped] # has no types; only used here

HEAD = 1024
"""Bytes in which HTML declares its encoding."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CODECS = {
    "big5": "big5hkscs",
    "euc-jp": "euc_jp",
    "euc-kr": "cp949",
    "gbk": "gb18030",
    "iso-2022-jp": "iso2022_jp_ext",
    "iso-8859-8-i": "iso8859-8",
    "macintosh": "mac-roman",
    "shift_jis": "cp932",
    "windows-874": "cp874",
    "x-mac-cyrillic": "mac-cyrillic",
    "x-user-defined": "cp1252",
}
"""Python's codecs for encodings that it calls otherwise, or of which the codec of that name knows only a part."""

_NO_LABELS = re.compile(
    r"(?:cp|iso8859-|mac[-_]|koi8|euc_|shift_jis|iso2022_|big5|gb|hp-roman|ptcp|kz)[\w-]*|johab|hz|tis-620"
)
"""Other codecs that may be asked for: each gives characters, in linear time."""

_SEVEN_BITS = ("iso2022", "hz")
_COOKIE = re.compile(rb"[^\n]*?coding[:=][ \t]*([-\w.]+)")
_ENDS_OF_LINES = re.compile(r"-(?:unix|dos|mac)$")
_XML = re.compile(r"<\?xml\s[^>]*?\bencoding\s*=\s*[\"']([^\"'>]+)")
_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*)")
_ATTRIBUTE = re.compile(r"[\s/]*+([^\s/>][^\s/>=]*+)(?:\s*+=\s*+(\"[^\"]*+\"?|'[^']*+'?|[^\s>]*+))?")
_CHARSET = re.compile(r"charset\s*=\s*(\"[^\"]*\"|'[^']*'|[^\s;\"']+)", re.IGNORECASE)
_RAW = frozenset(("script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes"))
_HTML = frozenset((".html", ".htm", ".xhtml"))

_CELLS = 94
"""Rows of the Japanese character set, and cells of a row."""

_BAD = "\udfff"
"""Stands for bytes that are no text until they are counted: no encoding gives it."""


def decode(data: bytes, name: str = "") -> tuple[str, int]:
    """Return the text of `data`, and how many times bytes were no text and stand as U+FFFD.

    A byte-order mark gives the encoding; without one, a declaration: in HTML a `meta` within the first 1024 bytes, in
    Python the coding line. In other files a coding line counts only if they are not UTF-8. `name` is that of the file,
    and tells what kind it is.

    Raises:
        ValueError: there is a NUL in it, so it is no text.
    """
    mark = next((codec for mark, codec in _MARKS if data.startswith(mark)), None)
    if mark is None and (at := data.find(b"\0")) >= 0:
        raise ValueError(f"not text: a NUL byte at {at}")
    text = _decoded(data, mark or _codec(data, PurePath(name).suffix.lower()))
    if (at := text.find("\0")) >= 0:
        raise ValueError(f"not text: a NUL character at {at}")
    bad = text.count(_BAD)
    return (text.replace(_BAD, "\ufffd") if bad else text), bad


def _codec(data: bytes, suffix: str) -> str:
    if suffix == ".py":
        return _of_cookie(data, python=True) or "utf-8"
    if suffix in _HTML or not suffix:
        declared = _of_html(data)
        if declared or suffix:
            return declared or "utf-8"
    declared = _of_cookie(data) or _of_html(data)
    if declared is None or (_is_utf8(data) and not (declared.startswith(_SEVEN_BITS) and data.isascii())):
        return "utf-8"
    return declared


def _decoded(data: bytes, codec: str) -> str:
    return data.decode(codec, "penstock.documents")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _recovered(error: UnicodeError) -> tuple[str, int]:
    """Return what browsers show for bytes that Python's codec does not know, or the mark of bytes that are no text."""
    assert isinstance(error, UnicodeDecodeError)
    data, start = error.object, error.start
    first, second = data[start], data[start + 1] if start + 1 < len(data) else 0
    codec = error.encoding.replace("_", "-")
    if codec.startswith("utf"):
        return _BAD, error.end
    if codec == "charmap" and 0x80 <= first <= 0x9F:  # noqa: PLR2004 -- the control characters of ISO 8859
        return chr(first), start + 1
    if codec == "gb18030" and first == 0x80:  # noqa: PLR2004 -- as Windows has it
        return "€", start + 1
    if codec in {"euc-jp", "iso2022-jp-ext"} and (found := _japanese(first & 0x7F, second & 0x7F)):
        return found, start + 2
    return _BAD, start + 1 if second < 0x80 else error.end  # noqa: PLR2004 -- ASCII is never part of what is bad


def _japanese(row: int, cell: int) -> str:
    """Return a character of the rows that Shift JIS has and Python's other Japanese codecs lack, such as `①`."""
    row, cell = row - 0x20, cell - 0x20
    if not (1 <= row <= _CELLS and 1 <= cell <= _CELLS):
        return ""
    lead = (row + 1) // 2 + (0x80 if row <= _CELLS - 32 else 0xC0)
    trail = cell + (0x9E if row % 2 == 0 else 0x3F + (cell > _CELLS - 31))
    return bytes((lead, trail)).decode("cp932", "ignore")


codecs.register_error("penstock.documents", _recovered)


@cache
def _named(label: str) -> str | None:
    """Return the codec of a label: by the WHATWG table, else by Python."""
    label = _ENDS_OF_LINES.sub("", label.strip("\t\n\f\r ").lower())
    table: dict[str, str] = labels.LABELS
    try:
        found = table.get(label)
        if found == "replacement" or found is None:  # browsers refuse these for their scripts' sake
            name = codecs.lookup(label).name
            found = table.get(name, name if _NO_LABELS.fullmatch(name) else None)
            found = name if found == "replacement" else found
        return found and codecs.lookup(_CODECS.get(found, found)).name
    except (LookupError, ValueError):
        return None


def _of_cookie(data: bytes, *, python: bool = False) -> str | None:
    """Return what one of the first two lines declares, as `# -*- coding: latin-1 -*-`.

    In Python only a comment does.
    """
    for line in data[:HEAD].replace(b"\r", b"\n").split(b"\n", 2)[:2]:
        if python and line.strip() and not line.lstrip().startswith(b"#"):
            return None
        if found := _COOKIE.match(line):
            return _named(found[1].decode("ascii", "replace"))
    return None


def _of_html(data: bytes) -> str | None:
    """Return what the first `meta` with a known label declares, else an XML declaration.

    Comments and scripts do not count.
    """
    head = data[:HEAD].decode("latin-1")
    declared = next(filter(None, map(_named, _labels(head))), None)
    if declared is None and (found := _XML.match(head)):
        declared = _named(found[1])
    return "utf-8" if declared and declared.startswith("utf-16") else declared


def _labels(head: str) -> list[str]:
    """Return the labels of the tags in `head`."""
    found, at = list[str](), head.find("<")
    while at >= 0:
        tag = _TAG.match(head, at)
        if head.startswith("<!--", at):
            at = head.find("-->", at + 2)
        elif tag is not None:
            attributes, at = _attributes(head, tag.end())
            name = tag[2].lower()
            if not tag[1] and name == "meta":
                found += _of_meta(attributes)
            elif not tag[1] and name in _RAW:
                end = re.compile(f"</{name}", re.IGNORECASE).search(head, at)
                at = end.start() if end else -1
        elif head[at + 1 : at + 2] in ("!", "/", "?"):
            at = head.find(">", at)
        else:
            at += 1
        at = head.find("<", at) if at >= 0 else -1
    return found


def _attributes(head: str, at: int) -> tuple[dict[str, str], int]:
    found = dict[str, str]()
    while attribute := _ATTRIBUTE.match(head, at):
        found.setdefault(attribute[1].lower(), (attribute[2] or "").strip("\"'"))
        at = attribute.end()
    return found, at


def _of_meta(attributes: dict[str, str]) -> list[str]:
    if "charset" in attributes:
        return [attributes["charset"]]
    if attributes.get("http-equiv", "").lower() != "content-type":
        return []
    return [found[1].strip("\"'") for found in _CHARSET.finditer(attributes.get("content", ""))][:1]
