"""LlamaIndex's IngestionPipeline as its documentation has it, with penstock's splitter and embedder put in."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import apsw
import numpy as np
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.schema import (
    BaseNode,
    Document,
    MetadataMode,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
    TransformComponent,
)
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQuery, VectorStoreQueryResult
from pydantic import PrivateAttr

from penstock.workflows.documents.chunking import split

TABLE = """
CREATE TABLE IF NOT EXISTS chunks (node PRIMARY KEY, path, text, vector);
CREATE INDEX IF NOT EXISTS chunks_path ON chunks (path);
"""


def documents(paths: Iterable[Path]) -> list[Document]:
    """The files, known by their paths."""
    return [Document(text=path.read_text(), id_=str(path)) for path in paths]


class Split(TransformComponent):
    """Chunks; nodes get random ids, as those of LlamaIndex's own splitters do."""

    def __call__(self, nodes: Sequence[BaseNode], **_: Any) -> list[BaseNode]:
        return [
            TextNode(
                text=f"{f'{Path(node.node_id).stem} {chunk.heading}'.strip()}\n{chunk.text}",
                relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=node.node_id)},
            )
            for node in nodes
            for chunk in split(Path(node.node_id).name, node.get_content(metadata_mode=MetadataMode.NONE))
        ]


class Embed(BaseEmbedding):
    """An embedder of penstock."""

    _embedder: Any = PrivateAttr()

    def __init__(self, embedder: Any, batch: int) -> None:
        super().__init__(embed_batch_size=batch)
        self._embedder = embedder

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embedder.embed(texts).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class Rows(BasePydanticVectorStore):
    """Nodes in SQLite, a transaction for each `add`; a node of the same id is replaced."""

    stores_text: bool = True
    path: str

    @property
    def client(self) -> None:
        return None

    def add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        rows = [
            (
                node.node_id,
                node.ref_doc_id,
                node.get_content(metadata_mode=MetadataMode.NONE).partition("\n")[2],
                np.asarray(node.embedding, np.float32).tobytes(),
            )
            for node in nodes
        ]
        self._write("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?)", rows)
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        self._write("DELETE FROM chunks WHERE path = ?", [(ref_doc_id,)])

    def query(self, query: VectorStoreQuery, **_: Any) -> VectorStoreQueryResult:
        raise NotImplementedError

    def _write(self, statement: str, values: list[tuple[Any, ...]]) -> None:
        connection = apsw.Connection(self.path)
        try:
            connection.set_busy_timeout(10_000)
            with connection:
                connection.execute(TABLE)
                connection.executemany(statement, values)
        finally:
            connection.close()


def pipeline(target: str, embedder: Any, batch: int, place: str, *, caches: bool) -> IngestionPipeline:
    """The pipeline, with what it knew when it was persisted last."""
    made = IngestionPipeline(
        transformations=[Split(), Embed(embedder, batch)],
        vector_store=Rows(path=target),
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS,
        disable_cache=not caches,
    )
    if Path(place).exists():
        made.load(place)
    return made
