"""Vectors from a model in a local directory, through the library sentence-transformers."""

import hashlib
import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from penstock.workflows.documents.embedders import EmbedderUnavailableError, EmbedError, Vectors

_LIBRARY = "sentence_transformers"


class SentenceTransformerEmbedder:
    """Vectors from the model in the directory `path`, as `SentenceTransformer.save` leaves it; nothing is downloaded.

    Its name in an index is `sentence-transformers:DIGEST`, where DIGEST is that of all files of the model but the
    hidden ones and `*.md`: a model that was moved or renamed is the same, one with other weights is another.

    Raises:
        EmbedderUnavailableError: there is no such directory, or no model in it.
        ModuleNotFoundError: sentence-transformers is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        place = Path(path)
        if not place.is_dir():
            raise EmbedderUnavailableError(f"{os.fspath(path)}: no directory with a model")
        self._path = os.fspath(path)
        self._model = _loaded(place)
        self._one_at_a_time = Lock()
        try:
            self.name: str = f"sentence-transformers:{digest(place)}"
        except OSError as error:
            raise EmbedderUnavailableError(f"{self._path}: {(error.strerror or str(error)).lower()}") from error
        self.dimensions: int = self.embed(["penstock"]).shape[1]

    def __repr__(self) -> str:
        return f"SentenceTransformerEmbedder({self._path!r})"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one row per text; threads take turns, as the tokenizers cannot be shared.

        Raises:
            EmbedError: the model fails, or gives numbers that are not finite.
        """
        clean = [text.encode(errors="replace").decode() for text in texts]
        with self._one_at_a_time:
            try:
                given = self._model.encode(clean, show_progress_bar=False, convert_to_numpy=True)
            except Exception as error:  # what it raises depends on what it is made of
                raise EmbedError(f"{self._path}: {type(error).__name__}: {error}") from error
        rows = np.asarray(given, np.float32)
        if not np.isfinite(rows).all():
            raise EmbedError(f"{self._path}: the model gave numbers that are not finite")
        return rows


def digest(place: Path) -> str:
    """Return 16 hexadecimal digits of the SHA-256 over names and contents of a model's files."""
    whole = hashlib.sha256()
    for path in sorted(place.rglob("*")):
        inner = path.relative_to(place)
        if path.is_file() and path.suffix != ".md" and not any(part.startswith(".") for part in inner.parts):
            with path.open("rb") as content:
                part = hashlib.file_digest(content, "sha256").hexdigest()
            whole.update(f"{inner.as_posix()}\0{part}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()[:16]


def _loaded(place: Path) -> Any:
    """Load the model; the library is imported here, which takes seconds."""
    try:
        library: Any = import_module(_LIBRARY)
    except ModuleNotFoundError as error:
        if error.name != _LIBRARY:
            raise
        raise ModuleNotFoundError(
            "SentenceTransformerEmbedder needs sentence-transformers: pip install 'penstock[sentence-transformers]'",
            name=_LIBRARY,
        ) from error
    try:
        return library.SentenceTransformer(str(place.resolve()), local_files_only=True)
    except Exception as error:  # what it raises for a directory without a model depends on what is in there
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise EmbedderUnavailableError(f"{place}: not a model of sentence-transformers: {reason}") from error
