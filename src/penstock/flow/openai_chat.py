"""Models that speak OpenAI's `/chat/completions`: OpenAI's own, and those of many other servers."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Unpack, cast, override
from urllib.parse import urlsplit

from penstock.flow.answers import ModelAnswer, Trouble, count, mappings, text_or_none
from penstock.flow.secrets import EnvSecret, secret
from penstock.flow.services import ModelOptions, Service

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_KEY: Final = secret("OPENAI_API_KEY")
_OPENAI: Final = "api.openai.com"


class OpenAIChat(Service):
    """A model behind `/chat/completions`, on the package `openai`.

    Its own retries are off: those of the step count. `system` becomes the first message. The key is read at each
    request and stands in no message, repr, log or chained exception. Requests that overlap share connections.

    Args:
        model: the name that the service knows.
        key: the secret with the key; None: the server wants none.
        client: a ready client, yours to close; then `key`, `base_url` and `idle` are not given.
        **options: see `ModelOptions`.

    Raises:
        OptionError: an argument breaks its rule.
    """

    package = "openai"
    client_class = "AsyncOpenAI"
    path = "/chat/completions"
    security: Mapping[str, object] = {"security": {"bearer_auth": True}}
    own_fields: frozenset[str] = frozenset({"model", "messages", "stream"})
    limit_headers: Mapping[str, tuple[str, str, str]] = {
        name: (f"x-ratelimit-limit-{name}", f"x-ratelimit-remaining-{name}", f"x-ratelimit-reset-{name}")
        for name in ("requests", "tokens")
    }

    def __init__(
        self,
        model: str,
        *,
        key: EnvSecret | None = _KEY,
        client: "AsyncOpenAI | None" = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(model, key, client, options, _KEY)

    @override
    def answer(self) -> ModelAnswer:
        return _Completion()

    @override
    def fields(self, prompt: str, system: str | None, max_tokens: int) -> dict[str, object]:
        first = [] if system is None else [{"role": "system", "content": system}]
        fields: dict[str, object] = {"model": self._model, "messages": [*first, {"role": "user", "content": prompt}]}
        if "max_completion_tokens" not in self._request:
            fields["max_completion_tokens" if self._is_openai() else "max_tokens"] = max_tokens
        if self._stream:
            fields["stream_options"] = {"include_usage": True}
        return fields

    def _is_openai(self) -> bool:
        """Whether it is OpenAI's own service: some of its models refuse `max_tokens`, which others alone understand."""
        if self._client is not None:
            address = str(self._client.base_url)
        else:
            address = self._base_url or os.environ.get("OPENAI_BASE_URL") or f"https://{_OPENAI}"
        return urlsplit(address).hostname == _OPENAI


class _Completion(ModelAnswer):
    """Chunks of a completion, or a whole one; of several choices the first."""

    _has_refused = False

    @override
    def event(self, name: str, data: Mapping[str, Any]) -> None:
        self._take_all_usage(data.get("usage"))
        for choice in mappings(data.get("choices")):
            if choice.get("index", 0) == 0:
                self._take(choice, choice.get("delta"))

    @override
    def document(self, data: Mapping[str, Any]) -> None:
        self._take_all_usage(data.get("usage"))
        choices = [choice for choice in mappings(data.get("choices")) if choice.get("index", 0) == 0]
        if not choices:
            self.trouble = Trouble("the answer is a JSON object of another form: it has no choices")
        for choice in choices[:1]:
            self._take(choice, choice.get("message"))

    def _take_all_usage(self, usage: object) -> None:
        self.take_usage(usage, "prompt_tokens", "completion_tokens")
        for each in mappings([usage]):
            for details in mappings([each.get("prompt_tokens_details")]):
                self.cached_tokens = count(details.get("cached_tokens"), self.cached_tokens)

    def _take(self, choice: Mapping[str, Any], message: object) -> None:
        if isinstance(message, Mapping):
            said = cast("Mapping[str, object]", message)
            self.take_text(said.get("content"))
            if text_or_none(refusal := said.get("refusal")) is not None:
                self._has_refused = True
                self.take_text(refusal)
        self.stop = text_or_none(choice.get("finish_reason")) or self.stop
        self.said_end = self.stop is not None

    @override
    def declined(self) -> str | None:
        return "refusal" if self._has_refused else super().declined()

    @override
    def is_truncated(self) -> bool:
        return self.stop == "length"
