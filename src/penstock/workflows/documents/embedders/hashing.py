"""The default embedder: it needs no model and no network."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.workflows.documents.embedders import Vectors

_SHORTEST, _LONGEST = 3, 5
_AT_ONCE = 16
"""Texts whose grams are counted together: of more, the arrays do not fit into the caches of a processor."""

# The `malloc` of glibc keeps twice as much as the largest block that it has mapped and freed; the rest it gives back to
# the kernel. The arrays of one call are more than it keeps at first: to clear them anew took as long as the rest.
np.empty(2 << 20, np.uint8)


class HashEmbedder:
    """Counts character 3- to 5-grams, hashed to 1,024 signed dimensions: stateless, offline, the same everywhere.

    Feature hashing after Weinberger et al. (2009): one bit of the hash is the sign, so that collisions cancel out on
    average. Case and the kind of white space do not count. It takes the root of each count, so that a word that is
    repeated often does not drown the others. Every step is exact or correctly rounded, whatever the machine.
    """

    name = "hash-1"
    dimensions = 1_024

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one row of unit length per text; an empty text gives a row of zeros."""
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        for first in range(0, len(texts), _AT_ONCE):
            self._embed(texts[first : first + _AT_ONCE], vectors[first : first + _AT_ONCE])
        return vectors

    def _embed(self, texts: Sequence[str], vectors: Vectors) -> None:
        counts = self._counts([f" {' '.join(text.casefold().split())} " for text in texts])
        weights = np.abs(counts)
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1)
        np.copysign(np.sqrt(weights, out=weights), counts, out=vectors, casting="same_kind")

    def _counts(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Count the grams of each text: those of positive sign in one half of its bins, the others in the other."""
        points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4")
        sizes = [len(text) for text in texts]
        ends = np.cumsum(sizes)
        none = len(texts) * 2 * self.dimensions  # the bin of what is no gram: it begins in one text and ends in another
        bins = np.repeat(np.arange(0, none, 2 * self.dimensions, dtype=np.uint32), sizes)
        places = np.full((_LONGEST - _SHORTEST + 1, len(points)), none, np.intp)
        grams = points
        for length in range(2, _LONGEST + 1):
            grams = grams[:-1] * np.uint32(0x01000193)
            grams += points[length - 1 :]
            if length < _SHORTEST:
                continue
            mixed = (grams ^ (grams >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
            sign = (mixed >> np.uint32(2)) & np.uint32(self.dimensions)
            place = places[length - _SHORTEST]
            place[: 1 - length] = bins[: 1 - length] + (sign | (mixed >> np.uint32(22)))
            for back in range(1, length):
                place[ends - back] = none
        counts = np.bincount(places.ravel(), minlength=none + 1)[:-1].reshape(len(texts), 2, self.dimensions)
        return (counts[:, 1] - counts[:, 0]).astype(np.float64)
