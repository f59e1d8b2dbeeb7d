"""Which addresses may be connected to, and the connections to them.

A name is resolved once for each connection, the addresses are checked, and one of those that were checked is connected
to: a name that leads elsewhere a moment later (DNS rebinding) leads nowhere.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, cast, override

import httpcore

type Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a name, the best one first; raises `OSError` if there are none."""

_CONNECT: Final = 5.0
"""Seconds for a connection to one address."""

_ADDRESSES: Final = 4
"""Addresses of a name that are tried, at most."""

_GLOBAL: Final = IPv6Network("2000::/3")
"""All of IPv6 that is routed in public."""

_TRANSLATED: Final = IPv6Network("64:ff9b::/96")
"""Addresses of IPv4 as a translator shows them (NAT64, RFC 6052)."""

_TUNNELS: Final = (IPv6Network("2002::/16"), IPv6Network("2001::/32"))
"""6to4 and Teredo: they lead to an address of IPv4, which may be private."""

_METADATA: Final = (IPv4Network("168.63.129.16/32"),)
"""Public by its number, and still a service of the machine's own cloud (Azure)."""


class PrivateAddressError(Exception):
    """A host has no address that may be connected to."""


def is_public(address: str) -> bool:
    """Whether an address is one of the public Internet: not this machine, its network, or its cloud's metadata."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return _is_public_4(found) if isinstance(found, IPv4Address) else _is_public_6(found)


def _is_public_4(address: IPv4Address) -> bool:
    return address.is_global and not address.is_multicast and not any(address in each for each in _METADATA)


def _is_public_6(address: IPv6Address) -> bool:
    if address.ipv4_mapped is not None:
        return _is_public_4(address.ipv4_mapped)
    if address in _TRANSLATED:
        return _is_public_4(IPv4Address(int(address) & 0xFFFF_FFFF))
    return address in _GLOBAL and address.is_global and not any(address in each for each in _TUNNELS)


async def resolved(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host as the system gives them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


class CheckedConnections(httpcore.AsyncNetworkBackend):
    """Connects to the public Internet alone, or, with `allow_private`, to any address."""

    def __init__(self, *, allow_private: bool, resolve: Resolve = resolved) -> None:
        self._allow_private = allow_private
        self._resolve = resolve
        self._network = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())  # anyio is there, with httpx

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of the host that answers, of those that are allowed."""
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise httpcore.ConnectError(f"the name is not known: {(reason or 'no name at all').lower()}") from None
        allowed = [each for each in addresses if self._allow_private or is_public(each)][:_ADDRESSES]
        if not allowed:
            raise PrivateAddressError
        for address in allowed[:-1]:
            try:
                return await self._network.connect_tcp(address, port, _CONNECT, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._network.connect_tcp(allowed[-1], port, timeout, local_address, socket_options)

    @override
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
