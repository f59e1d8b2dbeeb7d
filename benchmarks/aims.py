"""Where penstock is meant to stand, beside where a run found it. Nothing is asserted: a machine can be busy."""

from collections.abc import Sequence
from dataclasses import dataclass

from timing import aligned


@dataclass(frozen=True)
class Aim:
    """A figure and the limit that it is meant to keep; `form` is how both are written."""

    what: str
    figure: float
    limit: float
    at_least: bool = False
    form: str = "{:.2f}x"

    @property
    def is_met(self) -> bool:
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit

    def row(self) -> tuple[str, str, str, str]:
        wanted = f"{'at least' if self.at_least else 'at most'} {self.form.format(self.limit)}"
        return self.what, wanted, self.form.format(self.figure), "met" if self.is_met else "missed"


def print_aims(aims: Sequence[Aim]) -> None:
    if aims:
        print(f"\naims, {sum(aim.is_met for aim in aims)} of {len(aims)} met\n")
        print(aligned([("", "wanted", "reached", ""), *(aim.row() for aim in aims)]))
