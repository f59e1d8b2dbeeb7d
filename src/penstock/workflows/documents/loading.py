"""What an engine runs for a file: it is read and cut into chunks and, by the hash embedder, made into rows."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, override

import numpy as np

from penstock.sinks.vector_rows import VectorRow
from penstock.sources.selection import Selection
from penstock.sources.walking import FoundFile, Roots
from penstock.workflows.documents.chunking.pieces import Checkpoint, unchecked
from penstock.workflows.documents.embedders.hashing import HashEmbedder
from penstock.workflows.documents.reading import Document, read

BATCH = 64
"""Texts that are embedded at once: the work of more does not fit into the caches of a processor."""


@dataclass(frozen=True, slots=True)
class Loader:
    """Loads documents, in another process, too; `check` stays here.

    Attributes:
        places, selection: where a link may lead to.
        max_size: bytes of a file.
        check: what `read` calls now and then.
    """

    places: Roots
    selection: Selection
    max_size: int
    check: Checkpoint = unchecked

    @override
    def __reduce__(self) -> tuple[object, ...]:
        return Loader, (self.places, self.selection, self.max_size)

    def load(self, file: FoundFile) -> Document:
        """Read the document in `file`.

        Raises:
            DocumentError: the file has no document.
        """
        return read(file, max_size=self.max_size, allows=partial(self._allows, file), check=self.check)

    def _allows(self, file: FoundFile, place: str) -> bool:
        """Whether a file may be read that is a link to the real path `place`."""
        is_named = (file.directory, file.name) in self.places.files
        return is_named or self.selection.follows or self.places.hold(place, self.selection)


class MadeRows(NamedTuple):
    """The rows of a document, ready for the index, and how many times bytes of it were no text."""

    rows: list[VectorRow]
    replaced: int

    @override
    def __repr__(self) -> str:
        return f"{len(self.rows)} rows"


@dataclass(frozen=True, slots=True)
class RowMaker:
    """Makes all that the index needs of a file where that is read: then only rows cross to the driver, packed."""

    loader: Loader
    embedder: HashEmbedder

    def make(self, file: FoundFile) -> MadeRows:
        """Make the rows of the document in `file`.

        Raises:
            DocumentError: the file has no document.
        """
        document = self.loader.load(file)
        pieces = document.pieces()
        vectors = np.empty((len(pieces), self.embedder.dimensions), np.float32)
        for first in range(0, len(pieces), BATCH):
            texts = [piece.embedded_text for piece in pieces[first : first + BATCH]]
            vectors[first : first + BATCH] = self.embedder.embed(texts)
        rows = [VectorRow.of(piece.row(vector)) for piece, vector in zip(pieces, vectors, strict=True)]
        return MadeRows(rows, document.replaced)
