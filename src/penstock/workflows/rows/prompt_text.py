"""The prompt of a row: of a text with columns, or of a function."""

from collections.abc import Callable
from typing import Any, cast

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.flow.row_template import template
from penstock.workflows.rows.row_function import Arguments


class PromptText:
    """Makes the prompt of a row: a text with columns as "Classify: {text}", or a plain function of the row.

    Attributes:
        wants_text: whether it needs the column `text`, which is read of a file.
    """

    def __init__(self, prompt: str | Callable[..., str]) -> None:
        self._made: Callable[[Any], object]
        if isinstance(prompt, str):
            made = template(prompt)
            if not made.columns:
                raise OptionError(f"prompt must name a column, as 'Classify: {{text}}', got {prompt!r}")
            self._made = made
            self.wants_text: bool = "text" in made.columns
        else:
            validate.plain_function("prompt", prompt)
            arguments = Arguments(prompt)
            self._made = lambda row: arguments.call(prompt, row)
            self.wants_text = arguments.wants("text")

    def of(self, row: Any) -> str:
        """Return the prompt of a row.

        Raises:
            OptionError: the row has not what it needs, or the function gives no text.
        """
        return cast("str", validate.instance("what prompt gives", self._made(row), str, "a str"))
