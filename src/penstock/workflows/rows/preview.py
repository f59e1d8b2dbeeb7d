"""What would be asked, and what that would cost: nothing is asked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penstock.streams import Stream
from penstock.workflows.rows.spending import Price


@dataclass(frozen=True, slots=True)
class Preview:
    """What `penstock prompt --dry-run` tells.

    Attributes:
        prompts: the first prompts, as they would be sent.
        rows: rows that there are.
        unfit: of these, rows of which no prompt can be made.
        why: why not, of the first one.
        input_tokens: tokens of all prompts, estimated.
        most_output: tokens of all answers, at most.
        least_cost, most_cost: what that costs; None without a price.
    """

    prompts: list[str]
    rows: int
    unfit: int
    why: str
    input_tokens: int
    most_output: int
    least_cost: float | None
    most_cost: float | None


async def preview(
    rows: Stream[Any],
    prompt_of: Callable[[Any], str],
    tokens_of: Callable[[str], float],
    *,
    shown: int,
    limit: int | None,
    longest: int,
    price: Price | None,
) -> Preview:
    """Make the prompts of rows, at most of `limit`; keep those to be `shown`, and count the tokens of all."""
    prompts: list[str] = []
    found = unfit = 0
    why = ""
    tokens = 0.0
    async with rows.open() as opened:
        async for row in opened:
            found += 1
            try:
                prompt = prompt_of(row)
            except Exception as error:  # noqa: BLE001 -- of the row or of the user's function
                unfit, why = unfit + 1, why or str(error)
                continue
            tokens += tokens_of(prompt)
            if len(prompts) < shown:
                prompts.append(prompt)
            if limit is not None and found - unfit >= limit:
                break
    most = (found - unfit) * longest
    return Preview(
        prompts,
        found,
        unfit,
        why,
        round(tokens),
        most,
        None if price is None else price.of_tokens(tokens, 0),
        None if price is None else price.of_tokens(tokens, most),
    )
