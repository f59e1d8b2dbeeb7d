"""Steps that have one of their steps under way at a time: sequences, branches, loops."""

from typing import Any, override

from penstock.core import validate
from penstock.core.errors import as_failure, said
from penstock.flow.pipeline import Pipeline
from penstock.flow.shapes import Branch, Rounds
from penstock.flow.step_journal import OutputOf, Whence
from penstock.flow.steps import Step
from penstock.flow.tree import Node, new_records


class OneAtATime(Node):
    """A step that has at most one of its steps under way."""

    __slots__ = ("_sleeper",)

    @override
    def wake_child(self, child: Node) -> None:
        if not self.waits:
            child.woken()
            return
        self._sleeper = child
        self.wake()

    @override
    def woken(self) -> None:
        self.goes_on()
        self._sleeper.woken()


class SequenceNode(OneAtATime):
    """A pipeline: one step after the other."""

    __slots__ = ()
    step: Pipeline[Any, Any]

    @override
    def go_on(self) -> None:
        self.runs()
        self._begin(0, self.origin)

    def _begin(self, place: int, origin: Whence) -> None:
        steps = self.step.steps
        if place < len(steps):
            child = self.child(steps[place], place, self.under(steps[place].name))
            self.tree.later(lambda: child.begin(origin))
            return
        columns, options = self.journal.columns_of(self.path, origin)
        self.complete(options=options, **columns)

    @override
    def child_is_over(self, child: Node) -> None:
        self._begin(child.position + 1, OutputOf(child.path))


class BranchNode(OneAtATime):
    """The one of its steps that is chosen."""

    __slots__ = ()
    step: Branch

    @override
    def go_on(self) -> None:
        tree = self.tree
        steps = list(self.step.children().values())
        records = [self.journal.records.get(self.under(each.name)) for each in steps]
        place = next(
            (number for number, each in enumerate(records) if each is not None and each.status != "skipped"), None
        )
        if place is None:
            chosen = self._chosen()
            if chosen is None:
                return
            place = steps.index(chosen)
            new = new_records(
                tree, [self.child(each, number, self.under(each.name)) for number, each in enumerate(steps)]
            )
            for each in new:
                each.status = "pending" if each.position == place else "skipped"
            self.runs(*new)
            if (again := records[place]) is not None:  # the case that was chosen before is gone
                self.journal.write(self.journal.changed(again, status="pending"))
        else:
            self.runs()
        child = self.child(steps[place], place, self.under(steps[place].name))
        tree.later(lambda: child.begin(self.origin))

    def _chosen(self) -> Step[Any, Any] | None:
        """Return the step that is chosen; None if it failed."""
        tree, step = self.tree, self.step
        value = self.journal.load(self.origin)
        try:
            key = validate.plain_result("choose", step.choose(value))
            found = step.cases.get(key, step.otherwise)
        except Exception as error:  # noqa: BLE001 -- of the user's function
            tree.fail(self, "STEP_FAILED", said(error), as_failure(error, "choose"))
            return None
        if found is None:
            tree.fail(self, "STEP_FAILED", step.no_case(key))
        return found

    @override
    def child_is_over(self, child: Node) -> None:
        self.complete(same=child.path)


class RoundsNode(OneAtATime):
    """Its body, on what that gave, until it is good enough."""

    __slots__ = ()
    step: Rounds

    @override
    def go_on(self) -> None:
        self.runs()
        self._begin(0, self.origin)

    def _begin(self, number: int, origin: Whence) -> None:
        child = self.child(self.step.body, number, self._path_of(number))
        self.tree.later(lambda: child.begin(origin))

    def _path_of(self, number: int) -> str:
        return f"{self.path}[{number}]"

    @override
    def child_is_over(self, child: Node) -> None:
        tree, step, number = self.tree, self.step, child.position + 1
        if self._path_of(number) in self.journal.records:
            self._begin(number, OutputOf(child.path))
            return
        value = self.journal.load(OutputOf(child.path))
        try:
            is_done = bool(validate.plain_result("until", step.until(value)))
        except Exception as error:  # noqa: BLE001 -- of the user's function
            tree.fail(self, "STEP_FAILED", said(error), as_failure(error, "until"))
            return
        if is_done:
            self.complete(same=child.path)
        elif number < step.max_rounds:
            self._begin(number, OutputOf(child.path))
        else:
            tree.fail(self, "STEP_FAILED", step.not_done)
