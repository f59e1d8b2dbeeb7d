"""The embedder for models in a local directory, with a model made on the spot: tiny, with random weights."""

import importlib.util
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from penstock.durable.store_errors import StoreError
from penstock.workflows import EmbedderUnavailableError, SentenceTransformerEmbedder, embed, search
from penstock.workflows.documents.embedders.local_model import digest

INSTALLED = importlib.util.find_spec("sentence_transformers") is not None
needs_library = pytest.mark.skipif(
    not INSTALLED, reason="sentence-transformers, which brings torch, is not installed: penstock[sentence-transformers]"
)


def build(place, seed):
    import torch  # noqa: PLC0415 -- not installed everywhere
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415
    from transformers import BertConfig, BertModel, BertTokenizerFast  # noqa: PLC0415

    plain = place.with_name(f"{place.name}-bert")
    plain.mkdir()
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,:#_()\"'"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (plain / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(plain)
    BertTokenizerFast(str(plain / "vocab.txt")).save_pretrained(plain)
    SentenceTransformer(str(plain), device="cpu").save(str(place))
    return place


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build(tmp_path_factory.mktemp("models") / "tiny", seed=1)


@needs_library
def test_texts_become_rows_that_differ_as_the_texts_do(model):
    embedder = SentenceTransformerEmbedder(model)
    rows = embedder.embed(["compress bytes", "parse arguments", "compress bytes", "\ud800"])
    assert (rows.shape, rows.dtype, embedder.dimensions) == ((4, 16), np.float32, 16)
    assert rows[0] == pytest.approx(rows[2], abs=1e-5)
    assert np.abs(rows[0] - rows[1]).max() > 1e-3
    assert embedder.embed([]).shape[0] == 0


@needs_library
@pytest.mark.real_time
async def test_documents_are_indexed_and_found_with_it(model, tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(30):
        (docs / f"{number}.txt").write_text(f"document {number} about things")
    (docs / "gzip.txt").write_text("compress bytes")
    report = await embed(docs, tmp_path / "i.db", embedder=SentenceTransformerEmbedder(model))
    assert (report.files, report.failed) == (31, 0)
    best = search(tmp_path / "i.db", "gzip\ncompress bytes", embedder=SentenceTransformerEmbedder(model))[0]
    assert best.path == str(docs / "gzip.txt")
    with pytest.raises(StoreError, match=r"not hash-1 .* use --embedder sentence-transformers:PATH with the model of"):
        search(tmp_path / "i.db", "x")


@needs_library
def test_threads_may_share_it(model):
    embedder = SentenceTransformerEmbedder(model)
    texts = [["word " * length] for length in range(1, 40)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(embedder.embed, texts))
    for rows, text in zip(together, texts, strict=True):
        assert rows == pytest.approx(embedder.embed(text), abs=1e-5)


@needs_library
def test_the_name_is_that_of_the_weights(model, tmp_path):
    moved = shutil.copytree(model, tmp_path / "renamed")
    assert SentenceTransformerEmbedder(moved).name == SentenceTransformerEmbedder(model).name
    assert SentenceTransformerEmbedder(build(tmp_path / "tiny", seed=2)).name != SentenceTransformerEmbedder(model).name


@needs_library
@pytest.mark.parametrize("content", [None, "{}", "no json"])
def test_a_directory_without_a_model_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(EmbedderUnavailableError, match=r"not a model of sentence-transformers: ."):
        SentenceTransformerEmbedder(tmp_path)


def test_a_digest_is_that_of_names_and_contents(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({}))
    (tmp_path / "sub" / "weights").write_bytes(b"1")
    first = digest(tmp_path)
    (tmp_path / "README.md").write_text("not of the model")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "index").touch()
    assert digest(tmp_path) == first
    (tmp_path / "sub" / "weights").write_bytes(b"2")
    second = digest(tmp_path)
    (tmp_path / "sub" / "weights").rename(tmp_path / "weights")
    assert len({first, second, digest(tmp_path)}) == 3


def test_a_missing_library_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'penstock\[sentence-transformers\]'"):
        SentenceTransformerEmbedder(tmp_path)
