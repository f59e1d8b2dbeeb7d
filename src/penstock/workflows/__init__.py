"""Ready-made jobs: `embed` and `search`, `fetch`, `make_thumbnails`; `map_rows` and `ask` for rows."""

from typing import TYPE_CHECKING

from penstock.exports import exports

if TYPE_CHECKING:
    from penstock.durable.store_errors import HeldError, StoreError, StoreFullError
    from penstock.sources.walking import PathError
    from penstock.workflows.documents.embed_job import EmbedJob, EmbedOptions, embed
    from penstock.workflows.documents.embed_report import EmbedReport, Failure
    from penstock.workflows.documents.embedders import (
        Embedder,
        EmbedderAccountError,
        EmbedderUnavailableError,
        EmbedError,
    )
    from penstock.workflows.documents.embedders.hashing import HashEmbedder
    from penstock.workflows.documents.embedders.local_model import SentenceTransformerEmbedder
    from penstock.workflows.documents.embedders.named import embedder_named
    from penstock.workflows.documents.embedders.openai import OpenAIEmbedder
    from penstock.workflows.documents.reading import DocumentError
    from penstock.workflows.documents.search import Hit, embedder_of, search
    from penstock.workflows.fetching.fetch_job import FetchJob, FetchOptions, fetch
    from penstock.workflows.fetching.fetch_report import FetchFailure, FetchReport
    from penstock.workflows.fetching.fetcher import Fetcher, FetchError
    from penstock.workflows.fetching.url_file import FetchRow, fetch_rows
    from penstock.workflows.rows.ask_job import AskJob, AskOptions, AskReport, ask
    from penstock.workflows.rows.exporting import export
    from penstock.workflows.rows.map_job import MapJob, MapRowsOptions, map_rows
    from penstock.workflows.rows.row_job import RowFailedError
    from penstock.workflows.rows.spending import Spending
    from penstock.workflows.thumbnails.pictures import PictureError, Thumbnailer
    from penstock.workflows.thumbnails.thumbnail_job import (
        ThumbnailJob,
        ThumbnailOptions,
        make_thumbnails,
        thumbnail_pipeline,
    )
    from penstock.workflows.thumbnails.thumbnail_report import PictureFailure, ThumbnailReport
else:
    __getattr__, __dir__ = exports(
        __name__,
        {
            "penstock.durable.store_errors": ("HeldError", "StoreError", "StoreFullError"),
            "penstock.sources.walking": ("PathError",),
            "penstock.workflows.documents.embedders": (
                "EmbedError",
                "Embedder",
                "EmbedderAccountError",
                "EmbedderUnavailableError",
            ),
            "penstock.workflows.documents.embedders.hashing": ("HashEmbedder",),
            "penstock.workflows.documents.embedders.local_model": ("SentenceTransformerEmbedder",),
            "penstock.workflows.documents.embedders.named": ("embedder_named",),
            "penstock.workflows.documents.embedders.openai": ("OpenAIEmbedder",),
            "penstock.workflows.documents.embed_job": ("EmbedJob", "EmbedOptions", "embed"),
            "penstock.workflows.documents.reading": ("DocumentError",),
            "penstock.workflows.documents.embed_report": ("EmbedReport", "Failure"),
            "penstock.workflows.documents.search": ("Hit", "embedder_of", "search"),
            "penstock.workflows.fetching.fetch_job": ("FetchJob", "FetchOptions", "fetch"),
            "penstock.workflows.fetching.fetch_report": ("FetchFailure", "FetchReport"),
            "penstock.workflows.fetching.fetcher": ("FetchError", "Fetcher"),
            "penstock.workflows.fetching.url_file": ("FetchRow", "fetch_rows"),
            "penstock.workflows.thumbnails.pictures": ("PictureError", "Thumbnailer"),
            "penstock.workflows.thumbnails.thumbnail_job": (
                "ThumbnailJob",
                "ThumbnailOptions",
                "make_thumbnails",
                "thumbnail_pipeline",
            ),
            "penstock.workflows.thumbnails.thumbnail_report": ("PictureFailure", "ThumbnailReport"),
            "penstock.workflows.rows.ask_job": ("AskJob", "AskOptions", "AskReport", "ask"),
            "penstock.workflows.rows.exporting": ("export",),
            "penstock.workflows.rows.map_job": ("MapJob", "MapRowsOptions", "map_rows"),
            "penstock.workflows.rows.row_job": ("RowFailedError",),
            "penstock.workflows.rows.spending": ("Spending",),
        },
        extras={
            "apsw": "embed",
            "sqlite_vec": "embed",
            "numpy": "embed",
            "lxml": "embed",
            "markdown_it": "embed",
            "webencodings": "embed",
            "httpx": "openai",
        },
        extras_of={
            "penstock.workflows.fetching": {"apsw": "fetch", "httpcore": "fetch", "httpx": "fetch"},
            "penstock.workflows.rows": {"apsw": "durable"},
            "penstock.workflows.thumbnails": {"apsw": "images"},
        },
    )

__all__ = [
    "AskJob",
    "AskOptions",
    "AskReport",
    "DocumentError",
    "EmbedError",
    "EmbedJob",
    "EmbedOptions",
    "EmbedReport",
    "Embedder",
    "EmbedderAccountError",
    "EmbedderUnavailableError",
    "Failure",
    "FetchError",
    "FetchFailure",
    "FetchJob",
    "FetchOptions",
    "FetchReport",
    "FetchRow",
    "Fetcher",
    "HashEmbedder",
    "HeldError",
    "Hit",
    "MapJob",
    "MapRowsOptions",
    "OpenAIEmbedder",
    "PathError",
    "PictureError",
    "PictureFailure",
    "RowFailedError",
    "SentenceTransformerEmbedder",
    "Spending",
    "StoreError",
    "StoreFullError",
    "ThumbnailJob",
    "ThumbnailOptions",
    "ThumbnailReport",
    "Thumbnailer",
    "ask",
    "embed",
    "embedder_named",
    "embedder_of",
    "export",
    "fetch",
    "fetch_rows",
    "make_thumbnails",
    "map_rows",
    "search",
    "thumbnail_pipeline",
]
