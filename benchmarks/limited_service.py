"""A service of models on a loopback socket: what clients of the real ones meet, with a limiter that is one.

It speaks `/chat/completions`, at once and in pieces. Requests and tokens are limited by the minute: a bucket for each,
which holds what a second brings. A request is charged its prompt and `max_tokens` when it comes, and what it has used
when it ends. Whoever has too much gets a 429 with Retry-After. Of the first attempts of rows some get a 529 or a 500,
some are cut in the middle of the answer, some never hear of it. Twice in a run the service is overloaded: all get 529,
with Retry-After. Rows, lengths and faults are the same for all who ask.

`GET /books` gives what it has counted, `GET /again` forgets it. It is a process of its own, and prints its port first.
"""

import asyncio
import contextlib
import json
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

import uvloop

REQUESTS = 10_000
TOKENS = 900_000
"""Limits a minute."""

HELD = 1.0
"""Seconds of its rate that a bucket holds."""

LOOK = 0.5

OVERLOADED = ((12.0, 1.5), (35.0, 1.5))
"""When after the first request, and for how long, all get 529."""

ROW = re.compile(r"row-(\d+)")
WORDS = ("amber", "bay", "cedar", "delta", "ember", "fjord", "grove", "hill", "inlet", "jetty", "knoll", "lake")


def tokens_of(text: str) -> int:
    return -(-len(text) // 4)


def prompt_of(row: int) -> str:
    pick = random.Random(row)
    return f"Say what row-{row} is about: {' '.join(pick.choices(WORDS, k=pick.randint(15, 45)))}"


def answer_of(row: int) -> str:
    pick = random.Random(-row - 1)
    return f"row-{row} {' '.join(pick.choices(WORDS, k=pick.randint(10, 35)))}."


class Bucket:
    """Fills up evenly, to what `HELD` seconds bring."""

    def __init__(self, a_minute: float) -> None:
        self.a_minute = a_minute
        self.rate = a_minute / 60
        self.most = self.level = self.rate * HELD
        self.at = monotonic()

    def fill(self) -> None:
        now = monotonic()
        self.level = min(self.most, self.level + (now - self.at) * self.rate)
        self.at = now

    def wait(self, cost: float) -> float:
        """Seconds until `cost` is there; 0 if it is."""
        return max(0.0, (min(cost, self.most) - self.level) / self.rate)

    def said(self, name: str) -> list[str]:
        remaining = max(0, int(self.level / self.most * self.a_minute))
        return [
            f"x-ratelimit-limit-{name}: {self.a_minute:.0f}",
            f"x-ratelimit-remaining-{name}: {remaining}",
            f"x-ratelimit-reset-{name}: {max(0, round((self.most - self.level) / self.rate * 1_000))}ms",
        ]


@dataclass
class Books:
    """What there was, since `again`."""

    began: float | None = None
    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)
    answered: Counter[int] = field(default_factory=Counter)
    tokens: int = 0
    running: int = 0
    most_running: int = 0

    def shown(self) -> dict[str, object]:
        return {
            "requests": self.requests,
            "statuses": self.statuses,
            "faults": self.faults,
            "answered": self.answered,
            "tokens": self.tokens,
            "most_running": self.most_running,
        }


@dataclass(frozen=True)
class Asked:
    row: int
    prompt_tokens: int
    stream: bool
    fault: str | None
    cost: int


class Service:
    def __init__(self) -> None:
        self.again()

    def again(self) -> None:
        self.books = Books()
        self.requests, self.tokens = Bucket(REQUESTS), Bucket(TOKENS)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self.exchange(reader, writer):
                pass
        writer.close()

    async def exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; whether the connection is still of use."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split(" ", 2)
        found = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
        body = await reader.readexactly(int(found[1])) if found else b""
        if path == "/books":
            return self.send(writer, 200, self.books.shown())
        if path == "/again":
            self.again()
            return self.send(writer, 200, {})
        assert method == "POST", head
        return await self.complete(json.loads(body), writer)

    async def complete(self, asked: dict, writer: asyncio.StreamWriter) -> bool:
        books, now = self.books, monotonic()
        books.began = now if books.began is None else books.began
        books.requests += 1
        text = "".join(message["content"] for message in asked["messages"])
        row = int(ROW.search(text)[1])
        if any(at <= now - books.began < at + long for at, long in OVERLOADED):
            return self.refuse(writer, 529, "overloaded_error", 1.0)
        cost = tokens_of(text) + asked.get("max_tokens", 1_000)
        self.requests.fill()
        self.tokens.fill()
        if wait := max(self.requests.wait(1), self.tokens.wait(cost)):
            return self.refuse(writer, 429, "rate_limit_exceeded", wait)
        self.requests.level -= 1
        self.tokens.level -= cost
        books.attempts[row] += 1
        fault = self.fault(row) if books.attempts[row] == 1 else None
        if fault is not None:
            books.faults[fault] += 1
        if fault == "529":  # as a service says it of one request: it does not say for how long
            return self.refuse(writer, 529, "overloaded_error", None)
        if fault == "500":
            return self.refuse(writer, 500, "server_error", None)
        books.running += 1
        books.most_running = max(books.most_running, books.running)
        try:
            return await self.answer(Asked(row, tokens_of(text), bool(asked.get("stream")), fault, cost), writer)
        finally:
            books.running -= 1

    def fault(self, row: int) -> str | None:
        number = random.Random(row * 7 + 1).randrange(1_000)
        for name, below in (("529", 5), ("500", 8), ("cut", 13), ("stall", 15)):
            if number < below:
                return name
        return None

    async def answer(self, asked: Asked, writer: asyncio.StreamWriter) -> bool:
        if asked.fault == "stall":
            while not writer.is_closing():  # noqa: ASYNC110 -- a connection that ends tells a writer nothing
                await asyncio.sleep(LOOK)
            return False
        books, answer = self.books, answer_of(asked.row)
        takes = random.Random(asked.row + books.attempts[asked.row] * 1e6).lognormvariate(-0.9, 0.5)
        read, written = asked.prompt_tokens, tokens_of(answer)
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        said = [*self.requests.said("requests"), *self.tokens.said("tokens")]
        if asked.stream:
            await asyncio.sleep(takes * 0.6)
            whole = await self.pieces(answer, usage, takes * 0.4, said, writer, cut=asked.fault == "cut")
        else:
            await asyncio.sleep(takes)
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer}}
            document = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
            whole = self.send(writer, 200, document | {"usage": usage}, said, cut=asked.fault == "cut")
        self.tokens.level += asked.cost - usage["total_tokens"]
        await writer.drain()
        if whole:
            books.answered[asked.row] += 1
            books.tokens += usage["total_tokens"]
            books.statuses[200] += 1
        return whole

    async def pieces(
        self,
        answer: str,
        usage: dict[str, int],
        takes: float,
        said: Sequence[str],
        writer: asyncio.StreamWriter,
        *,
        cut: bool,
    ) -> bool:
        head = ["HTTP/1.1 200 OK", "content-type: text/event-stream", "transfer-encoding: chunked", *said]
        writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
        third = len(answer) // 3
        for number, part in enumerate((answer[:third], answer[third : 2 * third], answer[2 * third :])):
            if cut and number == 2:
                return False
            self.event(writer, {"choices": [{"index": 0, "delta": {"content": part}, "finish_reason": None}]})
            await asyncio.sleep(takes / 3)
        self.event(writer, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self.event(writer, {"choices": [], "usage": usage})
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        return True

    def event(self, writer: asyncio.StreamWriter, document: dict) -> None:
        if writer.is_closing():
            raise ConnectionResetError
        known = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        data = f"data: {json.dumps(known | document)}\n\n".encode()
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    def refuse(self, writer: asyncio.StreamWriter, status: int, kind: str, wait: float | None) -> bool:
        self.books.statuses[status] += 1
        said = [*self.requests.said("requests"), *self.tokens.said("tokens")]
        said += [] if wait is None else [f"retry-after: {max(1, round(wait))}", f"retry-after-ms: {wait * 1_000:.0f}"]
        error = {"type": kind, "code": kind, "message": f"{kind}: try again later"}
        return self.send(writer, status, {"error": error}, said)

    def send(
        self,
        writer: asyncio.StreamWriter,
        status: int,
        document: object,
        said: Sequence[str] = (),
        *,
        cut: bool = False,
    ) -> bool:
        content = json.dumps(document).encode()
        head = [f"HTTP/1.1 {status} Said", "content-type: application/json", f"content-length: {len(content)}", *said]
        writer.write(("\r\n".join(head) + "\r\n\r\n").encode() + (content[: len(content) // 2] if cut else content))
        return not cut


async def main() -> None:
    service = Service()
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0, backlog=1_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until whoever has started it is gone
    server.close()
    os._exit(0)  # connections may be open


if __name__ == "__main__":
    uvloop.run(main())
