"""The default embedder: stateless, offline, the same everywhere."""

import os
import platform
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
    """No n-gram reaches from one text into the next; of many texts, some are embedded together."""
    texts = [*TEXTS, *reversed(TEXTS), *TEXTS]
    together = HashEmbedder().embed(texts)
    for number, text in enumerate(texts):
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about the malloc of glibc")
def test_calls_use_the_same_pages_again():
    """Pages that `malloc` gave back after each call were cleared anew for the next one, which doubled its time."""
    code = (
        "import resource; from penstock.workflows import HashEmbedder; texts = ['some words ' * 90] * 64\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "HashEmbedder().embed(texts); before = faults()\n"
        "for _ in range(5): HashEmbedder().embed(texts)\n"
        "print(faults() - before)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) < 500


def test_case_and_white_space_do_not_count():
    one, two = HashEmbedder().embed(["Compress  BYTES", "compress\n\tbytes "])
    assert np.array_equal(one, two)


def test_likeness_of_spelling_is_nearness():
    asked, near, far = HashEmbedder().embed(["compress bytes", "compressing a byte string", "parse the command line"])
    assert asked @ near > 0.3
    assert abs(asked @ far) < 0.15
