"""Fingerprints of the code of stages: 16 bytes, the same in every process, which tell whether a stage has changed.

A function is known by its module, qualified name, byte code, constants (the docstring among them) and the names that it
uses; and by all data that it holds when the run begins: defaults and attributes, arguments of a `partial`, closures,
the object that it is a method of (see `penstock.durable.held`). File names, line numbers and annotations do not count.
Nor do the values of global names: give them in `deps`. Byte code is that of one feature release of Python: with another
release, every function has changed. See `docs/decisions.md`, "Code is compared by what it does".

A value that cannot tell all that it holds is known by its type. Results of such a function are not kept, unless `deps`
says what they depend on: else what was kept could belong to another function.
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Literal

from penstock.core.errors import OptionError
from penstock.durable.held import Held
from penstock.durable.values import PackError, digest, type_name

if TYPE_CHECKING:  # who only reads an index runs no stage
    from penstock.ops.operator import Code, Operator

type OnChange = Literal["continue", "restart", "refuse"]
"""What becomes of roots that are done when the code has changed: they stay, are done again, or the run is refused."""


@dataclass(frozen=True, slots=True)
class StageCode:
    """The code of one stage: its name, which may change, and its fingerprint."""

    name: str
    fingerprint: bytes


def stage_code(operator: "Operator") -> StageCode | None:
    """Return the code of an operator, if it runs a function.

    Raises:
        OptionError: `deps` holds something without a digest; or results are to be kept, `deps` is not given, and the
            function holds something that cannot tell all of itself.
    """
    return None if operator.code is None else StageCode(operator.code.title, fingerprint(operator.name, operator.code))


def fingerprint(operator: str, code: "Code", *, whose: str = "stage") -> bytes:
    """Return 16 bytes that differ when the results of the operator may differ; errors call it `whose`."""
    try:
        deps = digest(code.deps)
    except PackError as error:
        raise OptionError(
            f"deps must be made of JSON-like values, bytes, arrays or dataclasses of them, "
            f"got {type_name(error.kind)} in {code.deps!r}"
        ) from None
    held = Held()
    function = held.print(code.fn)
    if code.memo and code.deps is None and held.opaque:
        raise OptionError(
            f"memo=True of {whose} {code.title!r} needs a function that holds nothing but data, or deps= that says "
            f"what its results depend on (a model, a prompt, a version): {held.opaque[0]}"
        )
    return digest((sys.implementation.cache_tag, operator, function, deps))


def code_of(stages: Sequence[StageCode]) -> bytes:
    """Return 16 bytes for the code of all stages together."""
    return hashlib.blake2b(b"".join(stage.fingerprint for stage in stages), digest_size=16).digest()


def changes(before: Sequence[StageCode], now: Sequence[StageCode]) -> tuple[str, ...]:
    """Name the stages that have changed; those that are new or gone are marked as such."""
    changed: list[str] = []
    matcher = SequenceMatcher(
        a=[stage.fingerprint for stage in before], b=[stage.fingerprint for stage in now], autojunk=False
    )
    for what, a, a_end, b, b_end in matcher.get_opcodes():
        if what == "equal":
            continue
        old, new = before[a:a_end], now[b:b_end]
        both = min(len(old), len(new))
        changed += [stage.name for stage in new[:both]]
        changed += [f"{stage.name} (new)" for stage in new[both:]]
        changed += [f"{stage.name} (gone)" for stage in old[both:]]
    return tuple(changed)
