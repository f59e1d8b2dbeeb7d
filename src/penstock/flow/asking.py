"""Asks a model and reads its answer: what does not fit is asked again, with the error, a bounded number of times."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, Protocol, cast

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.traces import block
from penstock.flow.added import CannotBegin
from penstock.flow.answer_forms import AnswerError, AnswerForm, form_of
from penstock.flow.models import Model, ModelError, Reply
from penstock.flow.services import Service

ASKS: Final = 3
"""How often a prompt is asked in all, until an answer fits."""

MAX_TOKENS: Final = 4096
"""Tokens of an answer, at most, by default."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A request to a model that has ended.

    Attributes:
        prompt: what was asked.
        reply: what is known of the answer; None: nothing.
        seconds: that it took.
        failed: whether there is no answer, or none that fits.
        status: the HTTP status of a response that was an error.
    """

    prompt: str
    reply: Reply | None
    seconds: float
    failed: bool
    status: int | None = None


class Account(Protocol):
    """Is told of every request."""

    async def begin(self, prompt: str) -> None:
        """Let a request begin, when it may."""

    def ended(self, request: ModelRequest) -> None:
        """Count a request that has ended, well or not."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How a model is asked.

    Attributes:
        model, system, max_tokens: as for `prompt`.
        parse: makes the answer of the text; None: it is the text.
        form: what the answer has to be; None: any text.
        asks: how often in all, until an answer fits.
    """

    model: Model
    system: str | None
    max_tokens: int
    parse: Callable[[str], Any] | None = None
    form: AnswerForm | None = None
    asks: int = ASKS

    def first(self, prompt: str) -> str:
        """Return what is sent for a prompt."""
        return prompt if self.form is None else f"{prompt}\n\n{self.form.instruction}"

    async def answer(self, prompt: str, account: Account) -> Any:
        """Return the answer; raise `ModelError` or, if none fits, the `AnswerError` of the last."""
        asked = first = self.first(prompt)
        for left in reversed(range(self.asks)):
            try:
                return await self._once(asked, account)
            except AnswerError as error:
                if not left:
                    raise
                asked = (
                    f"{first}\n\nYour answer was:\n\n{error.answer}\n\nIt does not fit: {error.reason}\nAnswer again."
                )
        raise AssertionError

    async def _once(self, prompt: str, account: Account) -> Any:
        """Make one request, and have it counted, however it ends."""
        await account.begin(prompt)
        began = perf_counter()
        known: Reply | None = None
        status: int | None = None
        failed = True
        try:
            known = await self._reply(prompt)
            answer = self._read(known.text)
            failed = False
        except ModelError as error:
            known, status = error.reply, error.status
            if known is not None and known.text:
                error.add_note(f"penstock: what there was of the answer: {known.text}")
            raise
        finally:
            account.ended(ModelRequest(prompt, known, perf_counter() - began, failed, status))
        return answer

    def _read(self, text: str) -> Any:
        if self.form is not None:
            return self.form.read(text)
        return text if self.parse is None else self.parse(text)

    async def _reply(self, prompt: str) -> Reply:
        model = self.model
        asked = model.model if isinstance(model, Service) else type(model).__name__
        about: dict[str, str | int] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": asked,
            "gen_ai.request.max_tokens": self.max_tokens,
        }
        if isinstance(model, Service):
            about["gen_ai.provider.name"] = model.package
        with block(f"chat {asked}", about, asks=True) as traced:
            try:
                reply = await model.ask(prompt, system=self.system, max_tokens=self.max_tokens)
                validate.instance("the answer of a model", reply, Reply, "a Reply")
            except ModelError as error:
                traced.note(_usage(error.reply))
                raise
            traced.note(_usage(reply))
        return reply


def asking_of(parse: Callable[[str], Any] | None, schema: object, options: Mapping[str, Any]) -> Asking:
    """Check the options that say how a model is asked.

    Raises:
        OptionError: one breaks its rule.
    """
    if parse is not None:
        validate.plain_function("parse", parse)
        if schema is not None:
            raise OptionError("parse must not be given with schema: what fits the schema is the output")
    model = options.get("model")
    if not callable(getattr(model, "ask", None)) or isinstance(model, type):
        raise OptionError(f"model must be a Model, something with an async ask(), got {model!r}")
    system = options.get("system")
    if system is not None:
        validate.instance("system", system, str, "a str or None")
    most = validate.whole("max_tokens", options.get("max_tokens", MAX_TOKENS), least=1)
    asks = validate.whole("asks", options.get("asks", ASKS), least=1)
    return Asking(cast("Model", model), system, most, parse, form_of(schema), asks)


async def prepare(model: Model) -> None:
    """Import the package of a model, if it has one and that is there."""
    if isinstance(model, Service):
        with suppress(ModuleNotFoundError):
            await model.load()


def check(model: Model) -> None:
    """Raise `CannotBegin` if something is missing that requests need."""
    if isinstance(model, Service):
        try:
            model.check()
        except ModuleNotFoundError as error:
            raise CannotBegin(str(error)) from None


def _usage(reply: Reply | None) -> dict[str, int | list[str]]:
    """Return what is known of an answer, by the names of the semantic conventions."""
    if reply is None:
        return {}
    tokens = {"gen_ai.usage.input_tokens": reply.input_tokens, "gen_ai.usage.output_tokens": reply.output_tokens}
    found: dict[str, int | list[str]] = {name: number for name, number in tokens.items() if number is not None}
    return found | ({"gen_ai.response.finish_reasons": [reply.stop]} if reply.stop else {})
