"""Pipelines of steps: a value goes through them, and what is finished is never done again.

A `Pipeline` is a name and named steps, each of which gets what the one before it gave. It is immutable, and a step
itself: it nests. Structure (`parallel`, `map`, `branch`, `loop`, `review`) is data.
"""

from typing import TYPE_CHECKING

from penstock.exports import exports

if TYPE_CHECKING:
    from penstock.flow.answer_forms import AnswerError
    from penstock.flow.anthropic_messages import AnthropicMessages
    from penstock.flow.commands import command
    from penstock.flow.context import State, StepContext
    from penstock.flow.function import step
    from penstock.flow.leaf import StepOptions
    from penstock.flow.models import AccountError, DeclinedError, Model, ModelError, Reply, TruncatedError
    from penstock.flow.openai_chat import OpenAIChat
    from penstock.flow.pipeline import Pipeline
    from penstock.flow.pipeline_engine import PipelineEngine
    from penstock.flow.pipeline_file import FileError, load
    from penstock.flow.programs import CommandError
    from penstock.flow.prompts import prompt
    from penstock.flow.results import OutputRefused, Pending, PipelineError, PipelineResult, RunInfo, StepResult
    from penstock.flow.row_template import template
    from penstock.flow.secrets import EnvSecret, secret
    from penstock.flow.shapes import parallel, review
    from penstock.flow.steps import Step
    from penstock.flow.streaming_pipeline import StreamingPipeline, to_streaming
    from penstock.flow.transforms import transform
    from penstock.flow.trigger import Cron, Event
    from penstock.flow.usage import Usage
    from penstock.ops.adding import Transform
else:
    __getattr__, __dir__ = exports(
        __name__,
        {
            "penstock.flow.answer_forms": ("AnswerError",),
            "penstock.flow.anthropic_messages": ("AnthropicMessages",),
            "penstock.flow.commands": ("command",),
            "penstock.flow.context": ("State", "StepContext"),
            "penstock.flow.models": ("AccountError", "DeclinedError", "Model", "ModelError", "Reply", "TruncatedError"),
            "penstock.flow.openai_chat": ("OpenAIChat",),
            "penstock.flow.pipeline_file": ("FileError", "load"),
            "penstock.flow.programs": ("CommandError",),
            "penstock.flow.prompts": ("prompt",),
            "penstock.flow.row_template": ("template",),
            "penstock.flow.secrets": ("EnvSecret", "secret"),
            "penstock.flow.function": ("step",),
            "penstock.flow.pipeline": ("Pipeline",),
            "penstock.flow.pipeline_engine": ("PipelineEngine",),
            "penstock.flow.results": (
                "OutputRefused",
                "Pending",
                "PipelineError",
                "PipelineResult",
                "RunInfo",
                "StepResult",
            ),
            "penstock.flow.shapes": ("parallel", "review"),
            "penstock.flow.leaf": ("StepOptions",),
            "penstock.flow.steps": ("Step",),
            "penstock.flow.streaming_pipeline": ("StreamingPipeline", "to_streaming"),
            "penstock.flow.transforms": ("transform",),
            "penstock.ops.adding": ("Transform",),
            "penstock.flow.trigger": ("Cron", "Event"),
            "penstock.flow.usage": ("Usage",),
        },
        extras={"apsw": "flow", "yaml": "flow"},
    )

__all__ = [
    "AccountError",
    "AnswerError",
    "AnthropicMessages",
    "CommandError",
    "Cron",
    "DeclinedError",
    "EnvSecret",
    "Event",
    "FileError",
    "Model",
    "ModelError",
    "OpenAIChat",
    "OutputRefused",
    "Pending",
    "Pipeline",
    "PipelineEngine",
    "PipelineError",
    "PipelineResult",
    "Reply",
    "RunInfo",
    "State",
    "Step",
    "StepContext",
    "StepOptions",
    "StepResult",
    "StreamingPipeline",
    "Transform",
    "TruncatedError",
    "Usage",
    "command",
    "load",
    "parallel",
    "prompt",
    "review",
    "secret",
    "step",
    "template",
    "to_streaming",
    "transform",
]
