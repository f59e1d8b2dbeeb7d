"""The model that a text names: `openai:NAME` or `anthropic:NAME`."""

import os
from typing import Any

from penstock.core.errors import OptionError
from penstock.flow.anthropic_messages import AnthropicMessages
from penstock.flow.models import Model
from penstock.flow.openai_chat import OpenAIChat
from penstock.flow.secrets import secret
from penstock.flow.service_limits import ServiceLimits
from penstock.flow.services import Service


def model_of(model: Model | str, base_url: str | None, limits: ServiceLimits) -> Model:
    """Return the model, or the one that a text names, whose limits follow the service.

    The key is in OPENAI_API_KEY or ANTHROPIC_API_KEY; a service at a `base_url` may need none.

    Raises:
        OptionError: the text names none, or `base_url` is given with a model.
    """
    if not isinstance(model, str):
        if base_url is not None:
            raise OptionError(f"base_url is for a model that is named, got {base_url!r} with {model!r}")
        return model.following(limits) if isinstance(model, Service) else model
    service, colon, name = model.partition(":")
    kinds: dict[str, tuple[Any, str]] = {
        "openai": (OpenAIChat, "OPENAI_API_KEY"),
        "anthropic": (AnthropicMessages, "ANTHROPIC_API_KEY"),
    }
    if service not in kinds or not colon or not name:
        raise OptionError(f"model must be openai:NAME or anthropic:NAME, got {model!r}")
    kind, variable = kinds[service]
    key = None if base_url is not None and variable not in os.environ else secret(variable)
    made: Model = kind(name, key=key, base_url=base_url, limits=limits)
    return made
