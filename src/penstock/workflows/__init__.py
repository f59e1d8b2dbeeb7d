"""Ready-made jobs: `embed` documents into an index, `search` it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.durable.lock import HeldError
    from penstock.durable.sqlite import StoreError, StoreFullError
    from penstock.sources.walking import PathError
    from penstock.workflows.documents.embedders import Embedder, EmbedderUnavailableError, EmbedError
    from penstock.workflows.documents.embedders.hashing import HashEmbedder
    from penstock.workflows.documents.embedders.local_model import SentenceTransformerEmbedder
    from penstock.workflows.documents.embedders.named import embedder_named
    from penstock.workflows.documents.embedders.openai import OpenAIEmbedder
    from penstock.workflows.documents.job import EmbedJob, EmbedOptions, embed
    from penstock.workflows.documents.reading import DocumentError
    from penstock.workflows.documents.report import EmbedReport, Failure
    from penstock.workflows.documents.search import Hit, search

_HOMES = {
    "durable.lock": ("HeldError",),
    "durable.sqlite": ("StoreError", "StoreFullError"),
    "sources.walking": ("PathError",),
    "workflows.documents.embedders": ("EmbedError", "Embedder", "EmbedderUnavailableError"),
    "workflows.documents.embedders.hashing": ("HashEmbedder",),
    "workflows.documents.embedders.local_model": ("SentenceTransformerEmbedder",),
    "workflows.documents.embedders.named": ("embedder_named",),
    "workflows.documents.embedders.openai": ("OpenAIEmbedder",),
    "workflows.documents.job": ("EmbedJob", "EmbedOptions", "embed"),
    "workflows.documents.reading": ("DocumentError",),
    "workflows.documents.report": ("EmbedReport", "Failure"),
    "workflows.documents.search": ("Hit", "search"),
}
_EXTRAS = {"apsw": "embed", "sqlite_vec": "embed", "numpy": "embed", "lxml": "embed", "httpx": "openai"}
_HOME_OF = {name: f"penstock.{home}" for home, names in _HOMES.items() for name in names}

__all__ = [
    "DocumentError",
    "EmbedError",
    "EmbedJob",
    "EmbedOptions",
    "EmbedReport",
    "Embedder",
    "EmbedderUnavailableError",
    "Failure",
    "HashEmbedder",
    "HeldError",
    "Hit",
    "OpenAIEmbedder",
    "PathError",
    "SentenceTransformerEmbedder",
    "StoreError",
    "StoreFullError",
    "embed",
    "embedder_named",
    "search",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: the libraries behind it are an extra."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'penstock.workflows' has no attribute {name!r}")
    try:
        value = getattr(import_module(_HOME_OF[name]), name)
    except ModuleNotFoundError as error:
        if error.name in _EXTRAS:
            raise ModuleNotFoundError(
                f"penstock.workflows.{name} needs {error.name}: pip install 'penstock[{_EXTRAS[error.name]}]'",
                name=error.name,
            ) from error
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
