"""What an engine runs for a file: it is read, cut into chunks and, by the hash embedder, embedded."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from penstock.sources.selection import Selection
from penstock.sources.walking import FoundFile, Roots
from penstock.workflows.documents.chunking.pieces import Checkpoint, unchecked
from penstock.workflows.documents.embedders import Vectors
from penstock.workflows.documents.embedders.hashing import HashEmbedder
from penstock.workflows.documents.reading import Document, read

BATCH = 64
"""Texts that are embedded at once: the work of more does not fit into the caches of a processor."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Loaded:
    """A document, and the vectors of its pieces if they were made where it was read."""

    document: Document
    vectors: Vectors | None = None

    def __repr__(self) -> str:
        return repr(self.document.file)


@dataclass(frozen=True, slots=True)
class Loader:
    """Loads documents: with fields that can be pickled, in another process, too.

    Attributes:
        places, selection: where a link may lead to.
        max_size: bytes of a file.
        embedder: what makes vectors here; None: they are made later.
        check: what `read` calls now and then.
    """

    places: Roots
    selection: Selection
    max_size: int
    embedder: HashEmbedder | None = None
    check: Checkpoint = unchecked

    def load(self, file: FoundFile) -> Loaded:
        """Read the document in `file`.

        Raises:
            DocumentError: the file has no document.
        """
        document = read(file, max_size=self.max_size, allows=partial(self._allows, file), check=self.check)
        return Loaded(document, None if self.embedder is None else _vectors(self.embedder, document))

    def _allows(self, file: FoundFile, place: str) -> bool:
        """Whether a file may be read that is a link to the real path `place`."""
        is_named = (file.directory, file.name) in self.places.files
        return is_named or self.selection.follows or self.places.hold(place, self.selection)


def _vectors(embedder: HashEmbedder, document: Document) -> Vectors:
    texts = [piece.embedded_text for piece in document.pieces()]
    vectors = np.empty((len(texts), embedder.dimensions), np.float32)
    for first in range(0, len(texts), BATCH):
        vectors[first : first + BATCH] = embedder.embed(texts[first : first + BATCH])
    return vectors
