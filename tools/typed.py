# ruff: noqa: INP001, T201 -- a program that prints
"""Hold the package to its `py.typed`: `pyright --verifytypes` at 100 %, else say which names have no certain type."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COMMAND = "pyright", "--verifytypes", "penstock", "--ignoreexternal", "--outputjson", "--pythonpath", sys.executable


def report() -> dict[str, Any]:
    """What pyright says; it sees an editable install, and base classes of others, on PYTHONPATH only."""
    places = str(ROOT / "src"), sysconfig.get_path("purelib")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run([sys.executable, "-m", *COMMAND], env=environment, stdout=subprocess.PIPE, check=False)  # noqa: S603 -- our own command
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def line_of(problem: dict[str, Any]) -> int:
    """Where it is, from 1; 0 if it is nowhere."""
    return 1 + int(problem["range"]["start"]["line"]) if "range" in problem else 0


def main() -> int:
    """0 if every exported name has a known type, else 1."""
    found = report()
    typed = found["typeCompleteness"]
    names = typed["symbols"]
    if names and typed["completenessScore"] == 1:
        return 0
    print(f"type completeness: {typed['completenessScore']:.2%} of {len(names)} names, must be 100 %")
    said = [problem["message"] for problem in found["generalDiagnostics"]]
    said += [
        f"{problem.get('file', '')}:{line_of(problem)}: {name['name']}: {problem['message']}"
        for name in names
        for problem in name["diagnostics"]
        if problem["severity"] == "error"
    ]
    causes = [message for message in said if "partially unknown" not in message]
    print("\n".join(causes or said))
    return 1


if __name__ == "__main__":
    sys.exit(main())
