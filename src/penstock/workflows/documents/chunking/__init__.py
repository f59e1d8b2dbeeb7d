"""Chunking: cuts the text of a document into chunks that know their lines and their heading."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import PurePath

from penstock.workflows.documents.chunking import plain, python, rst
from penstock.workflows.documents.chunking.headings import MARK
from penstock.workflows.documents.chunking.pieces import Checkpoint, Chunk, Section, Text, cut, packed, unchecked

for _library in ("markdown_it", "lxml"):  # loaded late, and their absence is to be told before the first file is read
    if find_spec(_library) is None:
        raise ModuleNotFoundError(f"No module named {_library!r}", name=_library)

SUFFIXES = (".md", ".txt", ".rst", ".py", ".html")


def _markdown(text: Text, check: Checkpoint) -> Iterable[Section]:
    from penstock.workflows.documents.chunking import markdown  # noqa: PLC0415 -- its parser takes 0.1 s to load

    return markdown.sections(text, check)


_BY_SUFFIX = {".md": _markdown, ".rst": rst.sections, ".py": python.sections}


def split(name: str, content: str, check: Checkpoint = unchecked) -> list[Chunk]:
    """Cut a document into chunks: by definition, heading or paragraph, as the suffix of its name says.

    No chunk is blank or has more than 1,150 characters, and no heading has more than 200. It takes time and memory in
    proportion to the text, whatever it holds: up to 2 s for each megabyte, in which `check` is called.
    """
    suffix = PurePath(name).suffix.lower()
    content = content.replace("\r\n", "\n").replace("\r", "\n")
    text, sections = _read(suffix, content, check)
    return list(cut(text, packed(text, sections, python.MARK if suffix == ".py" else MARK)))


def _read(suffix: str, content: str, check: Checkpoint) -> tuple[Text, Iterable[Section]]:
    if suffix == ".html":
        from penstock.workflows.documents.chunking import html_text  # noqa: PLC0415 -- as above

        return html_text.read(content, check)
    text = Text(content)
    return text, _BY_SUFFIX.get(suffix, plain.sections)(text, check)
