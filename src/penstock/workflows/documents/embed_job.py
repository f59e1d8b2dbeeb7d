"""The job behind `embed`: files stream through reading and embedding into an index."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypedDict, Unpack, cast

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.outcome import Failed
from penstock.core.stats import StageStats, Stats
from penstock.durable.handle import DurableRun
from penstock.durable.memo import Memo
from penstock.durable.report import RunReport
from penstock.engines.choosing import EngineOption, chosen
from penstock.engines.process.processes_engine import processors
from penstock.sinks.sqlite_store import database
from penstock.sinks.vector_rows import VectorRow
from penstock.sinks.vectors import SqliteVectors
from penstock.sources.paths import path_of
from penstock.sources.selection import selection, several
from penstock.sources.walking import FoundFile, roots
from penstock.streams import Stream
from penstock.workflows.documents import index
from penstock.workflows.documents.chunking import SUFFIXES
from penstock.workflows.documents.embed_report import LISTED, EmbedReport, Failure, Listed, peak_memory
from penstock.workflows.documents.embedders import Embedder, EmbedError
from penstock.workflows.documents.embedders.hashing import HashEmbedder
from penstock.workflows.documents.embedding import Embedded, Embedding, IndexRow, OnFailure
from penstock.workflows.documents.file_engine import FileEngine
from penstock.workflows.documents.file_set import FileSet
from penstock.workflows.documents.loading import Loader, MadeRows, RowMaker
from penstock.workflows.documents.reading import Document, DocumentError

if TYPE_CHECKING:
    from penstock.flow.streaming_pipeline import StreamingPipeline

GLOB = tuple(f"*{suffix}" for suffix in SUFFIXES)
MAX_FILE_SIZE = 2_000_000
RUN = "embed"
"""The name of the run: one for an index, whatever paths are embedded into it."""

GRACE = 3.0

type Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class EmbedOptions(TypedDict, total=False):
    """Options of `embed`.

    Attributes:
        glob: patterns of the files to take in directories; default `*.md *.txt *.rst *.py *.html`.
        exclude: patterns of files and directories to leave out.
        concurrency: files that are read and chunked at once, an int >= 1; default 4.
        engine: where files are read, chunked and, by the `HashEmbedder`, embedded: "inline", "thread", "process" or an
            engine of `penstock.engines`. Default None: with the `HashEmbedder`, worker processes from half a megabyte
            of new files on; with another one, which is what takes long and runs in threads or on the loop, "thread".
        on_error: "collect" (the default) goes on and reports a file that fails, "raise" ends the run with it.
        max_file_size: bytes, an int >= 1; default 2,000,000. A larger file fails.
        embedder: default `HashEmbedder()`.
        prune: whether to remove files from the index that are gone, of those that the paths and globs cover; default
            False. A run that ends early removes nothing. Nothing is removed of a directory that cannot be read or of a
            path that has become empty; both fail.
        memo: whether to keep vectors in the index, by their texts, so that none is paid for twice: of documents that
            were not done when a run ended early, and of unchanged parts of changed documents. It takes the same room
            again; default False.
        follow_links: whether to read files outside of the paths, or files that are left out, that links in the paths
            lead to; default False, as whoever may write to a path would decide what is read. A file that is named is
            read, link or not.
    """

    glob: Iterable[str]
    exclude: Iterable[str]
    concurrency: int
    engine: EngineOption | None
    on_error: OnFailure
    max_file_size: int
    embedder: Embedder
    prune: bool
    memo: bool
    follow_links: bool


async def embed(paths: Paths, target: str | os.PathLike[str], **options: Unpack[EmbedOptions]) -> EmbedReport:
    """Index the files under `paths` in the SQLite file `target`; what it has in its present version is skipped.

    A document is stored whole, in one transaction, or not at all: killed at any instant and called again, this goes on
    where it was (P10, P11). A changed file replaces its former rows; one that fails keeps them, and is tried again by
    the next call. Texts are embedded in batches across documents. Memory does not grow with the number of files.

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
    """One call of `embed`, which can be watched with `report` and ended early with `stop`."""

    def __init__(self, paths: Paths, target: str | os.PathLike[str], **options: Unpack[EmbedOptions]) -> None:
        """Check options and paths; nothing is written before `run`.

        Raises:
            OptionError: an option breaks its rule.
        """
        self._target = database("target", target)
        self._selection = selection(
            _at_least_one("glob", "pattern", options.get("glob", GLOB)),
            _paths(options.get("exclude", ())),
            follows=validate.flag("follow_links", options.get("follow_links", False)),
        )
        self._concurrency = validate.whole("concurrency", options.get("concurrency", 4), least=1)
        self._max_file_size = validate.whole("max_file_size", options.get("max_file_size", MAX_FILE_SIZE), least=1)
        self._engine: EngineOption | None = options.get("engine")
        chosen(self._engine, "plain", self._concurrency)
        self._on_error: OnFailure = validate.one_of(
            "on_error", options.get("on_error", "collect"), ("collect", "raise")
        )
        self._embedder: Embedder = options.get("embedder") or HashEmbedder()
        self._embedding = Embedding(
            self._embedder, self._memo if validate.flag("memo", options.get("memo", False)) else None
        )
        self._prune = validate.flag("prune", options.get("prune", False))
        self._places = roots(_at_least_one("paths", "path", paths))
        self._files = FileSet(
            self._places,
            self._selection,
            self._cannot_walk,
            target=self._target,
            knows=self._knows if self._prune else None,
        )
        self._unreached = Listed[Failure]()
        self._replaced = self._replaced_characters = self._made = 0
        self._durable: DurableRun | None = None
        self._patience: asyncio.Timeout | None = None
        self._giving_up: asyncio.TimerHandle | None = None
        self._given_up = False
        self._ended_by: Failure | None = None
        self._stopped = False

    @property
    def opened(self) -> bool:
        """Whether the index was opened: then there is something to report, also after an error."""
        return self._durable is not None

    async def run(self) -> EmbedReport:
        """Do it, once; `embed` says what it raises."""
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
            if self._giving_up is not None:
                self._giving_up.cancel()
        return self.report()

    def stop(self, grace: float = GRACE) -> None:
        """Finish and store what is in flight, take nothing more; then `run` returns. Call it on the loop of the run.

        What takes more than `grace` seconds is given up: calls of an async embedder are cancelled, and documents that
        are being split are left. The next run does a document that is not stored.
        """
        self._stopped = True
        loop, patience = asyncio.get_running_loop(), self._patience
        if patience is None or patience.expired() or self._giving_up is not None:
            return
        if self._durable is not None:
            self._durable.stop()
            self._giving_up = loop.call_later(grace, self._give_up, patience, self._durable)
        elif self._embedding.on_loop:
            patience.reschedule(loop.time())

    def _give_up(self, patience: asyncio.Timeout, durable: DurableRun) -> None:
        """Leave what is still in flight.

        Its stages are stopped first: from then on, what a thread raises is no failure.
        """
        patience.reschedule(asyncio.get_running_loop().time())
        durable.abort()
        self._given_up = True

    def _check(self) -> None:
        if self._given_up:
            raise asyncio.CancelledError

    def report(self) -> EmbedReport:
        """Return what was done so far; may be called at any time, from any thread."""
        durable, gone = self._durable, self._files.gone
        done = None if durable is None else durable.report()
        failed = self._failed()
        return EmbedReport(
            target=self._target,
            files=done.delivered if done else 0,
            chunks=done.rows if done else 0,
            recalled=done.recalled if done else 0,
            unchanged=done.already_done if done else 0,
            failed=self._unreached.count + (len(failed) if self._on_error == "raise" or not done else done.dead),
            failures=(*self._unreached, *failed)[-LISTED:],
            gone=gone.count,
            gone_files=tuple(gone),
            removed=done.removed if done else 0,
            replaced=self._replaced,
            replaced_characters=self._replaced_characters,
            links=self._files.links,
            links_out=self._files.links_out,
            seconds=done.seconds if done else 0.0,
            first_row_seconds=durable.first_row_s if durable else None,
            peak_memory=peak_memory(),
            interrupted=self._stopped,
            lost=done.lost if done else 0,
            stages=_stages(done.stats, done, self._made if self._hash else None) if done else (),
        )

    def _failed(self) -> list[Failure]:
        """Return the files that failed, as far as they are kept; the one that ended the run is the last."""
        failures = self._durable.failures if self._durable else ()
        failed = {each.root: _failure(each, each.root) for each in failures if isinstance(each.root, str)}
        return [*failed.values(), *(() if self._ended_by is None else (self._ended_by,))]

    async def _index(self) -> None:
        """Enter the embedder, so that one that cannot be used fails before anything is written; then do the work."""
        async with self._embedding.entered(), self._engine_chosen() as engine:
            index.refuse_other(self._target, self._embedder)
            async with self._delivery(engine) as self._durable:
                if self._stopped:
                    self._durable.stop()
                try:
                    await self._durable.finish()
                except DocumentError as error:
                    failure = Failure(error.path, error.reason)
                    self._ended_by = None if failure in self._unreached else failure
                    raise

    def _memo(self) -> Memo:
        assert self._durable is not None
        return self._durable.memo

    @property
    def pipeline(self) -> "StreamingPipeline[FoundFile, IndexRow]":
        """What becomes of a file: rows of the index. As a step, `pipeline.as_step()` does it for a batch of files.

        Without `memo`, it can be used without this job.
        """
        from penstock.flow.streaming_pipeline import StreamingPipeline  # noqa: PLC0415 -- the job itself needs none

        return StreamingPipeline(RUN, partial(self._rows, self._engine or "thread"))

    def _delivery(self, engine: EngineOption) -> DurableRun:
        """Describe the durable run: kept vectors go by the embedder, not by the code of these functions."""
        sink = SqliteVectors(self._target, embedder=self._embedder.name, dimensions=self._embedder.dimensions)
        files = self._files.stream(self._embedding.code)
        rows = self._rows(engine, files) if self._hash is None else self._made_rows(engine, files, self._hash)
        return rows.deliver(
            sink,
            run=RUN,
            on_missing="delete_all" if self._prune else "keep",
            on_error=self._on_error,
            find_killers=False,  # models in the process
            grace=GRACE,
        )

    @asynccontextmanager
    async def _engine_chosen(self) -> AsyncGenerator[EngineOption]:
        """Give the engine of the option, or the one that is best with the embedder, which is closed after that."""
        if self._engine is not None or self._hash is None or processors() == 1 or not sys.executable:
            yield self._engine or "thread"
            return
        engine = FileEngine(min(self._concurrency, processors()))
        try:
            yield engine
        finally:
            await engine.aclose(0)  # whatever runs there still is not waited for any more

    @property
    def _hash(self) -> HashEmbedder | None:
        """The embedder, if it goes to where files are read: it is quick, and any process has it."""
        is_one = type(self._embedder) is HashEmbedder and not self._embedding.keeps
        return cast("HashEmbedder", self._embedder) if is_one else None

    def _rows(self, engine: EngineOption, files: Stream[FoundFile]) -> Stream[IndexRow]:
        documents = self._read(engine, files, self._loader.load)
        return self._embedding.of(documents.flat_map(self._pieces, name="pieces"), self._on_error)

    def _made_rows(self, engine: EngineOption, files: Stream[FoundFile], embedder: HashEmbedder) -> Stream[VectorRow]:
        made = self._read(engine, files, RowMaker(self._loader, embedder).make)
        return made.flat_map(self._rows_of, name="chunks")

    def _read[R](self, engine: EngineOption, files: Stream[FoundFile], load: Callable[[FoundFile], R]) -> Stream[R]:
        return files.map(
            load, name="read", concurrency=self._concurrency, engine=engine, ordered=False, on_error=self._on_error
        )

    @property
    def _loader(self) -> Loader:
        return Loader(self._places, self._selection, self._max_file_size, self._check)

    def _pieces(self, document: Document) -> list[Embedded]:
        self._note_replaced(document.replaced)
        return [Embedded(piece) for piece in document.pieces()]

    def _rows_of(self, made: MadeRows) -> list[VectorRow]:
        self._note_replaced(made.replaced)
        self._made += len(made.rows)
        return made.rows

    def _note_replaced(self, characters: int) -> None:
        self._replaced += characters > 0
        self._replaced_characters += characters

    def _knows(self, directory: str) -> bool:
        return index.has_files_below(self._target, directory)

    def _cannot_walk(self, path: str, error: OSError) -> None:
        reason = (error.strerror or str(error)).lower()
        self._unreached.add(Failure(path, reason))
        if self._on_error == "raise":
            raise DocumentError(path, reason) from error


def _failure(failed: Failed, key: str) -> Failure:
    """Describe the failure for a reader."""
    error = failed.error
    if isinstance(error, DocumentError):
        return Failure(error.path, error.reason)
    return Failure(path_of(key), str(error) if isinstance(error, EmbedError) else f"{type(error).__name__}: {error}")


def _stages(stats: Stats, done: RunReport, made: int | None) -> tuple[StageStats, ...]:
    """Return the stages for a reader: files that are read, chunks that are embedded, files that are stored.

    `made` is how many chunks were embedded where files are read.
    """
    if not stats.stages:
        return ()
    read = stats["read"]
    failed = max(0, done.dead - read.failed)
    if made is not None:
        embedded = StageStats("embed", made, made, 0, 0, 0, 0)
    else:
        embed, vectors = stats["embed"], stats["vectors"]
        embedded = replace(embed, delivered=vectors.delivered, failed=embed.failed + vectors.failed)
    return (
        replace(read, delivered=read.delivered + read.dropped, dropped=0),  # an empty file was read, too
        embedded,
        StageStats(
            "store", max(read.delivered + read.dropped, done.delivered + failed), done.delivered, 0, failed, 0, 0
        ),
    )


def _at_least_one(option: str, kind: str, values: Paths) -> list[str]:
    found = _paths(values)
    if not found:
        raise OptionError(f"{option} must have at least one {kind}, got {found!r}")
    return found


def _paths(values: Paths) -> list[str]:
    return [os.fspath(value) for value in several(values)]
