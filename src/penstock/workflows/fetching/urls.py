"""URLs that are used and never shown: a path or a query may hold a token, and what is before the host a password."""

import re
from base64 import b64encode
from hashlib import blake2b
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import unquote_to_bytes

import httpx

_SCHEMES: Final = ("http", "https")
_PORTS: Final = {"http": 80, "https": 443}
_LAST_PORT: Final = 65_535
_LONGEST: Final = 16_000
"""Characters of a URL, at most."""

_HOST: Final = re.compile(r"[A-Za-z0-9_.-]{1,253}")


class UrlError(Exception):
    """A text is no URL that can be fetched; the message does not show it."""


class Url:
    """A URL of http or https. Its repr shows the host alone.

    Attributes:
        host: in lower case, as DNS has it.
        port: also if it is the one of the scheme.
        digest: tells this URL from others.
    """

    __slots__ = ("_url", "digest", "host", "port")

    def __init__(self, text: str) -> None:
        self._url = _parsed(text)
        self.host: str = self._url.raw_host.decode("ascii")
        self.port: int = self._url.port or _PORTS[self._url.scheme]
        self.digest: str = blake2b(str(self._url.copy_with(fragment=None)).encode(), digest_size=16).hexdigest()

    def __repr__(self) -> str:
        return f"<URL at {self.host}>"

    def __reduce__(self) -> str:
        raise TypeError("a URL that may hold secrets is not pickled")

    @property
    def is_tls(self) -> bool:
        """Whether it is one of https."""
        return self._url.scheme == "https"

    @property
    def parts(self) -> tuple[bytes, bytes, int, bytes]:
        """Scheme, host, port, and what is asked of the server."""
        return self._url.raw_scheme, self._url.raw_host, self.port, self._url.raw_path

    @property
    def host_header(self) -> bytes:
        """The host, with the port if it is another than that of the scheme."""
        return self._url.netloc

    @property
    def credentials(self) -> bytes | None:
        """What `user:password@` stands for in a header; None without it."""
        name, _, password = self._url.userinfo.partition(b":")
        if not name and not password:
            return None
        return b"Basic " + b64encode(unquote_to_bytes(name) + b":" + unquote_to_bytes(password))

    def may_be_told(self, secrets_of: "Url") -> bool:
        """Whether it may be sent what is meant for another: the same server, or the same host from http on to https."""
        if self.host != secrets_of.host:
            return False
        if (self.is_tls, self.port) == (secrets_of.is_tls, secrets_of.port):
            return True
        return self.is_tls and not secrets_of.is_tls and (self.port, secrets_of.port) == (443, 80)

    def leading_to(self, location: str) -> "Url":
        """Return the place to which a redirect leads.

        Raises:
            UrlError: it is no URL of http or https.
        """
        try:
            return Url(str(self._url.copy_with(fragment=None, userinfo=b"").join(location)))
        except (httpx.InvalidURL, ValueError):
            raise UrlError("the redirect leads to no valid URL") from None


def _parsed(text: str) -> httpx.URL:
    if len(text) > _LONGEST:
        raise UrlError(f"the URL is longer than {_LONGEST:,} characters")
    try:
        url = httpx.URL(text)
        known = url.scheme in _SCHEMES
        valid = _is_host(url.raw_host.decode("ascii")) and (url.port is None or 0 < url.port <= _LAST_PORT)
    except (httpx.InvalidURL, ValueError):
        raise UrlError("the URL is not valid") from None
    if not known:
        raise UrlError("the URL is not one of http or https")
    if not valid:
        raise UrlError("the URL has no host or no valid port")
    return url


def _is_host(host: str) -> bool:
    if ":" not in host:
        return _HOST.fullmatch(host) is not None
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True
