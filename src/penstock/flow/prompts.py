"""The step that asks a model."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, ClassVar, Final, Required, Unpack, overload, override

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.retry import Retry
from penstock.core.traces import block
from penstock.flow.added import CannotBegin
from penstock.flow.context import StepContext
from penstock.flow.function import annotations_of
from penstock.flow.leaf import Leaf, StepOptions, leaf_options
from penstock.flow.models import Model, ModelError, Reply, asked_wait, transient
from penstock.flow.services import Service
from penstock.flow.steps import Step, checked_name
from penstock.flow.templates import Filled, filled, source_of
from penstock.flow.usage import Usage

RETRY: Final = Retry(on=transient, attempts=5, initial=0.5)
"""Five tries of what is transient."""

MAX_TOKENS: Final = 4096


class PromptOptions(StepOptions, total=False):
    """Options of `prompt`; those of all steps but `engine` beside them.

    Attributes:
        model: what is asked.
        system: what the model is told before; None, the default: nothing.
        max_tokens: how long the answer may be, an int >= 1; default 4096. One that is longer fails the step.
    """

    model: Required[Model]
    system: str | None
    max_tokens: int


@overload
def prompt(name: str, text: str, /, *, parse: None = None, **options: Unpack[PromptOptions]) -> Step[object, str]: ...
@overload
def prompt[O](
    name: str, text: str, /, *, parse: Callable[[str], O], **options: Unpack[PromptOptions]
) -> Step[object, O]: ...
@overload
def prompt[I](
    name: str, text: Callable[[I], str], /, *, parse: None = None, **options: Unpack[PromptOptions]
) -> Step[I, str]: ...
@overload
def prompt[I, O](
    name: str, text: Callable[[I], str], /, *, parse: Callable[[str], O], **options: Unpack[PromptOptions]
) -> Step[I, O]: ...
def prompt(
    name: str,
    text: str | Callable[[Any], str],
    /,
    *,
    parse: Callable[[str], Any] | None = None,
    **options: Unpack[PromptOptions],
) -> Step[Any, Any]:
    """Make a step that asks a model and gives the text of its answer, or `parse(text)`.

    By default it makes five tries of what is transient, from 0.5 s on; `retry=None` is one. A `Retry` without `wait`
    waits as long as the service asks, else its backoff. Each request counts in the usage of the step, failed ones with
    what is known of them. Text of a failed attempt is in no output.

    Args:
        name: as for `step`.
        text: what is sent, as it is; or a plain function that makes it of the value.
        parse: a plain function that makes the output of the text.
        **options: see `PromptOptions`; `model` is required.

    Raises:
        OptionError: the name or an option breaks its rule.
    """
    return Prompt(checked_name(name), text, parse, options)


class Prompt(Leaf[Any, Any]):
    """Asks a model."""

    __slots__ = ("max_tokens", "model", "parse", "system", "text")
    kind: ClassVar[str] = "prompt"
    text: str | Callable[[Any], str]
    parse: Callable[[str], Any] | None
    model: Model
    system: str | None
    max_tokens: int

    def __init__(
        self,
        name: str,
        text: str | Callable[[Any], str],
        parse: Callable[[str], Any] | None,
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
        if parse is not None:
            validate.plain_function("parse", parse)
        model = options.get("model")
        if not callable(getattr(model, "ask", None)) or isinstance(model, type):
            raise OptionError(f"model must be a Model, something with an async ask(), got {model!r}")
        system = options.get("system")
        if system is not None:
            validate.instance("system", system, str, "a str or None")
        most = validate.whole("max_tokens", options.get("max_tokens", MAX_TOKENS), least=1)
        self._set(text=text, parse=parse, model=model, system=system, max_tokens=most)

    @override
    def made_when_called(self) -> Iterable[object]:
        return (self.text,)

    @override
    async def prepare(self) -> None:
        if isinstance(self.model, Service):
            with suppress(ModuleNotFoundError):
                await self.model.load()

    @override
    def check(self, value: Any) -> None:
        if isinstance(self.model, Service):
            try:
                self.model.check()
            except ModuleNotFoundError as error:
                raise CannotBegin(str(error)) from None

    @override
    async def call(self, value: Any, ctx: StepContext) -> Any:
        made = self.text if isinstance(self.text, str) else filled(self.text, value, ctx.state)
        validate.instance("what text gives", made, str, "a str")
        reply = await self._asked(made, ctx)
        return reply.text if self.parse is None else self.parse(reply.text)

    async def _asked(self, text: str, ctx: StepContext) -> Reply:
        began = perf_counter()
        known: Reply | None = None
        asked = self.model.model if isinstance(self.model, Service) else type(self.model).__name__
        about: dict[str, str | int] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": asked,
            "gen_ai.request.max_tokens": self.max_tokens,
        }
        if isinstance(self.model, Service):
            about["gen_ai.provider.name"] = self.model.package
        try:
            with block(f"chat {asked}", about, asks=True) as traced:
                try:
                    reply = await self.model.ask(text, system=self.system, max_tokens=self.max_tokens)
                    known = validate.instance("the answer of a model", reply, Reply, "a Reply")
                except ModelError as error:
                    traced.note(_usage(error.reply))
                    raise
                traced.note(_usage(known))
        except ModelError as error:
            known = error.reply
            raise
        finally:
            tokens = (None, None) if known is None else (known.input_tokens, known.output_tokens)
            with suppress(LookupError):  # in a stream nobody counts
                ctx.spent(Usage(1, *tokens, perf_counter() - began))
        return reply

    @override
    def code(self) -> tuple[Callable[..., Any], object]:
        functions = [None if isinstance(each, str | Filled) else each for each in (self.text, self.parse)]
        own = self.model if isinstance(self.model, Service) else None
        return partial(_made_by, *functions, None if own is not None else self.model.ask), [
            self.text if isinstance(self.text, str) else source_of(self.text),
            self.system,
            self.max_tokens,
            None if own is None else own.code(),
        ]

    @override
    def annotations(self) -> Mapping[str, Any]:
        declared: dict[str, Any] = {} if isinstance(self.text, str | Filled) else dict(annotations_of(self.text))
        declared.pop("return", None)
        if self.parse is None or isinstance(self.parse, type):
            return declared | {"return": self.parse or str}
        return declared | {name: kind for name, kind in annotations_of(self.parse).items() if name == "return"}


def _usage(reply: Reply | None) -> dict[str, int | list[str]]:
    """Return what is known of an answer, by the names of the semantic conventions."""
    if reply is None:
        return {}
    tokens = {"gen_ai.usage.input_tokens": reply.input_tokens, "gen_ai.usage.output_tokens": reply.output_tokens}
    found: dict[str, int | list[str]] = {name: number for name, number in tokens.items() if number is not None}
    return found | ({"gen_ai.response.finish_reasons": [reply.stop]} if reply.stop else {})


def _made_by(*functions: object) -> tuple[object, ...]:
    """Hold the functions of a prompt, for its fingerprint."""
    return functions
