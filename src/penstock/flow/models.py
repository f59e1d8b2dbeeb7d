"""What can be asked, what it answers, and how that fails."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from penstock.core.errors import FatalError, PenstockError


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model has answered.

    Attributes:
        text: the text.
        stop: why it ended, as the service says it: "stop", "end_turn" and the like.
        input_tokens: tokens of the request; None: the service has not said it.
        output_tokens: tokens of the answer; None: the service has not said it.
        cached_tokens: of the tokens of the request, those that the service had in a cache; None: it has not said it.
    """

    text: str
    stop: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None


@runtime_checkable
class Model(Protocol):
    """Anything that can be asked."""

    async def ask(self, prompt: str, /, *, system: str | None = None, max_tokens: int = 4096) -> Reply:
        """Return the answer to `prompt`.

        Raises:
            ModelError: there is none, or only a part of one.
        """
        ...


class ModelError(PenstockError):
    """A model has not answered, or not all.

    Attributes:
        transient: whether the same request may do better a little later.
        retry_after: the seconds that the service asks to wait; None if it does not.
        status: the HTTP status of the response; None: there was none.
        kind: the service's name of the error; None: it has not named it.
        reply: what there was of an answer, with its tokens; None: nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        transient: bool = False,
        retry_after: float | None = None,
        status: int | None = None,
        kind: str | None = None,
        reply: Reply | None = None,
    ) -> None:
        super().__init__(message)
        self.transient = transient
        self.retry_after = retry_after
        self.status = status
        self.kind = kind
        self.reply = reply


class TruncatedError(ModelError):
    """An answer ended where it had `max_tokens`: `reply` has it so far. The same again would end there, too."""


class DeclinedError(ModelError):
    """The model declines to answer, or a filter of the service has ended its answer: `reply` has what there was of it.

    `kind` is how the service says it: "refusal" or "content_filter". The same again would end so, too.
    """


class AccountError(ModelError, FatalError):
    """The service refuses whoever asks: the key, what it may do, or the credit. The message does not have the key.

    No other request would do better until somebody acts, so it ends the run at once, is never retried, and no item is
    set aside for it.
    """


def transient(error: BaseException) -> bool:
    """Whether a request that failed so may do better when it is made again."""
    return isinstance(error, ModelError) and error.transient


def asked_wait(error: BaseException) -> float | None:
    """Return the seconds that the service asks to wait after that error."""
    return error.retry_after if isinstance(error, ModelError) else None
