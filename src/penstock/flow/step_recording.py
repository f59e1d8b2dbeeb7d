"""What a running step may ask of its run, and tell it: its directory, its idempotency key, what requests have cost."""

import asyncio
from pathlib import Path

from penstock.flow import codec
from penstock.flow.step_journal import StepJournal
from penstock.flow.usage import Usage
from penstock.flow.workspace_tables import RunRow
from penstock.tasks.tokens import in_loop


class StepRecording:
    """The part of the context of a step that a recorded run knows of."""

    def __init__(self, journal: StepJournal, row: RunRow, path: str) -> None:
        self._journal = journal
        self._path = path
        self._loop = asyncio.get_running_loop()
        self.run_id: str = row.run
        self.idempotency_key: str = f"{row.secret}-{codec.digest(path).hex()}"

    def workspace(self) -> Path:
        """Return the directory of the step, which exists."""
        directory = self._journal.reader.workspace.step_directory(self.run_id, self._path)
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def spent(self, usage: Usage) -> None:
        """Record what requests of the step have cost; may be called from any thread."""
        in_loop(self._loop, lambda: self._add(usage))

    def _add(self, usage: Usage) -> None:
        record = self._journal.records[self._path]
        total = record.usage + usage
        self._journal.write(
            self._journal.changed(
                record,
                requests=total.requests,
                input_tokens=total.input_tokens,
                output_tokens=total.output_tokens,
                seconds=total.seconds,
            )
        )
