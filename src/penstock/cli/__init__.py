"""The command line. It prints, and decides nothing."""

import sys
from io import TextIOWrapper


def main() -> None:
    """Run `penstock`; without its extra, say how to install it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        from penstock.cli.app import app  # noqa: PLC0415 -- its library is an extra
    except ModuleNotFoundError as error:
        if error.name not in {"click", "rich"}:
            raise
        print(f"penstock: the command line needs {error.name}: pip install 'penstock[cli]'", file=sys.stderr)  # noqa: T201 -- this is what it is for
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    app(prog_name="penstock")
