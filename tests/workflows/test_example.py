"""The example of this workflow runs."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "index_documents.py"


def test_the_example_indexes_a_folder_and_finds_in_it(tmp_path):
    (tmp_path / "gzip.py").write_text('def compress(data):\n    """Compress bytes in one shot."""\n')
    (tmp_path / "other.md").write_text("# Other\n\nSomething else.\n")
    command = [sys.executable, EXAMPLE, tmp_path, "compress bytes"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["2 files, 2 chunks, 0 failed", f"{tmp_path / 'gzip.py'}:1  compress"]
