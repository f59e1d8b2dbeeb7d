"""The step that asks a model, which is a function of `Stream.map`, too."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Final, Required, Unpack, cast, overload, override

from penstock.core import validate
from penstock.core.retry import Retry
from penstock.flow.answer_forms import Schema
from penstock.flow.asking import Asking, ModelRequest, asking_of, check, prepare
from penstock.flow.context import StepContext
from penstock.flow.function import annotations_of
from penstock.flow.leaf import Leaf, StepOptions, leaf_options
from penstock.flow.models import Model, asked_wait, transient
from penstock.flow.services import Service
from penstock.flow.steps import checked_name
from penstock.flow.templates import Filled, filled, source_of
from penstock.flow.usage import Usage
from penstock.ops.adding import I_contra, O_co

RETRY: Final = Retry(on=transient, attempts=5, initial=0.5)
"""Five tries of what is transient."""


class PromptOptions(StepOptions, total=False):
    """Options of `prompt`; those of all steps but `engine` beside them.

    Attributes:
        model: what is asked.
        system: what the model is told before; None, the default: nothing.
        max_tokens: how long the answer may be, an int >= 1; default 4096. One that is longer fails the step.
        asks: how often a prompt is asked in all until an answer fits the `schema`, an int >= 1; default 3.
    """

    model: Required[Model]
    system: str | None
    max_tokens: int
    asks: int


@overload
def prompt(
    name: str, text: str, /, *, parse: None = None, **options: Unpack[PromptOptions]
) -> "Prompt[object, str]": ...
@overload
def prompt[O](
    name: str, text: str, /, *, parse: Callable[[str], O], **options: Unpack[PromptOptions]
) -> "Prompt[object, O]": ...
@overload
def prompt[I](
    name: str, text: Callable[[I], str], /, *, parse: None = None, **options: Unpack[PromptOptions]
) -> "Prompt[I, str]": ...
@overload
def prompt[I, O](
    name: str, text: Callable[[I], str], /, *, parse: Callable[[str], O], **options: Unpack[PromptOptions]
) -> "Prompt[I, O]": ...
@overload
def prompt[O](name: str, text: str, /, *, schema: type[O], **options: Unpack[PromptOptions]) -> "Prompt[object, O]": ...
@overload
def prompt(
    name: str, text: str, /, *, schema: Mapping[str, Any] | str | os.PathLike[str], **options: Unpack[PromptOptions]
) -> "Prompt[object, Any]": ...
@overload
def prompt[I, O](
    name: str, text: Callable[[I], str], /, *, schema: type[O], **options: Unpack[PromptOptions]
) -> "Prompt[I, O]": ...
@overload
def prompt[I](
    name: str,
    text: Callable[[I], str],
    /,
    *,
    schema: Mapping[str, Any] | str | os.PathLike[str],
    **options: Unpack[PromptOptions],
) -> "Prompt[I, Any]": ...
def prompt(
    name: str,
    text: str | Callable[[Any], str],
    /,
    *,
    parse: Callable[[str], Any] | None = None,
    schema: Schema | None = None,
    **options: Unpack[PromptOptions],
) -> "Prompt[Any, Any]":
    """Make a step that asks a model and gives the text of its answer, or `parse(text)`, or what fits the `schema`.

    By default it makes five tries of what is transient, from 0.5 s on; `retry=None` is one. A `Retry` without `wait`
    waits as long as the service asks, else its backoff. Each request counts in the usage of the step, failed ones with
    what is known of them. Text of a failed attempt is in no output.

    It is a function of `Stream.map`, too: there, a call is one attempt, and the tries, limits and timeout are those of
    the stage.

    Args:
        name: as for `step`.
        text: what is sent, as it is; or a plain function that makes it of the value, as `template` gives one.
        parse: a plain function that makes the output of the text.
        schema: in place of `parse`: the answer is JSON that fits this, a JSON schema (a dict, or the path of a file) or
            a model of pydantic. The model is told the schema after the text. An answer that does not fit is asked again
            with the error, `asks` times in all; the last one fails the step with an `AnswerError`, which has it.
        **options: see `PromptOptions`; `model` is required.

    Raises:
        OptionError: the name or an option breaks its rule.
        ModuleNotFoundError: a JSON schema needs `pip install 'penstock[schema]'`.
    """
    return Prompt(checked_name(name), text, parse, schema, options)


class Prompt(Leaf[I_contra, O_co]):
    """Asks a model: what `prompt` makes."""

    __slots__ = ("asking", "text")
    kind: ClassVar[str] = "prompt"
    text: str | Callable[[Any], str]
    asking: Asking

    def __init__(
        self,
        name: str,
        text: str | Callable[[Any], str],
        parse: Callable[[str], Any] | None,
        schema: object,
        options: PromptOptions,
    ) -> None:
        given = leaf_options(
            f"prompt {name!r}", options, more=PromptOptions.__optional_keys__ | {"model"}, without=("engine",)
        )
        if "retry" not in options:
            given = replace(given, retry=RETRY)
        if given.retry is not None and given.retry.wait is None:
            given = replace(given, retry=replace(given.retry, wait=asked_wait))
        super().__init__(name, given)
        if not isinstance(text, str):
            validate.plain_function("text", text)
        self._set(text=text, asking=asking_of(parse, schema, options))

    @override
    def made_when_called(self) -> Iterable[object]:
        return (self.text,)

    @override
    async def prepare(self) -> None:
        await prepare(self.asking.model)

    @override
    def check(self, value: Any) -> None:
        check(self.asking.model)

    @override
    async def call(self, value: Any, ctx: StepContext) -> Any:
        made = self.text if isinstance(self.text, str) else filled(self.text, value, ctx.state)
        return await self.asking.answer(_checked_text(made), _OfStep(ctx))

    async def __call__(self, value: I_contra, /) -> O_co:
        """Make one attempt on `value`, as a function of `Stream.map`."""
        await self.prepare()
        self.check(value)
        made = self.text if isinstance(self.text, str) else filled(self.text, value, {})
        answer: O_co = await self.asking.answer(_checked_text(made), UNCOUNTED)
        return answer

    @override
    def code(self) -> tuple[Callable[..., Any], object]:
        asking = self.asking
        functions = [None if isinstance(each, str | Filled) else each for each in (self.text, asking.parse)]
        own = asking.model if isinstance(asking.model, Service) else None
        return partial(_made_by, *functions, None if own is not None else asking.model.ask), [
            self.text if isinstance(self.text, str) else source_of(self.text),
            asking.system,
            asking.max_tokens,
            None if own is None else own.code(),
            *([] if asking.form is None else [asking.form.instruction, asking.asks]),
        ]

    @override
    def annotations(self) -> Mapping[str, Any]:
        declared: dict[str, Any] = {} if isinstance(self.text, str | Filled) else dict(annotations_of(self.text))
        declared.pop("return", None)
        if self.asking.form is not None:
            return declared
        parse = self.asking.parse
        if parse is None or isinstance(parse, type):
            return declared | {"return": parse or str}
        return declared | {name: kind for name, kind in annotations_of(parse).items() if name == "return"}


class _OfStep:
    """The account of a step."""

    def __init__(self, ctx: StepContext) -> None:
        self._ctx = ctx

    async def begin(self, prompt: str) -> None:
        """Let it begin."""

    def ended(self, request: ModelRequest) -> None:
        """Count it."""
        reply = request.reply
        tokens = (None, None) if reply is None else (reply.input_tokens, reply.output_tokens)
        with suppress(LookupError):  # in a stream nobody counts
            self._ctx.spent(Usage(1, *tokens, request.seconds))


class _Uncounted:
    """The account where nobody counts."""

    async def begin(self, prompt: str) -> None:
        """Let it begin."""

    def ended(self, request: ModelRequest) -> None:
        """Count nothing."""


UNCOUNTED: Final = _Uncounted()


def _checked_text(made: object) -> str:
    validate.instance("what text gives", made, str, "a str")
    return cast("str", made)


def _made_by(*functions: object) -> tuple[object, ...]:
    """Hold the functions of a prompt, for its fingerprint."""
    return functions
