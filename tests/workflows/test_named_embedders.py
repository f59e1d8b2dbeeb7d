"""Embedders by name."""

import pytest

from penstock import OptionError
from penstock.workflows import EmbedderUnavailableError, HashEmbedder, OpenAIEmbedder, embedder_named


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_EMBEDDING_MODEL"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch.setenv


@pytest.mark.parametrize("name", ["hash", "hash-1"])
def test_hash_is_the_default_one(name):
    assert isinstance(embedder_named(name), HashEmbedder)


def sent(embedder):
    return embedder.name, embedder._url, embedder._key and embedder._key.reveal()


def test_openai_takes_its_options(environment):
    for name in ("MODEL", "BASE_URL", "API_KEY"):
        environment(f"OPENAI_{'EMBEDDING_' * (name == 'MODEL')}{name}", "x")
    made = embedder_named("openai", model="m", base_url="http://h/v1/", key="k")
    assert isinstance(made, OpenAIEmbedder)
    assert sent(made) == ("openai:m", "http://h/v1/embeddings", "k")


def test_openai_takes_the_rest_from_the_environment(environment):
    environment("OPENAI_API_KEY", "k\n")
    assert sent(embedder_named("openai:m:latest")) == ("openai:m:latest", "https://api.openai.com/v1/embeddings", "k")
    environment("OPENAI_EMBEDDING_MODEL", "n")
    environment("OPENAI_BASE_URL", "http://h/v1")
    assert sent(embedder_named("openai")) == ("openai:n", "http://h/v1/embeddings", "k")
    assert sent(embedder_named("openai:m")) == ("openai:m", "http://h/v1/embeddings", "k")


def test_a_server_of_ones_own_may_want_no_key():
    assert sent(embedder_named("openai:m", base_url="http://h/v1"))[2] is None


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("", {}, "embedder must be 'hash', 'openai', 'openai:MODEL' or 'sentence-transformers:PATH', got ''"),
        ("word2vec", {}, "embedder must be .*, got 'word2vec'"),
        ("hash:1", {}, "embedder must be .*, got 'hash:1'"),
        ("openai:", {}, "embedder must be .*, got 'openai:'"),
        ("sentence-transformers", {}, "embedder must be .*, got 'sentence-transformers'"),
        ("sentence-transformers:", {}, "embedder must be .*, got 'sentence-transformers:'"),
        ("openai", {"key": "k"}, "the embedder 'openai' needs a model: 'openai:MODEL', the option model or OPENAI"),
        ("openai:m", {}, r"the embedder 'openai' needs a key \(OPENAI_API_KEY\), or the option base_url for"),
        ("openai:m", {"model": "n"}, "model must be 'm', as the embedder 'openai:m' says, got 'n'"),
        ("hash", {"model": "m"}, "model goes with the embedder 'openai', got the embedder 'hash'"),
        ("hash", {"base_url": "http://h"}, "base_url goes with the embedder 'openai', got the embedder 'hash'"),
        ("hash", {"key": "k"}, "key goes with the embedder 'openai', got the embedder 'hash'"),
    ],
)
def test_what_is_no_embedder_is_refused(name, options, message):
    with pytest.raises(OptionError, match=message):
        embedder_named(name, **options)


def test_a_model_that_is_not_there_is_told_before_its_library_is_loaded(tmp_path):
    with pytest.raises(EmbedderUnavailableError, match="none: no directory with a model"):
        embedder_named(f"sentence-transformers:{tmp_path / 'none'}")
