"""Embedders: they turn texts into vectors."""

from collections.abc import Awaitable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.core.errors import FatalError, PenstockError

type Vectors = NDArray[np.float32]


class EmbedError(PenstockError):
    """Texts could not be embedded; the message says why.

    Attributes:
        transient: whether another attempt may do better.
        retry_after: seconds that the server asks to wait before it; None if it does not ask.
    """

    def __init__(self, message: str, *, transient: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.transient = transient
        self.retry_after = retry_after


class EmbedderUnavailableError(EmbedError):
    """The embedder cannot be used, whatever the texts; so this ends a run, whatever `on_error` says."""


class EmbedderAccountError(EmbedderUnavailableError, FatalError):
    """The service refuses whoever asks: the key, what it may do, or the credit. The message does not have the key.

    It ends any stream at once, is never retried, and no item is set aside for it.
    """


class Embedder(Protocol):
    """Turns texts into vectors; `name` and `dimensions` tell whether two indexes can be compared.

    An embedder that is also an async context manager is entered for the time of a run: there it connects and
    disconnects. One that retries may have a method `embed_once`, which does not: it is called for the halves of a batch
    that has failed.
    """

    @property
    def name(self) -> str:
        """The name that the index remembers; it changes when the vectors would."""
        ...

    @property
    def dimensions(self) -> int | None:
        """The length of a vector; None while it is not known. It is known once the embedder was entered."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors | Awaitable[Vectors]:
        """Return one row per text, float32.

        Texts come in batches across documents: at most 64, or as many as an attribute `batch` says. An `async def` runs
        on the loop, for 8 batches at once; a plain function is called from two threads.
        """
        ...
