"""The code of steps, as fingerprints: to tell whether it is another now."""

from typing import Any

from penstock.durable.fingerprint import fingerprint
from penstock.flow.steps import Step
from penstock.ops.operator import Code


class Codes:
    """Fingerprints of the steps of a definition, each made once: when it is first asked for."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Step[Any, Any], bytes]] = {}
        self._of_functions: dict[tuple[str, int, bool], tuple[Any, bytes]] = {}

    def of(self, step: Step[Any, Any]) -> bytes:
        """Return the fingerprint of a step, without those of the steps in it."""
        known = self._known.get(id(step))
        if known is None:
            known = self._known[id(step)] = step, self._made(step)
        return known[1]

    def _made(self, step: Step[Any, Any]) -> bytes:
        fn, deps, memo = step.own_code()
        if deps is not None:
            return code_of_step(step)
        key = step.kind, id(fn), memo
        made = self._of_functions.get(key)
        if made is None:  # many steps may have one function; it is kept, so that its id stays its own
            made = self._of_functions[key] = fn, code_of_step(step)
        return made[1]


def code_of_step(step: Step[Any, Any]) -> bytes:
    """16 bytes that are others when the output of a step may be.

    Raises:
        OptionError: `deps` holds what has no digest; or results are to be kept, `deps` is not given, and the function
            holds what cannot say all of itself.
    """
    fn, deps, memo = step.own_code()
    return fingerprint(f"flow {step.kind}", Code(step.name, fn, in_band=False, deps=deps, memo=memo), whose="step")
