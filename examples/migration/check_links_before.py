"""Check the links of a page of Markdown.

Links without a host are looked for at the base. A line for each: the status, how many bytes came, the link. Then how
many are well, by host. Ends with 0 if all are.
"""

import argparse
import re
import sys
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urljoin, urlsplit

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TIMEOUT = 10
MOST = 1_000_000
"""Bytes of a page that are read."""


@dataclass(frozen=True, order=True)
class Checked:
    """What came of a link."""

    url: str
    status: int
    size: int

    @property
    def is_well(self) -> bool:
        """Whether there is a page."""
        return HTTPStatus.OK <= self.status < HTTPStatus.BAD_REQUEST

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.status} {self.size:8} {self.url}"


def links(text: str, base: str, skipped: list[str]) -> list[str]:
    """Those of a page to other hosts than those, each once, in order."""
    found = dict.fromkeys(urljoin(base, link.partition("#")[0]) for link in LINK.findall(text))
    pages = [url for url in found if urlsplit(url).scheme in {"http", "https"}]
    return [url for url in pages if urlsplit(url).hostname not in skipped]


def check(url: str) -> Checked:
    """Get a page; what the server refuses is a status, and what does not answer an error."""
    request = urllib.request.Request(url, headers={"User-Agent": "check-links"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return Checked(url, response.status, len(response.read(MOST)))
    except urllib.error.HTTPError as refused:
        with refused:
            return Checked(url, refused.code, 0)


class Summary:
    """Counts by host, and keeps the lines."""

    def __init__(self) -> None:
        self.checked: list[Checked] = []
        self.unreachable: dict[str, str] = {}

    def add(self, each: Checked) -> None:
        """Note what came."""
        self.checked.append(each)

    def fail(self, url: str, error: Exception) -> None:
        """Note that nothing came."""
        self.unreachable[url] = type(error).__name__

    @property
    def is_well(self) -> bool:
        """Whether all links are."""
        return not self.unreachable and all(each.is_well for each in self.checked)

    def show(self) -> None:
        """Print it, sorted."""
        for each in sorted(self.checked):
            print(each)
        for url, reason in sorted(self.unreachable.items()):
            print(f"--- {reason} {url}")
        well = Counter(urlsplit(each.url).hostname for each in self.checked if each.is_well)
        for host, count in sorted(well.items()):
            print(f"{host}: {count} well")


def check_all(urls: list[str], workers: int) -> Summary:
    """Check them, some at once."""
    summary = Summary()
    with ThreadPoolExecutor(workers) as pool:
        waiting = {pool.submit(check, url): url for url in urls}
        for number, future in enumerate(as_completed(waiting), 1):
            try:
                summary.add(future.result())
            except OSError as error:
                summary.fail(waiting[future], error)
            print(f"\r{number} of {len(urls)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return summary


def main() -> int:
    """Read the options, check and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="a file of Markdown")
    parser.add_argument("--base", default="http://127.0.0.1:8000", help="where links without a host lead")
    parser.add_argument(
        "--skip", action="append", default=[], metavar="HOST", help="leave out its links; again for more"
    )
    parser.add_argument("--workers", type=int, default=8, help="requests at once (8)")
    options = parser.parse_args()
    urls = links(options.page.read_text(), options.base, options.skip)
    summary = check_all(urls, options.workers)
    summary.show()
    return 0 if summary.is_well else 1


if __name__ == "__main__":
    raise SystemExit(main())
