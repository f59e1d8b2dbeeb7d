"""Health checks: how each service is and how long it took to say so; one that is down hides no other.

    python examples/check_health.py                                      # services of its own, three of them ill
    python examples/check_health.py shop=https://shop.example/health mail=http://10.0.0.2/health

Ends with 0 if all are up, else with 1. Needs httpx: pip install 'penstock[openai]'.
"""

import argparse
import asyncio
import socket
import sys
import time
from http import HTTPStatus

import httpx
from demo_server import NEVER, serving

from penstock import Failed, Outcome
from penstock.tasks import settle

ANSWERS = {"/shop": "ok", "/search": NEVER, "/mail": HTTPStatus.INTERNAL_SERVER_ERROR}


class Check:
    """A task: asks `url` how it is; `seconds` is how long that took, whatever came of it."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self.seconds = 0.0
        self._client = client
        self._url = url

    async def __call__(self) -> None:
        """Return if the service is well, raise if not."""
        start = time.perf_counter()
        try:
            (await self._client.get(self._url)).raise_for_status()
        finally:
            self.seconds = time.perf_counter() - start


async def check_all(services: dict[str, str], limit: float) -> int:
    """Ask all services, at most 20 at once, for `limit` seconds each, and print a table."""
    async with httpx.AsyncClient(timeout=None) as client:  # noqa: S113 -- `settle` has one
        checks = [Check(client, url) for url in services.values()]
        outcomes = await settle(checks, concurrency=20, timeout=limit)
    width = max(map(len, services))
    for name, check, outcome in zip(services, checks, outcomes, strict=True):
        print(f"{name:<{width}}  {1000 * check.seconds:6.0f} ms  {status(outcome)}")
    return 1 if any(isinstance(outcome, Failed) for outcome in outcomes) else 0


def status(outcome: Outcome[None]) -> str:
    """What an outcome says of the service, in a word or two."""
    match outcome:
        case Failed(error=httpx.HTTPStatusError(response=response)):
            return f"down: {response.status_code} {response.reason_phrase}"
        case Failed(error=TimeoutError()):
            return "down: timeout"
        case Failed(error=httpx.ConnectError()):
            return "down: no connection"
        case Failed(error=error):
            return f"down: {error or type(error).__name__}"
        case _:
            return "up"


def check_own(limit: float) -> int:
    """Check four services of our own: one is up, one is slow, one is broken, and behind one address is nobody."""
    with serving(ANSWERS) as url, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        services = {path[1:]: url + path for path in ANSWERS}
        services["stock"] = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        return asyncio.run(check_all(services, limit))


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Check the health of services.")
    parser.add_argument("services", nargs="*", metavar="NAME=URL", help="what to check; default: services of its own")
    parser.add_argument("--timeout", type=float, default=1.0, help="seconds that a service has; default: 1")
    options = parser.parse_args()
    services = dict(service.partition("=")[::2] for service in options.services)
    for name, url in services.items():
        if not name or not url.startswith(("http://", "https://")):
            parser.error(f"a service must be NAME=URL with an http URL, got {name + '=' + url!r}")
    if not options.timeout > 0:
        parser.error(f"--timeout must be > 0, got {options.timeout}")
    try:
        return asyncio.run(check_all(services, options.timeout)) if services else check_own(options.timeout)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
