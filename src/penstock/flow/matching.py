"""Whether what is finished has a place in a definition, and whether its code is another there.

A finished step has a place if the definition has a step of its path and kind, and none unfinished before it in its
sequence. So steps may be added behind, and renamed or removed while they are unfinished.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.flow.codes import Codes
from penstock.flow.pipeline import Pipeline
from penstock.flow.shapes import Map, Rounds
from penstock.flow.steps import Step
from penstock.flow.workspace_tables import StepRecord


@dataclass(slots=True)
class Match:
    """How records fit a definition.

    Attributes:
        gone: finished steps that have no place.
        changed: finished steps whose code is another now.
        stale: records of unfinished steps that the definition has not.
    """

    gone: list[str] = field(default_factory=list[str])
    changed: list[str] = field(default_factory=list[str])
    stale: list[str] = field(default_factory=list[str])


def matched(pipeline: Pipeline[Any, Any], records: Mapping[str, StepRecord], codes: Codes) -> Match:
    """Compare the records of a run with a definition."""
    below: dict[str, list[StepRecord]] = {}
    for record in records.values():
        below.setdefault(record.parent, []).append(record)
    match = Match()
    agenda: list[tuple[Step[Any, Any], str]] = [(pipeline, "")]
    while agenda:
        step, path = agenda.pop()
        placed = _places(step)
        is_behind = False
        names = {each.name: each for each in below.get(path, ())}
        for found in _in_order(step, below.get(path, ()), names):
            if found is None:
                is_behind = True
                continue
            record = found
            inner = step.body if isinstance(step, Map | Rounds) else placed.get(record.name)
            if inner is None or inner.kind != record.kind or (is_behind and _has_finished(record, below)):
                for each in _with_all_below(record, below):
                    (match.gone if each.status == "completed" else match.stale).append(each.path)
                continue
            if isinstance(step, Pipeline) and record.status != "completed":
                is_behind = True
            if record.status == "completed" and record.code is not None and record.code != codes.of(inner):
                match.changed.append(record.path)
            agenda.append((inner, record.path))
    order = {path: number for number, path in enumerate(records)}
    for paths in (match.gone, match.changed, match.stale):
        paths.sort(key=order.__getitem__)
    return match


def _places(step: Step[Any, Any]) -> Mapping[str, Step[Any, Any]]:
    return step.children()


def _in_order(
    step: Step[Any, Any], records: "list[StepRecord] | tuple[()]", names: Mapping[str, StepRecord]
) -> Iterator[StepRecord | None]:
    """Give the records of the steps in one; of a pipeline in its order, None where a step has none, then the others."""
    if not isinstance(step, Pipeline):
        yield from records
        return
    for each in step.steps:
        yield names.get(each.name)
    known = step.children()
    for record in records:
        if record.name not in known:
            yield record


def _with_all_below(record: StepRecord, below: Mapping[str, list[StepRecord]]) -> Iterator[StepRecord]:
    agenda = [record]
    while agenda:
        each = agenda.pop()
        yield each
        agenda.extend(below.get(each.path, ()))


def _has_finished(record: StepRecord, below: Mapping[str, list[StepRecord]]) -> bool:
    return any(each.status == "completed" for each in _with_all_below(record, below))


def step_at(pipeline: Pipeline[Any, Any], path: str) -> Step[Any, Any] | None:
    """Return the step of a definition that is at a path, or None."""
    step: Step[Any, Any] | None = pipeline
    for part in path.split("/"):
        if step is None:
            return None
        name, _, numbers = part.partition("[")
        step = step.children().get(name)
        for _ in numbers.split("[") if numbers else ():
            step = step.body if isinstance(step, Map | Rounds) else None
    return step


def shape_of(step: Step[Any, Any]) -> list[Any]:
    """Return what a definition consists of, as lists for JSON: kind, name, and the same of the steps in it."""
    return [step.kind, step.name, [shape_of(each) for each in step.children().values()]]


def new_paths(before: str, pipeline: Pipeline[Any, Any]) -> list[str]:
    """Return the paths of a definition that the shape before had not."""
    old = set(_paths(json.loads(before), ""))
    return [path for path in _paths(shape_of(pipeline), "") if path not in old]


def _paths(shape: list[Any], path: str) -> Iterator[str]:
    kind, _, inner = shape
    for each in inner:
        name = f"{path}[]" if kind in {"map", "loop"} else f"{path}/{each[1]}" if path else each[1]
        yield name
        yield from _paths(each, name)


def first_empty(step: Step[Any, Any], path: str = "") -> str | None:
    """Return the path of the first pipeline without steps; "" is that of the run, None: there is none."""
    if isinstance(step, Pipeline) and not step.steps:
        return path
    for each in step.children().values():
        inner = path if isinstance(step, Map | Rounds) else f"{path}/{each.name}" if path else each.name
        if (found := first_empty(each, inner)) is not None:
            return found
    return None
