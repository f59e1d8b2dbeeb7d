"""Chunking: from the text of a document to chunks that know their lines and their heading."""

from collections.abc import Iterable
from pathlib import PurePath

from penstock.workflows.documents.chunking import html_text, markdown, plain, python, rst
from penstock.workflows.documents.chunking.pieces import Chunk, Section, Text, cut, packed

SUFFIXES = (".md", ".txt", ".rst", ".py", ".html")

_BY_SUFFIX = {".md": markdown.sections, ".rst": rst.sections, ".py": python.sections}


def split(name: str, content: str) -> list[Chunk]:
    """Chunks of a document: by definition, heading or paragraph, as the suffix of its name says."""
    suffix = PurePath(name).suffix.lower()
    content = content.replace("\r\n", "\n").replace("\r", "\n")
    text, sections = _read(suffix, content)
    mark = python.MARK if suffix == ".py" else markdown.MARK
    return list(cut(text, packed(text, sections, mark)))


def _read(suffix: str, content: str) -> tuple[Text, Iterable[Section]]:
    if suffix == ".html":
        return html_text.read(content)
    text = Text(content)
    return text, _BY_SUFFIX.get(suffix, plain.sections)(text)
