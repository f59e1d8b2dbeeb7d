"""Reviews: steps that wait until somebody lets the value go on."""

import asyncio
from concurrent.futures import Future
from typing import override

from penstock.core import validate
from penstock.core.errors import said
from penstock.flow.shapes import Review
from penstock.flow.tree import Waiting
from penstock.flow.workspace_tables import StepRecord


class ReviewNode(Waiting):
    """Waits for somebody to let the value go on."""

    __slots__ = ()
    reason = "review"
    step: Review

    @override
    def go_on(self) -> None:
        record = self.journal.records.get(self.path)
        if record is None or record.answer is None:
            self.ask()
        else:
            self.act(record)

    @override
    def act(self, record: StepRecord) -> None:
        if record.answer == "reject":
            self.reject(record)
            return
        edited = record.answer == "value"
        if self.step.check is not None:
            value = self.journal.answered(self.path) if edited else self.journal.load(self.origin)
            try:
                validate.plain_result("check", self.step.check(value))
            except Exception as error:  # noqa: BLE001 -- it refuses the value
                refused = said(error)
                self.taken_back: Future[None] | asyncio.Future[None] = self.journal.write(
                    self.journal.changed(
                        record, answer=None, answered=None, by=None, note="", refused=refused, status="running"
                    )
                )
                self.ask()
                return
        if edited:
            self.take()
        else:
            columns, options = self.journal.columns_of(self.path, self.origin)
            self.complete(options=options, answer=None, **columns)
