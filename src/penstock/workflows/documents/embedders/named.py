"""Embedders by name, as the command line has them."""

import os

from penstock.core.errors import OptionError
from penstock.exports import naming_extras
from penstock.workflows.documents.embedders import Embedder
from penstock.workflows.documents.embedders.hashing import HashEmbedder
from penstock.workflows.documents.embedders.local_model import SentenceTransformerEmbedder
from penstock.workflows.secret import Secret, Unchecked

_KEY, _URL, _MODEL = "OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_EMBEDDING_MODEL"


def embedder_named(
    name: str, *, model: str | None = None, base_url: str | None = None, key: str | Secret | None = None
) -> Embedder:
    """Return the embedder `hash`, `openai`, `openai:MODEL` or `sentence-transformers:PATH`.

    For `openai`, what is not given comes from the environment: `OPENAI_EMBEDDING_MODEL`, `OPENAI_BASE_URL` and
    `OPENAI_API_KEY`; OpenAI's own client uses the last two.

    Raises:
        OptionError: there is no such embedder, or an option is missing or does not belong to it.
        EmbedderUnavailableError: there is no such model.
        ModuleNotFoundError: a library is missing; the message says what to install.
    """
    hidden = Unchecked(key)
    del key  # the frame of an error may be shown
    secret = hidden.checked()
    kind, colon, rest = name.partition(":")
    if kind == "openai" and bool(colon) == bool(rest):
        return _openai(rest or None, model, base_url, secret)
    for option, value in (("model", model), ("base_url", base_url), ("key", secret)):
        if value is not None:
            raise OptionError(f"{option} goes with the embedder 'openai', got the embedder {name!r}")
    if name in {"hash", HashEmbedder.name}:
        return HashEmbedder()
    if kind == "sentence-transformers" and rest:
        return SentenceTransformerEmbedder(rest)
    raise OptionError(
        f"embedder must be 'hash', 'openai', 'openai:MODEL' or 'sentence-transformers:PATH', got {name!r}"
    )


def _openai(named: str | None, model: str | None, base_url: str | None, key: Secret | None) -> Embedder:
    with naming_extras("penstock.workflows.OpenAIEmbedder", {"httpx": "openai"}):
        from penstock.workflows.documents.embedders.openai import OpenAIEmbedder  # noqa: PLC0415 -- it brings an extra

    if named and model and named != model:
        raise OptionError(f"model must be {named!r}, as the embedder 'openai:{named}' says, got {model!r}")
    model = named or model or os.environ.get(_MODEL)
    if not model:
        raise OptionError(f"the embedder 'openai' needs a model: 'openai:MODEL', the option model or {_MODEL}")
    key = key or Secret.of(os.environ.get(_KEY))
    base_url = base_url or os.environ.get(_URL)
    if base_url:
        return OpenAIEmbedder(model, base_url=base_url, key=key)
    if key is None:
        raise OptionError(
            f"the embedder 'openai' needs a key ({_KEY}), or the option base_url for a server that wants none"
        )
    return OpenAIEmbedder(model, key=key)
