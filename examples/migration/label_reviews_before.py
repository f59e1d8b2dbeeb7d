"""Label reviews with a language model and put them into a table.

The reviews are lines of JSON with `id` and `text`. Empty ones are left out. Needs httpx.
"""

import argparse
import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import batched
from pathlib import Path

import httpx

AT_ONCE = 10
ROWS = 100
TABLE = "CREATE TABLE IF NOT EXISTS reviews (id INTEGER PRIMARY KEY, text TEXT, label TEXT, tokens INTEGER)"


@dataclass(frozen=True)
class Review:
    """A text, and what the model says of it."""

    id: int
    text: str
    label: str = ""
    tokens: int = 0


def load(path: Path) -> Iterator[Review]:
    """Read the file."""
    with path.open() as lines:
        for line in lines:
            row = json.loads(line)
            yield Review(row["id"], row["text"])


def clean(review: Review) -> Review:
    """One space between words."""
    return replace(review, text=" ".join(review.text.split()))


def is_worth_asking(review: Review) -> bool:
    """Whether there is a text."""
    return len(review.text) > 1


class Labeller:
    """Asks the model."""

    def __init__(self, client: httpx.AsyncClient, model: str) -> None:
        self.client = client
        self.model = model

    async def label(self, review: Review) -> Review:
        """One request."""
        body = {"model": self.model, "messages": [{"role": "user", "content": review.text}]}
        response = await self.client.post("/v1/chat/completions", json=body)
        response.raise_for_status()
        said = response.json()
        return replace(
            review,
            label=said["choices"][0]["message"]["content"],
            tokens=said["usage"]["total_tokens"],
        )


class Table:
    """Where labelled reviews go."""

    def __init__(self, path: str) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute(TABLE)

    def store(self, reviews: Iterable[Review]) -> None:
        """Put them there, in one transaction."""
        rows = [(review.id, review.text, review.label, review.tokens) for review in reviews]
        self.connection.execute("BEGIN")
        self.connection.executemany("INSERT OR REPLACE INTO reviews VALUES (?, ?, ?, ?)", rows)
        self.connection.execute("COMMIT")

    def summary(self) -> Counter[str]:
        """How many have which label."""
        return Counter(
            dict(self.connection.execute("SELECT label, count(*) FROM reviews GROUP BY label ORDER BY label"))
        )

    def close(self) -> None:
        """Let go of the file."""
        self.connection.close()


async def run(path: Path, url: str, model: str, table: Table) -> None:
    """From the file to the table."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        labeller = Labeller(client, model)
        cleaned = [clean(review) for review in load(path)]
        wanted = [review for review in cleaned if is_worth_asking(review)]
        labelled: list[Review] = []
        for some in batched(wanted, AT_ONCE):
            labelled += await asyncio.gather(*(labeller.label(review) for review in some))
        for rows in batched(labelled, ROWS):
            table.store(rows)


def main() -> None:
    """Read the options, run, and say what is in the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reviews", type=Path, help="a file with a review a line, as JSON")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the server of the model")
    parser.add_argument("--model", default="demo", help="its name")
    parser.add_argument("--database", default="reviews.db", help="where the table is")
    options = parser.parse_args()
    with closing(Table(options.database)) as table:
        asyncio.run(run(options.reviews, options.url, options.model, table))
        for label, count in table.summary().items():
            print(f"{label}: {count}")


if __name__ == "__main__":
    main()
