"""The job: files stream through reading and embedding into an index."""

import asyncio
import os
from collections.abc import Iterable
from itertools import batched
from time import perf_counter
from typing import Literal, TypedDict, Unpack

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.outcome import Failed
from penstock.run import Run
from penstock.sources.files import File, roots
from penstock.sources.selection import selection
from penstock.functions import stream
from penstock.streams import Stream
from penstock.workflows.documents.changes import Changes
from penstock.workflows.documents.chunking import SUFFIXES
from penstock.workflows.documents.embedders import Embedder, EmbedderUnavailableError, EmbedError
from penstock.workflows.documents.embedders.hashing import HashEmbedder
from penstock.workflows.documents.embedding import Embedded, Embedding
from penstock.workflows.documents.reading import Document, DocumentError, read
from penstock.workflows.documents.report import LISTED, EmbedReport, Failure, Listed, peak_memory
from penstock.workflows.documents.store import Store

GLOB = tuple(f"*{suffix}" for suffix in SUFFIXES)
MAX_FILE_SIZE = 2_000_000
REMOVED = 256
"""Files that are removed from the index in one transaction."""

GRACE = 3.0

type OnFailure = Literal["collect", "raise"]
type Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


_PER_DOCUMENT = ("read", "embed")
"""The stages whose failures are those of a document; one of the store is that of the run."""

_ON_FAILURE: tuple[OnFailure, ...] = ("collect", "raise")


class EmbedOptions(TypedDict, total=False):
    """Options of `embed`.

    Attributes:
        glob: patterns of the files to take in directories; default `*.md *.txt *.rst *.py *.html`.
        exclude: patterns of files and directories to leave.
        concurrency: files that are read and chunked at once, an int >= 1; default 4.
        on_error: "collect" (the default) goes on and reports a file that fails, "raise" ends the run with it.
        max_file_size: bytes, an int >= 1; default 2,000,000. A larger file fails.
        embedder: default `HashEmbedder()`.
        prune: whether to remove from the index the files that are gone, of those that the paths and globs cover;
            default False. Nothing is removed by a run that ends early, and nothing of a directory that cannot be read
            or of a path that has become empty, both of which fail.
    """

    glob: Iterable[str]
    exclude: Iterable[str]
    concurrency: int
    on_error: OnFailure
    max_file_size: int
    embedder: Embedder
    prune: bool


async def embed(paths: Paths, target: str | os.PathLike[str], **options: Unpack[EmbedOptions]) -> EmbedReport:
    """Index the files under `paths` in the SQLite file `target`; what it has in its present version is skipped.

    A document is stored whole, in one transaction, or not at all: killed at any instant and called again, this goes on
    where it was. A changed file replaces its former rows. Memory does not grow with the number of files.

    Raises:
        OptionError: an option breaks its rule.
        PathError: one of `paths` is missing.
        StoreError: `target` cannot be written, is no index, or was made with another embedder.
        HeldError: another process is writing to `target`.
        EmbedderUnavailableError: the embedder cannot be used; whatever `on_error` says, this ends the run.
        DocumentError: with `on_error="raise"`, the first file that failed.
    """
    return await EmbedJob(paths, target, **options).run()


class EmbedJob:
    """One call of `embed`, to be watched with `report` and ended early with `stop`."""

    def __init__(self, paths: Paths, target: str | os.PathLike[str], **options: Unpack[EmbedOptions]) -> None:
        """Check options and paths; nothing is written before `run`."""
        self._target = os.fspath(target)
        self._selection = selection(
            _at_least_one("glob", "pattern", options.get("glob", GLOB)), _several(options.get("exclude", ()))
        )
        self._concurrency = validate.whole("concurrency", options.get("concurrency", 4), least=1)
        self._max_file_size = validate.whole("max_file_size", options.get("max_file_size", MAX_FILE_SIZE), least=1)
        self._on_error: OnFailure = validate.one_of(
            "on_error", options.get("on_error", "collect"), ("collect", "raise")
        )
        self._embedder: Embedder = options.get("embedder") or HashEmbedder()
        self._embedding = Embedding(self._embedder)
        self._prune = validate.flag("prune", options.get("prune", False))
        self._places = roots(_at_least_one("paths", "path", paths))
        self._unreached = Listed[Failure]()
        self._files = self._chunks = self._replaced = self._removed = 0
        self._opened: float | None = None
        self._closed: float | None = None
        self._first_row: float | None = None
        self._changes: Changes | None = None
        self._run: Run[Document] | None = None
        self._patience: asyncio.Timeout | None = None
        self._ended_by: Failure | None = None
        self._stopped = False

    @property
    def opened(self) -> bool:
        """Whether the index was opened: then there is something to report, also after an error."""
        return self._opened is not None

    async def run(self) -> EmbedReport:
        """Do it, once; `embed` says what is raised."""
        patience = asyncio.timeout(None)
        try:
            async with patience:
                self._patience = patience
                if not self._stopped:
                    await self._index()
        except TimeoutError:
            if not patience.expired():
                raise
        finally:
            self._patience = None
        return self.report()

    def stop(self, grace: float = GRACE) -> None:
        """Finish and store what is in flight, take nothing more; `run` then returns. To be called on the run's loop.

        Calls of an async embedder that take more than `grace` seconds from now on are cancelled; a document that is not
        stored is done by the next run.
        """
        self._stopped = True
        if self._run is not None:
            self._run.stop()
        if self._embedding.on_loop and self._patience is not None and not self._patience.expired():
            self._patience.reschedule(asyncio.get_running_loop().time() + (grace if self._run else 0))

    def report(self) -> EmbedReport:
        """What was done so far; may be called at any time, from any thread."""
        opened = self._opened or perf_counter()
        changes, run = self._changes, self._run
        gone = changes.gone if changes else Listed[str]()
        stages = run.stats().stages if run else ()
        return EmbedReport(
            target=self._target,
            files=self._files,
            chunks=self._chunks,
            unchanged=changes.unchanged if changes else 0,
            failed=self._unreached.count + sum(stage.failed for stage in stages if stage.name in _PER_DOCUMENT),
            failures=self._failures()[-LISTED:],
            gone=gone.count,
            gone_files=tuple(gone),
            removed=self._removed,
            replaced=self._replaced,
            links=changes.links if changes else 0,
            seconds=(self._closed or perf_counter()) - opened,
            first_row_seconds=None if self._first_row is None else self._first_row - opened,
            peak_memory=peak_memory(),
            interrupted=self._stopped,
            stages=stages[1:],
        )

    def _failures(self) -> tuple[Failure, ...]:
        """What failed, as far as it is kept; the one that ended the run is the last."""
        failures = [*self._unreached, *map(_failure, self._run.failures if self._run else ())]
        if self._ended_by is not None and self._ended_by not in failures:
            failures.append(self._ended_by)
        return tuple(failures)

    async def _index(self) -> None:
        """Enter the embedder, so that one that cannot be used is told before anything is written; then do it."""
        async with self._embedding.entered():
            with Store(self._target, self._embedder) as store:
                self._opened = perf_counter()
                try:
                    await self._stream_into(store)
                except DocumentError as error:
                    self._ended_by = Failure(error.path, error.reason)
                    raise
                finally:
                    self._closed = perf_counter()

    async def _stream_into(self, store: Store) -> None:
        self._changes = Changes(store, self._places, self._selection, self._cannot_walk, self._prune)
        async with self._documents(store, self._changes).open() as self._run:
            if self._stopped:
                return
            async for document in self._run:
                self._files += 1
                self._chunks += len(document.chunks)
                self._replaced += document.replaced
        await self._remove(store, self._changes.doomed)

    async def _remove(self, store: Store, doomed: Iterable[int]) -> None:
        removals = stream(batched(doomed, REMOVED)).map(store.remove, concurrency=2)
        async with removals.open() as pruning:
            while not self._stopped:
                removed = await anext(pruning, None)
                if removed is None:
                    return
                self._removed += removed

    def _documents(self, store: Store, changes: Changes) -> Stream[Document]:
        """The documents, as each is stored.

        A failing store or an embedder that cannot be used ends the run whatever `on_error` says: it is not the failure
        of one document.
        """

        def load(file: File) -> Document:
            return read(file, max_size=self._max_file_size)

        def add(embedded: Embedded) -> Document:
            document, vectors = embedded
            if isinstance(vectors, EmbedderUnavailableError):
                raise vectors
            store.replace(document, vectors)
            self._first_row = self._first_row or perf_counter()
            return document

        documents = stream(changes.files).map(
            load, name="read", concurrency=self._concurrency, ordered=False, on_error=self._on_error
        )
        embedded = self._embedding.of(documents, self._on_error)
        return embedded.map(add, name="store", concurrency=2, ordered=False)  # one writes, the next has a thread ready

    def _cannot_walk(self, path: str, error: OSError) -> None:
        reason = (error.strerror or str(error)).lower()
        self._unreached.add(Failure(path, reason))
        if self._on_error == "raise":
            raise DocumentError(path, reason) from error


def _failure(failed: Failed) -> Failure:
    """The failure as a reader wants it."""
    if isinstance(failed.error, DocumentError):
        return Failure(failed.error.path, failed.error.reason)
    file = failed.item.file if isinstance(failed.item, Document) else failed.item
    reason = (
        str(failed.error) if isinstance(failed.error, EmbedError) else f"{type(failed.error).__name__}: {failed.error}"
    )
    return Failure(file.path if isinstance(file, File) else str(file), reason)


def _at_least_one(option: str, kind: str, values: Paths) -> list[str]:
    found = _several(values)
    if not found:
        raise OptionError(f"{option} must have at least one {kind}, got {found!r}")
    return found


def _several(values: Paths) -> list[str]:
    """One path or pattern, or several, as a list: a lone one is not its letters."""
    if isinstance(values, str | os.PathLike):
        return [os.fspath(values)]
    return [os.fspath(value) for value in values]
