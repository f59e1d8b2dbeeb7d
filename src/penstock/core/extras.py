"""Names that are imported when they are first used: the libraries behind them are extras."""

from importlib import import_module
from typing import Any, Final

_EXTRAS: Final = {"apsw": "durable", "sqlite_vec": "durable", "numpy": "embed"}


def imported(package: str, name: str, home: str) -> Any:
    """What the module `home` calls `name`, for `package`.

    Raises:
        ModuleNotFoundError: a library is missing; the message says what to install.
    """
    try:
        return getattr(import_module(home), name)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        raise ModuleNotFoundError(
            f"{package}.{name} needs {error.name}: pip install 'penstock[{_EXTRAS[error.name]}]'", name=error.name
        ) from error
