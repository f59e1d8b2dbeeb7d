"""Models that speak Anthropic's `/v1/messages`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Unpack, cast, override

from penstock.flow.answers import ModelAnswer, Trouble, count, mappings, text_or_none
from penstock.flow.secrets import EnvSecret, secret
from penstock.flow.services import ModelOptions, Service

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

_KEY: Final = secret("ANTHROPIC_API_KEY")


class AnthropicMessages(Service):
    """A model behind `/v1/messages`, on the package `anthropic`.

    Its own retries are off: those of the step count. The key is read at each request and stands in no message, repr,
    log or chained exception. Requests that overlap share connections.

    Args:
        model: the name that the service knows.
        key: the secret with the key; None: the server wants none.
        client: a ready client, yours to close; then `key`, `base_url` and `idle` are not given.
        **options: see `ModelOptions`.

    Raises:
        OptionError: an argument breaks its rule.
    """

    package = "anthropic"
    client_class = "AsyncAnthropic"
    path = "/v1/messages"
    security: Mapping[str, object] = {}
    own_fields: frozenset[str] = frozenset({"model", "messages", "stream", "max_tokens"})
    limit_headers: Mapping[str, tuple[str, str, str]] = {
        name.replace("-", "_"): (
            f"anthropic-ratelimit-{name}-limit",
            f"anthropic-ratelimit-{name}-remaining",
            f"anthropic-ratelimit-{name}-reset",
        )
        for name in ("requests", "tokens", "input-tokens", "output-tokens")
    }

    def __init__(
        self,
        model: str,
        *,
        key: EnvSecret | None = _KEY,
        client: "AsyncAnthropic | None" = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(model, key, client, options, _KEY)

    @override
    def answer(self) -> ModelAnswer:
        return _ClaudeMessage()

    @override
    def fields(self, prompt: str, system: str | None, max_tokens: int) -> dict[str, object]:
        fields: dict[str, object] = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
        }
        return fields if system is None else fields | {"system": system}


class _ClaudeMessage(ModelAnswer):
    """Events of a message, or a whole one."""

    def __init__(self) -> None:
        super().__init__()
        self._uncached: int | None = None
        self._to_cache: int | None = None

    @override
    def event(self, name: str, data: Mapping[str, Any]) -> None:
        match data.get("type"):
            case "message_start":
                self._take_all_usage(_mapping(data, "message").get("usage"))
            case "content_block_start":
                self.take_text(_mapping(data, "content_block").get("text"))
            case "content_block_delta":
                self.take_text(_mapping(data, "delta").get("text"))
            case "message_delta":
                self.stop = text_or_none(_mapping(data, "delta").get("stop_reason")) or self.stop
                self._take_all_usage(data.get("usage"))
            case "message_stop":
                self.said_end = True
            case _:  # a ping, or what this does not know
                return

    @override
    def document(self, data: Mapping[str, Any]) -> None:
        self._take_all_usage(data.get("usage"))
        if not isinstance(data.get("content"), list):
            self.trouble = Trouble("the answer is a JSON object of another form: it has no content")
            return
        for block in mappings(data["content"]):
            self.take_text(block.get("text"))
        self.stop = text_or_none(data.get("stop_reason"))
        self.said_end = self.stop is not None

    def _take_all_usage(self, usage: object) -> None:
        """Note it; what was read from the cache, or written to it, is no part of the service's `input_tokens`."""
        if not isinstance(usage, Mapping):
            return
        said = cast("Mapping[str, object]", usage)
        self._uncached = count(said.get("input_tokens"), self._uncached)
        self._to_cache = count(said.get("cache_creation_input_tokens"), self._to_cache)
        self.cached_tokens = count(said.get("cache_read_input_tokens"), self.cached_tokens)
        self.output_tokens = count(said.get("output_tokens"), self.output_tokens)
        if self._uncached is not None:
            self.input_tokens = self._uncached + (self._to_cache or 0) + (self.cached_tokens or 0)

    @override
    def is_truncated(self) -> bool:
        return self.stop in {"max_tokens", "model_context_window_exceeded"}


def _mapping(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found: object = data.get(name)
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}
