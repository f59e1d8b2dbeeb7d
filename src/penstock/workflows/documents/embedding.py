"""Embeds the pieces of documents in batches across documents, and makes rows of them."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast, override

from penstock.core.plan import MISSING
from penstock.durable.fingerprint import StageCode
from penstock.durable.memo import Memo
from penstock.durable.values import digest, pack
from penstock.engines.local import kind_of
from penstock.streams import Stream
from penstock.workflows.documents.embedders import Embedder, EmbedderUnavailableError, EmbedError, Vectors
from penstock.workflows.documents.reading import Piece

type OnFailure = Literal["collect", "raise"]

BATCH = 64
"""Texts that an embedder is given at once, unless it has an attribute `batch`."""

PROBE = "penstock"
"""A text that shows whether an embedder works."""

WITHIN = 0.1
"""Seconds that a batch waits for more texts after its first one: reading may be slow."""

IN_THREADS, ON_LOOP = 2, 8
"""Batches that are embedded at once: by a plain embedder, and by an async one."""

type IndexRow = dict[str, Any]


@dataclass(slots=True, eq=False)
class Embedded:
    """A piece with its vector: None before, and the error if its whole batch has failed.

    Attributes:
        is_new: whether its vector was not kept from an earlier run.
        was_tried: whether a batch with it has failed, perhaps by its fault.
    """

    piece: Piece
    vector: Any = None
    is_new: bool = True
    was_tried: bool = False

    @override
    def __repr__(self) -> str:
        return repr(self.piece)


class Embedding:
    """How a run uses its embedder.

    Attributes:
        on_loop: whether the embedder runs on the loop.
        keeps: whether vectors are kept.
        code: what kept vectors go by, beside their texts.
    """

    def __init__(self, embedder: Embedder, memo: Callable[[], Memo] | None = None) -> None:
        """Take the embedder; `memo` returns where the open index keeps vectors. None: they are not kept."""
        self._embedder = embedder
        self._again: Callable[[Sequence[str]], Vectors | Awaitable[Vectors]] = getattr(
            embedder, "embed_once", embedder.embed
        )
        self._memo = memo
        self.keeps: bool = memo is not None
        self._size: int = getattr(embedder, "batch", BATCH)
        self.on_loop: bool = kind_of(embedder.embed) != "plain"
        self.code: StageCode = StageCode("embed", digest(("penstock embed", embedder.name)))

    def entered(self) -> AbstractAsyncContextManager[Any]:
        """Return the embedder as a context for the run, if it is one."""
        if isinstance(self._embedder, AbstractAsyncContextManager):
            return cast("AbstractAsyncContextManager[Any]", self._embedder)
        return nullcontext()

    def of(self, pieces: Stream[Embedded], on_error: OnFailure) -> Stream[IndexRow]:
        """Return the rows of the pieces, as each is embedded: by a plain embedder, in threads.

        A batch that fails is halved until the bad texts stand alone, with `embed_once` if the embedder has it. A batch
        that fails for the moment is halved only if the embedder does better with another text: else it is not the
        texts. An embedder that cannot be used ends the run, whatever `on_error` says.
        """
        embed, places = (self._embed_on_loop, ON_LOOP) if self.on_loop else (self._embed, IN_THREADS)
        if self._memo is not None:
            pieces = pieces.map(partial(self._recalled, self._memo), name="recall")
        embedded = pieces.map_batches(
            embed,
            self._size,
            name="embed",
            concurrency=places,
            ordered=False,
            within=WITHIN,
            on_error=on_error,
        )
        return embedded.map(self._kept, name="vectors", on_error=on_error).map(_row, name="rows")

    def _recalled(self, memo: Callable[[], Memo], item: Embedded) -> Embedded:
        vector = memo().find(self.code.fingerprint, digest(item.piece.embedded_text))
        return item if vector is MISSING else Embedded(item.piece, vector, is_new=False)

    def _kept(self, embedded: Embedded) -> Embedded:
        vector = embedded.vector
        if isinstance(vector, EmbedError) and not isinstance(vector, EmbedderUnavailableError):
            raise vector
        if embedded.is_new and self._memo is not None and not isinstance(vector, EmbedError):
            self._memo().remember(self.code.fingerprint, digest(embedded.piece.embedded_text), pack(vector))
        return embedded

    def _way(self, items: Sequence[Embedded]) -> Callable[[Sequence[str]], Vectors | Awaitable[Vectors]]:
        """Return how to embed them: the halves of a failed batch get no further patience."""
        return self._again if any(item.was_tried for item in items) else self._embedder.embed

    def _embed(self, items: list[Embedded]) -> list[Embedded]:
        texts, embed = _new_texts(items), self._way(items)
        try:
            given = embed(texts) if texts else None
        except EmbedError as error:
            _note_tried(items)
            if _may_be_the_texts(texts, error):
                try:
                    embed([PROBE])
                except EmbedError as worse:
                    return _all_failed(items, _graver(error, worse))
                raise
            return _all_failed(items, error)
        if isinstance(given, Awaitable):
            raise TypeError(f"the embedder {self._embedder.name} gave an awaitable: make its embed an `async def`")
        return self._with_vectors(items, texts, given)

    async def _embed_on_loop(self, items: list[Embedded]) -> list[Embedded]:
        texts, embed = _new_texts(items), self._way(items)
        try:
            return self._with_vectors(items, texts, await _awaited(embed(texts)) if texts else None)
        except EmbedError as error:
            _note_tried(items)
            if _may_be_the_texts(texts, error):
                try:
                    await _awaited(embed([PROBE]))
                except EmbedError as worse:
                    return _all_failed(items, _graver(error, worse))
                raise
            return _all_failed(items, error)

    def _with_vectors(self, items: list[Embedded], texts: Sequence[str], given: Vectors | None) -> list[Embedded]:
        if given is None:
            return items
        dimensions = self._embedder.dimensions
        wanted = (len(texts), given.shape[1] if dimensions is None and given.ndim > 1 else dimensions or 0)
        if given.shape != wanted:
            raise ValueError(
                f"the embedder {self._embedder.name} gave an array of {given.shape} for {len(texts)} texts, "
                f"not {wanted}"
            )
        vectors = iter(given)
        return [Embedded(item.piece, next(vectors)) if item.is_new else item for item in items]


async def _awaited(given: Vectors | Awaitable[Vectors]) -> Vectors:
    return await given if isinstance(given, Awaitable) else given


def _note_tried(items: Sequence[Embedded]) -> None:
    for item in items:
        item.was_tried = True


def _new_texts(items: Sequence[Embedded]) -> list[str]:
    return [item.piece.embedded_text for item in items if item.is_new]


def _may_be_the_texts(texts: Sequence[str], error: EmbedError) -> bool:
    """Whether the texts may be at fault for a failure of the moment: then another text would tell."""
    return error.transient and not isinstance(error, EmbedderUnavailableError) and len(texts) > 1


def _graver(error: EmbedError, other: EmbedError) -> EmbedError:
    return other if isinstance(other, EmbedderUnavailableError) else error


def _all_failed(items: Sequence[Embedded], error: EmbedError) -> list[Embedded]:
    """Give every new piece the error: alone, the texts would fare no better than together."""
    if not (error.transient or isinstance(error, EmbedderUnavailableError)):
        raise error
    return [Embedded(item.piece, error) if item.is_new else item for item in items]


def _row(embedded: Embedded) -> IndexRow:
    piece, vector = embedded.piece, embedded.vector
    if isinstance(vector, EmbedderUnavailableError):
        raise vector
    return piece.row(vector)
