"""Write an article with a model and an editor: an outline, its sections, and drafts until the editor is content.

    python examples/write_article.py TOPIC
    python examples/write_article.py TOPIC --feedback "Shorter, please."
    python examples/write_article.py TOPIC --accept
    python examples/write_article.py TOPIC --url http://127.0.0.1:8080/v1 --model small --workspace .articles

An agent: the model is asked for headings, then for each section, four at once; then the run waits for its editor. Each
of the calls goes on where the one before has stopped, and asks the model for nothing twice, also if it was killed. The
key of the service is read from the environment variable OPENAI_API_KEY. Ends with 0, or with 4 while the editor is
waited for.
"""

import argparse
import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from penstock.flow import OpenAIChat, Pipeline, PipelineEngine, PipelineResult, prompt, secret


@dataclass(frozen=True)
class Draft:
    """An article, and what its editor says of it."""

    text: str
    feedback: str = ""


def ask(topic: str) -> str:
    """Ask for headings."""
    return f"Give two headings for an article on {topic}, one a line, and nothing else."


def revise(draft: Draft) -> str:
    """Ask for a draft that heeds the editor; the first one is only to be copied."""
    return f"{draft.feedback or 'Give this text back as it is.'}\n\n{draft.text}"


def has_text(draft: Draft) -> None:
    """Refuse an article without a text."""
    if not draft.text.strip():
        raise ValueError("an article needs a text")


def build(model: OpenAIChat) -> Pipeline[str, Draft]:
    """Make the pipeline of a model."""
    revision = (
        Pipeline("round", takes=Draft)
        .add(prompt("revise", revise, model=model, parse=Draft))
        .review("editor", check=has_text)
    )
    return (
        Pipeline("article", takes=str)
        .add(prompt("outline", ask, model=model, parse=str.splitlines))
        .map("sections", prompt("section", lambda heading: f"Write on {heading}.", model=model), concurrency=4)
        .step("join", lambda sections: Draft("\n\n".join(sections)))
        .loop("refine", revision, until=lambda draft: not draft.feedback, max_rounds=10)
    )


def answer(engine: PipelineEngine, run: str, feedback: str | None, *, accept: bool) -> None:
    """Answer what waits, if anything does and there is an answer."""
    known = {each.run_id for each in engine.runs()}
    for waiting in engine.pending(run) if run in known else ():
        if accept:
            engine.approve(run, waiting.step, by="editor")
        elif feedback is not None:
            engine.approve(run, waiting.step, value=Draft(waiting.value.text, feedback), by="editor")


def show(engine: PipelineEngine, result: PipelineResult[Draft]) -> int:
    """Say what there is now."""
    if result.error is not None:
        print(result.error, file=sys.stderr)
        return 1
    if result.status == "paused":
        print(engine.pending(result.run_id)[0].value.text)
        print('\nanswer with --accept or --feedback "..."', file=sys.stderr)
        return 4
    print(result.output.text)
    print(f"\n{result.usage.requests} requests", file=sys.stderr)
    return 0


async def run(options: argparse.Namespace) -> int:
    """Go on with the article."""
    model = OpenAIChat(options.model, key=secret("OPENAI_API_KEY"), base_url=options.url, stream=False)
    engine = PipelineEngine(options.workspace, concurrency=4)
    name = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in f"a-{options.topic}")[:100]
    answer(engine, name, options.feedback, accept=options.accept)
    return show(engine, await engine.run(build(model), options.topic, run_id=name))


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Write an article with a model and an editor.")
    parser.add_argument("topic", help="what it is about; the same topic goes on with the same article")
    parser.add_argument("--accept", action="store_true", help="the draft that waits is good")
    parser.add_argument("--feedback", help="what is to be changed in the draft that waits")
    parser.add_argument("--url", help="the service; default: that of OpenAI")
    parser.add_argument("--model", default="gpt-4o-mini", help="the model; default: gpt-4o-mini")
    parser.add_argument("--workspace", type=Path, default=Path(".articles"), help="the record; default: .articles")
    try:
        return asyncio.run(run(parser.parse_args()))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
