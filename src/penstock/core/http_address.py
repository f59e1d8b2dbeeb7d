"""The check of an option that is the address of a service."""

from typing import Final
from urllib.parse import urlsplit

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.text import one_line

_LONGEST: Final = 2_000
"""Characters of an address: it stands in messages."""

_QUOTED: Final = 200


def http_address(option: str, value: object) -> str:
    """Return `value` as an http or https address; one that may hold a password is refused and not shown."""
    rule = f"{option} must be an http or https address without user, query and fragment"
    address = validate.text(option, value)
    try:
        parts = urlsplit(address)
        plain = parts.username is None and not parts.query and not parts.fragment and address.isprintable()
        valid = plain and parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or True)
    except ValueError:
        parts, valid = None, False
    if any(sign in address for sign in "@?#"):
        raise OptionError(f"{rule}, got one with them{'' if parts is None else f' for {parts.hostname}'}")
    if not valid or len(address) > _LONGEST:
        raise OptionError(f"{rule}, got {one_line(address, _QUOTED)!r}")
    return address
