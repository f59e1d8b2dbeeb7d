"""Chunking: from the text of a document to chunks that know their lines and their heading."""

from collections.abc import Callable, Iterable
from pathlib import PurePath

from penstock.workflows.documents.chunking import plain, python, rst
from penstock.workflows.documents.chunking.headings import MARK
from penstock.workflows.documents.chunking.pieces import Chunk, Section, Text, cut, packed

SUFFIXES = (".md", ".txt", ".rst", ".py", ".html")


def split(name: str, content: str) -> list[Chunk]:
    """Chunks of a document: by definition, heading or paragraph, as the suffix of its name says.

    None is blank, none has more than 1,150 characters, and no heading more than 200. It takes time and memory in
    proportion to the text, whatever that is.
    """
    suffix = PurePath(name).suffix.lower()
    content = content.replace("\r\n", "\n").replace("\r", "\n")
    text, sections = _read(suffix, content)
    return list(cut(text, packed(text, sections, python.MARK if suffix == ".py" else MARK)))


def _read(suffix: str, content: str) -> tuple[Text, Iterable[Section]]:
    read: Callable[[Text], Iterable[Section]]
    match suffix:
        case ".html":
            from penstock.workflows.documents.chunking import html_text  # noqa: PLC0415 -- loads its parser

            return html_text.read(content)
        case ".md":
            from penstock.workflows.documents.chunking import markdown  # noqa: PLC0415 -- loads its parser

            read = markdown.sections
        case ".rst":
            read = rst.sections
        case ".py":
            read = python.sections
        case _:
            read = plain.sections
    text = Text(content)
    return text, read(text)
