"""The default embedder: it needs no model and no network."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.workflows.documents.embedders import Vectors

_SHORTEST, _LONGEST = 3, 5


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
        folded = [f" {' '.join(text.casefold().split())} " for text in texts]
        points = np.frombuffer("".join(folded).encode("utf-32-le", "surrogatepass"), "<u4")
        row = np.repeat(np.arange(len(texts)), [len(text) for text in folded])
        counts = np.zeros((len(texts), self.dimensions))
        grams = points
        for length in range(2, _LONGEST + 1):
            grams = grams[:-1] * np.uint32(0x01000193) + points[length - 1 :]
            if length < _SHORTEST:
                continue
            mixed = (grams ^ (grams >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
            place = row[: 1 - length] * self.dimensions + (mixed >> np.uint32(22))
            sign = np.where(mixed & np.uint32(1 << 12), 1.0, -1.0) * (row[length - 1 :] == row[: 1 - length])
            counts += _sums(place, sign, counts.size).reshape(counts.shape)
        weights = np.abs(counts)
        total = np.maximum(weights.sum(axis=1, keepdims=True), 1)
        return (np.sign(counts) * np.sqrt(weights / total)).astype(np.float32)


def _sums(places: NDArray[np.integer], values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return, for each of `size` places, the sum of the values that belong there."""
    sums: NDArray[np.float64] = np.bincount(places, values, size)
    return sums
