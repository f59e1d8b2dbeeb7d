"""Four fetches for one user, all or nothing: profile, orders, recommendations and settings, at the same time.

The first one that fails stops the others, so that nobody waits for a page that cannot be shown.

    python examples/user_page.py                              # against a server of its own
    python examples/user_page.py --user 2                     # there, user 2 has lost the orders
    python examples/user_page.py http://localhost:8000 --user 7

Needs httpx: pip install 'penstock[openai]'.
"""

import argparse
import asyncio
import contextlib
import sys
from functools import partial
from http import HTTPStatus
from typing import Any

import httpx
from demo_server import NEVER, serving

from penstock.tasks import gather

PARTS = "profile", "orders", "recommendations", "settings"

ANSWERS = {
    "/users/1/profile": {"name": "Ada"},
    "/users/1/orders": [17, 23],
    "/users/1/recommendations": ["a difference engine"],
    "/users/1/settings": {"language": "en"},
    "/users/2/profile": {"name": "Charles"},
    "/users/2/orders": HTTPStatus.INTERNAL_SERVER_ERROR,
    "/users/2/recommendations": NEVER,
    "/users/2/settings": {"language": "en"},
}


async def user_page(client: httpx.AsyncClient, user: str) -> dict[str, Any]:
    """Everything that the page of `user` shows, by the name of the part."""
    fetches = [partial(fetch, client, f"/users/{user}/{part}") for part in PARTS]
    return dict(zip(PARTS, await gather(fetches, concurrency=len(PARTS), timeout=30), strict=True))


async def fetch(client: httpx.AsyncClient, path: str) -> Any:
    """What the server has at `path`."""
    response = await client.get(path, timeout=None)  # `gather` has one
    response.raise_for_status()
    return response.json()


async def show(url: str, user: str) -> int:
    """Print the page of `user`, or why there is none."""
    try:
        async with httpx.AsyncClient(base_url=url) as client:
            page = await user_page(client, user)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        print(f"no page for user {user}: {reason}", file=sys.stderr)
        return 1
    for part, value in page.items():
        print(f"{part}: {value}")
    return 0


def main() -> int:
    """Read the command line, and start a server if none is given."""
    parser = argparse.ArgumentParser(description="Show the page of a user.")
    parser.add_argument("url", nargs="?", help="the server; default: one of its own")
    parser.add_argument("--user", default="1", help="whose page; default: 1")
    options = parser.parse_args()
    own = serving(ANSWERS) if options.url is None else contextlib.nullcontext(options.url)
    try:
        with own as url:
            return asyncio.run(show(url, options.user))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
