"""The stage that embeds documents, on the loop or in threads, as the embedder is written."""

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Literal, cast

import numpy as np

from penstock.engines.local import kind_of
from penstock.streams import Stream
from penstock.workflows.documents.embedders import Embedder, EmbedderUnavailableError, Vectors
from penstock.workflows.documents.reading import Document

BATCH = 64
"""Texts that an embedder in threads is given at once; a batch never crosses a document."""

IN_THREADS, ON_LOOP = 2, 8
"""Documents that are embedded at once, by a plain embedder and by an async one."""

type Embedded = tuple[Document, Vectors | EmbedderUnavailableError]
"""A document with its vectors, or with the error that ends the run: as a stage's own failure it could be collected."""


class Embedding:
    """What a run does with its embedder."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.on_loop: bool = kind_of(embedder.embed) != "plain"

    def entered(self) -> AbstractAsyncContextManager[Any]:
        """The embedder to be entered for the time of a run, if it can be."""
        if isinstance(self._embedder, AbstractAsyncContextManager):
            return cast("AbstractAsyncContextManager[Any]", self._embedder)
        return nullcontext()

    def of(self, documents: Stream[Document], on_error: Literal["collect", "raise"]) -> Stream[Embedded]:
        """The documents with their vectors, as each is embedded."""
        if self.on_loop:
            return documents.map(
                self._embed_on_loop, name="embed", concurrency=ON_LOOP, ordered=False, on_error=on_error
            )
        return documents.map(self._embed, name="embed", concurrency=IN_THREADS, ordered=False, on_error=on_error)

    def _embed(self, document: Document) -> Embedded:
        vectors = self._room(document)
        for first in range(0, len(vectors), BATCH):
            try:
                given = self._embedder.embed(document.texts(first, BATCH))
            except EmbedderUnavailableError as error:
                return document, error
            if isinstance(given, Awaitable):
                raise TypeError(f"the embedder {self._embedder.name} gave an awaitable: make its embed an `async def`")
            self._fill(vectors[first : first + BATCH], given)
        return document, vectors

    async def _embed_on_loop(self, document: Document) -> Embedded:
        vectors = self._room(document)
        if len(vectors):
            try:
                given = self._embedder.embed(document.texts(0, len(vectors)))
                self._fill(vectors, await given if isinstance(given, Awaitable) else given)
            except EmbedderUnavailableError as error:
                return document, error
        return document, vectors

    def _room(self, document: Document) -> Vectors:
        return np.empty((len(document.chunks), self._embedder.dimensions or 0), np.float32)

    def _fill(self, room: Vectors, given: Vectors) -> None:
        if given.shape != room.shape:  # numpy would spread one row over all
            raise ValueError(
                f"the embedder {self._embedder.name} gave an array of {given.shape} for {len(room)} texts, "
                f"not {room.shape}"
            )
        room[:] = given
