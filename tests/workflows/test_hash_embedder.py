"""The default embedder: stateless, offline, the same everywhere."""

import os
import subprocess
import sys
import zlib

import numpy as np
import pytest

from penstock.workflows import HashEmbedder

TEXTS = ["compress bytes", "a gzip file", "Straße 漢字 🙂", "x", "", "\ud800 lone"]


def test_rows_have_unit_length_and_an_empty_text_none():
    vectors = HashEmbedder().embed(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), HashEmbedder.dimensions)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1, 1, 0, 1])


def test_no_texts_give_no_rows():
    assert HashEmbedder().embed([]).shape == (0, HashEmbedder.dimensions)


def test_a_row_does_not_depend_on_its_batch():
    """No n-gram reaches from one text into the next."""
    together = HashEmbedder().embed(TEXTS)
    for number, text in enumerate(TEXTS):
        assert np.array_equal(together[number], HashEmbedder().embed([text])[0])


def test_vectors_are_the_same_in_every_process():
    """Python's own hash differs from process to process."""
    code = (
        "import sys, zlib; from penstock.workflows import HashEmbedder; "
        "print(zlib.crc32(HashEmbedder().embed(['compress bytes', 'Straße 漢字 🙂']).tobytes()))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert printed == {str(zlib.crc32(HashEmbedder().embed(["compress bytes", "Straße 漢字 🙂"]).tobytes()))}
    assert printed == {"1867816183"}


def test_case_and_white_space_do_not_count():
    one, two = HashEmbedder().embed(["Compress  BYTES", "compress\n\tbytes "])
    assert np.array_equal(one, two)


def test_likeness_of_spelling_is_nearness():
    asked, near, far = HashEmbedder().embed(["compress bytes", "compressing a byte string", "parse the command line"])
    assert asked @ near > 0.3
    assert abs(asked @ far) < 0.15
