"""Chunking: from the text of a document to chunks that know their lines and their heading."""

from pathlib import PurePath

from penstock.workflows.documents.chunking import html_text, markdown, plain, python, rst
from penstock.workflows.documents.chunking.pieces import Chunk, Text, cut

SUFFIXES = (".md", ".txt", ".rst", ".py", ".html")

_BY_SUFFIX = {".md": markdown.sections, ".rst": rst.sections, ".py": python.sections}


def split(name: str, content: str) -> list[Chunk]:
    """Chunks of a document: by definition, heading or paragraph, as the suffix of its name says."""
    suffix = PurePath(name).suffix.lower()
    content = content.replace("\r\n", "\n").replace("\r", "\n")
    if suffix == ".html":
        return list(cut(*html_text.read(content)))
    text = Text(content)
    return list(cut(text, _BY_SUFFIX.get(suffix, plain.sections)(text)))
