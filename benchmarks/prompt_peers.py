"""Ways to ask a model about each row of a file, and to keep the answers. A new one is a function and a row of `PEERS`.

Each gets the same: the rows, the limits of the service, calls at once, a timeout, attempts. It reads `ROWS` (JSON lines
with `id` and `prompt`), leaves its answers in the directory `place`, and returns the tokens that it has counted.
`answers_in` finds them there, each with the row that it is of. Started again in the same place, it goes on if it can.
"""

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limited_service import REQUESTS, TOKENS, tokens_of

CONCURRENCY = 200
TIMEOUT = 8.0
ATTEMPTS = 6
MAX_TOKENS = 64
KEY = "sk-of-nobody"


@dataclass(frozen=True)
class Job:
    """What a peer is given."""

    url: str
    rows: Path
    place: Path


def rows_of(job: Job) -> Iterator[dict[str, Any]]:
    with job.rows.open() as lines:
        for line in lines:
            yield json.loads(line)


# penstock


async def by_penstock(job: Job) -> int:
    """As `penstock prompt "{prompt}" --over rows.jsonl --to answers.db --model openai:m` with its options."""
    from penstock.flow import OpenAIChat  # noqa: PLC0415 -- each peer imports its own
    from penstock.workflows import ask  # noqa: PLC0415 -- as above

    os.environ["OPENAI_API_KEY"] = KEY
    report = await ask(
        job.rows,
        "{prompt}",
        to=str(job.place / "answers.db"),
        model=OpenAIChat("m", base_url=job.url, stream=False),
        key="id",
        concurrency=CONCURRENCY,
        retry=ATTEMPTS,
        timeout=TIMEOUT,
        rate=f"{REQUESTS}/min",
        tokens=f"{TOKENS}/min",
        max_answer=MAX_TOKENS,
    )
    return (report.spent.input_tokens or 0) + (report.spent.output_tokens or 0)  # without what it estimates


def penstock_answers(place: Path) -> Iterator[tuple[int, str]]:
    if (place / "answers.db").exists():
        with contextlib.closing(sqlite3.connect(f"file:{place / 'answers.db'}?mode=ro", uri=True)) as database:
            yield from database.execute("SELECT id, answer FROM rows")


# async-batch-llm, as its README has it for production, with its limits, its estimator and its checkpoints


async def by_async_batch_llm(job: Job) -> int:
    import async_batch_llm as abl  # noqa: PLC0415

    identity = abl.ArtifactIdentity(provider="local", model="m")
    store = abl.SqliteArtifactStore(str(job.place / "artifacts.sqlite"), identity=identity)
    config = abl.ProcessorConfig(
        concurrency=CONCURRENCY,
        attempt_timeout=TIMEOUT,
        max_queue_size=2 * CONCURRENCY,
        max_result_queue_size=2 * CONCURRENCY,
        max_requests_per_minute=REQUESTS,
        max_tokens_per_minute=TOKENS,
        quota_burst_seconds=1.0,
        token_estimator=abl.CharacterTokenEstimator(expected_output_tokens=MAX_TOKENS),
        retry=abl.RetryConfig(max_attempts=ATTEMPTS, initial_wait=0.1, max_wait=30.0),
        rate_limit=abl.RateLimitConfig(
            cooldown_seconds=1.0, slow_start_items=50, slow_start_initial_delay=0.05, slow_start_final_delay=0.0
        ),
    )
    strategy = abl.llm(
        "openai-compatible:m", base_url=job.url, api_key=KEY, generation_config={"max_tokens": MAX_TOKENS}
    )
    counted = 0
    prompts = ((str(row["id"]), row["prompt"]) for row in rows_of(job))
    with (job.place / "answers.jsonl").open("w") as out:
        async for result in abl.process_stream(
            strategy, prompts, config=config, artifact_store=store, resume=abl.ResumePolicy.REUSE_SUCCESSES
        ):
            counted += (result.token_usage or {}).get("total_tokens") or 0
            if result.success:
                out.write(json.dumps({"row": int(result.item_id), "answer": result.output}) + "\n")
    return counted


def line_answers(place: Path) -> Iterator[tuple[int, str]]:
    path = place / "answers.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found = json.loads(line)
        except ValueError:  # a kill has cut it
            continue
        yield found["row"], found["answer"]


# The script that everybody writes


async def by_script(job: Job) -> int:
    from openai import APIConnectionError, APIStatusError, AsyncOpenAI  # noqa: PLC0415
    from tenacity import (  # noqa: PLC0415
        retry,
        retry_if_exception,
        stop_after_attempt,
        wait_random_exponential,
    )

    def passes(error: BaseException) -> bool:
        return isinstance(error, APIConnectionError | TimeoutError) or (
            isinstance(error, APIStatusError) and (error.status_code == 429 or error.status_code >= 500)
        )

    counted = 0
    client = AsyncOpenAI(api_key=KEY, base_url=job.url, max_retries=0, timeout=TIMEOUT)
    semaphore = asyncio.Semaphore(CONCURRENCY)

    @retry(retry=retry_if_exception(passes), stop=stop_after_attempt(ATTEMPTS), wait=wait_random_exponential(1, max=30))
    async def ask(prompt: str) -> str:
        nonlocal counted
        async with semaphore:
            done = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": prompt}], max_tokens=MAX_TOKENS
            )
        counted += done.usage.total_tokens
        return done.choices[0].message.content

    rows = list(rows_of(job))
    answers = await asyncio.gather(*(ask(row["prompt"]) for row in rows), return_exceptions=True)
    with (job.place / "answers.jsonl").open("w") as out:
        for row, answer in zip(rows, answers, strict=True):
            if isinstance(answer, str):
                out.write(json.dumps({"row": row["id"], "answer": answer}) + "\n")
    await client.close()
    return counted


# OpenAI's cookbook has a script that is often copied, `api_request_parallel_processor.py`. This is written from what
# its description says: requests from a file, one at a time when both allowances have room for it; allowances that grow
# with the clock; what fails goes to the back of a queue, with its attempts; a pause for all after a rate limit; each
# result is appended to a file as it comes.


@dataclass
class Asked:
    row: int
    prompt: str
    left: int = ATTEMPTS

    @property
    def charge(self) -> int:
        return tokens_of(self.prompt) + MAX_TOKENS


PAUSE = 15.0


class Cookbook:
    def __init__(self, job: Job, session: Any, out: Any) -> None:
        self.job, self.session, self.out = job, session, out
        self.again: asyncio.Queue[Asked] = asyncio.Queue()
        self.requests, self.tokens, self.looked = float(REQUESTS), float(TOKENS), time.monotonic()
        self.refused_at = float("-inf")
        self.running = self.counted = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        rows = rows_of(self.job)
        following = None
        while True:
            following = following or self.next_of(rows)
            if following is None and not self.running and self.again.empty():
                return self.counted
            if following is not None and self.has_room_for(following):
                self.running += 1
                self.tasks.add(task := asyncio.create_task(self.ask(following)))
                task.add_done_callback(self.tasks.discard)
                following = None
            await asyncio.sleep(max(0.001, self.refused_at + PAUSE - time.monotonic()))

    def next_of(self, rows: Iterator[dict[str, Any]]) -> Asked | None:
        if not self.again.empty():
            return self.again.get_nowait()
        row = next(rows, None)
        return None if row is None else Asked(row["id"], row["prompt"])

    def has_room_for(self, asked: Asked) -> bool:
        """Take what it is charged, if it is there."""
        now = time.monotonic()
        self.requests = min(REQUESTS, self.requests + REQUESTS * (now - self.looked) / 60)
        self.tokens = min(TOKENS, self.tokens + TOKENS * (now - self.looked) / 60)
        self.looked = now
        if self.requests < 1 or self.tokens < asked.charge:
            return False
        self.requests -= 1
        self.tokens -= asked.charge
        return True

    async def ask(self, asked: Asked) -> None:
        try:
            document = await self.answer_to(asked)
        except Exception:  # noqa: BLE001 -- any is tried again
            document = {"error": {"message": "it could not be asked"}}
        self.running -= 1
        if "error" not in document:
            self.counted += document["usage"]["total_tokens"]
            answer = document["choices"][0]["message"]["content"]
            self.out.write(json.dumps({"row": asked.row, "answer": answer}) + "\n")
            self.out.flush()
            return
        if "rate_limit" in document["error"]["message"]:
            self.refused_at = time.monotonic()
        asked.left -= 1
        if asked.left:
            self.again.put_nowait(asked)

    async def answer_to(self, asked: Asked) -> dict[str, Any]:
        body = {"model": "m", "messages": [{"role": "user", "content": asked.prompt}], "max_tokens": MAX_TOKENS}
        async with self.session.post(f"{self.job.url}/chat/completions", json=body) as response:
            return await response.json()


async def by_cookbook(job: Job) -> int:
    import aiohttp  # noqa: PLC0415 -- as above

    with (job.place / "answers.jsonl").open("a") as out:
        headers, limit = {"Authorization": f"Bearer {KEY}"}, aiohttp.ClientTimeout(total=TIMEOUT)
        async with aiohttp.ClientSession(headers=headers, timeout=limit) as session:
            return await Cookbook(job, session, out).run()


@dataclass(frozen=True)
class Peer:
    """How it asks, and where its answers are."""

    ask: Callable[[Job], Awaitable[int]]
    answers: Callable[[Path], Iterator[tuple[int, str]]]
    without: tuple[str, ...] = ("aiohttp",)
    """Packages that are here for others, and that its own would import if they find them: `openai` does."""


PEERS = {
    "penstock": Peer(by_penstock, penstock_answers),
    "async-batch-llm": Peer(by_async_batch_llm, line_answers),
    "gather+Semaphore+tenacity": Peer(by_script, line_answers),
    "cookbook": Peer(by_cookbook, line_answers, without=()),
}


def peak_mib() -> float:
    """Peak resident memory of this process; `getrusage` would start at its parent's."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 2**10


if __name__ == "__main__":
    peer, url, rows, place = sys.argv[1:]
    sys.modules.update(dict.fromkeys(PEERS[peer].without))  # None: it cannot be imported
    tokens = asyncio.run(PEERS[peer].ask(Job(url, Path(rows), Path(place))))
    print(json.dumps({"tokens": tokens, "mib": peak_mib(), "cpu": time.process_time()}))
