"""A price list from a shop's API, with totals by kind.

Products that the shop does not sell are named at the end. Ends with 0 if all have a price, else
with 1. Needs httpx.
"""

import argparse
import asyncio
import sys
from collections import defaultdict
from dataclasses import dataclass, field

import httpx
import penstock

KINDS = ("tools", "paper", "paint")
ATTEMPTS = 3
VAT = 0.2


@dataclass(frozen=True)
class Quote:
    """What a product costs."""

    product: int
    kind: str
    net: float

    @property
    def gross(self) -> float:
        """With tax, in full cents."""
        return round(self.net * (1 + VAT), 2)


@dataclass
class Report:
    """Collects quotes and failures, and prints them."""

    quotes: list[Quote] = field(default_factory=list)
    missing: dict[int, str] = field(default_factory=dict)

    def add(self, quote: Quote) -> None:
        """Note a price."""
        self.quotes.append(quote)

    def miss(self, product: int, error: BaseException) -> None:
        """Note that there is none, and why."""
        if isinstance(error, httpx.HTTPStatusError):
            self.missing[product] = f"status {error.response.status_code}"
        else:
            self.missing[product] = type(error).__name__

    def totals(self) -> dict[str, float]:
        """By kind."""
        found: defaultdict[str, float] = defaultdict(float)
        for quote in self.quotes:
            found[quote.kind] += quote.gross
        return dict(sorted(found.items()))

    def show(self) -> None:
        """Print it."""
        for quote in sorted(self.quotes, key=lambda quote: quote.product):
            print(f"{quote.product:5}  {quote.kind:8} {quote.net:10.2f} {quote.gross:10.2f}")
        for kind, total in self.totals().items():
            print(f"total  {kind:8} {'':10} {total:10.2f}")
        for product, reason in sorted(self.missing.items()):
            print(f"{product:5}  {reason}", file=sys.stderr)


def kind_of(product: int) -> str:
    """By its number."""
    return KINDS[product % len(KINDS)]


async def fetch(client: httpx.AsyncClient, product: int) -> Quote:
    """Ask the shop; a connection that breaks is tried again."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            response = await client.get(f"/products/{product}")
            break
        except httpx.TransportError:
            if attempt == ATTEMPTS:
                raise
            await asyncio.sleep(0.1 * 2**attempt)
    response.raise_for_status()
    return Quote(product, kind_of(product), float(response.json()["price"]))


async def collect(url: str, products: range, concurrency: int) -> Report:
    """Fetch all of them, some at once."""
    report = Report()
    async with httpx.AsyncClient(base_url=url, timeout=10) as client:

        async def quote(product: int) -> Quote:
            return await fetch(client, product)

        quotes = penstock.stream(products).map(quote, concurrency=concurrency, on_error="collect")
        async with quotes.open() as results:
            async for result in results:
                report.add(result)
            for failure in results.failures:
                report.miss(failure.item, failure.error)
    return report


def main() -> int:
    """Read the options, fetch and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the shop")
    parser.add_argument("--products", type=int, default=7, help="how many (7)")
    parser.add_argument("--concurrency", type=int, default=4, help="requests at once (4)")
    options = parser.parse_args()
    report = asyncio.run(collect(options.url, range(1, options.products + 1), options.concurrency))
    report.show()
    return 1 if report.missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
