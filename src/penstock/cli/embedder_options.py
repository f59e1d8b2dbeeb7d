"""The options that choose an embedder, the same for all commands."""

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from penstock.cli.parameters import Option
from penstock.workflows.secret import Secret

if TYPE_CHECKING:
    from penstock.workflows import Embedder

Name = Annotated[
    str,
    Option(
        "--embedder",
        metavar="NAME",
        help="hash (needs no model), openai or openai:MODEL (any server with /v1/embeddings), or "
        "sentence-transformers:PATH (a model in a directory).",
    ),
]
NameOrIndex = Annotated[
    str | None,
    Option(
        "--embedder",
        metavar="NAME",
        help="As for embed; a model in a directory has to be named. [default: that of INDEX]",
    ),
]
Model = Annotated[
    str | None,
    Option("--model", metavar="NAME", help="The model for openai. [default: $OPENAI_EMBEDDING_MODEL]"),
]
BaseURL = Annotated[
    str | None,
    Option(
        "--base-url",
        metavar="URL",
        help="The server for openai, up to /v1. [default: $OPENAI_BASE_URL, or OpenAI's own]",
    ),
]
Key = Annotated[
    Secret | None,
    Option(
        "--api-key",
        metavar="KEY",
        parser=Secret,
        help="The key for openai. Others on this machine can see it in the list of processes, so set "
        "$OPENAI_API_KEY instead.",
    ),
]


class Asked(NamedTuple):
    """The values of these options; the key is a `Secret` from the start, so that no error can show it."""

    name: str | None
    model: str | None
    base_url: str | None
    key: Secret | None


def asked_for(options: dict[str, Any]) -> Asked:
    """Take the values of these options out of those that a command was given."""
    return Asked(*(options.pop(name, None) for name in ("embedder", "model", "base_url", "api_key")))


def embedder(asked: Asked, index: str) -> "Embedder":
    """Return the embedder that the options ask for, or else that of the index.

    The functions of `penstock.workflows` raise.
    """
    from penstock.workflows import embedder_named, embedder_of  # noqa: PLC0415 -- their libraries are an extra

    if asked.name is None:
        return embedder_of(index, model=asked.model, base_url=asked.base_url, key=asked.key)
    return embedder_named(asked.name, model=asked.model, base_url=asked.base_url, key=asked.key)
