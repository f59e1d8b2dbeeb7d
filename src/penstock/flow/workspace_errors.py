"""What makes a workspace unusable, as an error of pipelines."""

from collections.abc import Generator
from contextlib import contextmanager

from penstock.core.errors import PenstockError
from penstock.core.text import one_line
from penstock.durable.store_errors import StoreError
from penstock.durable.values import UnpackError
from penstock.flow.codec import ClassGone
from penstock.flow.results import PipelineError
from penstock.flow.workspace_files import StoredFileError


@contextmanager
def workspace_errors(database: str, step: str | None = None) -> Generator[None]:
    """Turn what makes a workspace unusable into a `WORKSPACE_ERROR`."""
    try:
        yield
    except PipelineError:
        raise
    except (StoreError, OSError, UnpackError, ClassGone) as error:
        raise as_workspace_error(error, database, step) from error


def as_workspace_error(error: Exception, database: str, step: str | None = None) -> PipelineError:
    """Return the `WORKSPACE_ERROR` that an error is."""
    if isinstance(error, StoredFileError):
        return PipelineError("WORKSPACE_ERROR", error.step, str(error))
    where = database if step is None else f"{database}: the output of step {step!r}"
    text = (
        str(error)
        if isinstance(error, PenstockError)
        else (error.strerror or str(error)).lower()
        if isinstance(error, OSError)
        else str(error)
    )
    if not text.startswith(database):
        text = f"{where}: {text}"
    return PipelineError("WORKSPACE_ERROR", step, one_line(text))
