"""The basics: items, a slow call for each, results as they come, and what has failed.

    python examples/01_basic.py
    python examples/01_basic.py 10.0.0.1 10.0.0.999 10.0.0.3

Each address is looked up. Three look-ups run at once; results come in the order of the addresses. One that is no
address does not stop the others: it is named at the end. Ends with 0 if all went well, else with 1.
"""

import argparse
import asyncio
import ipaddress

import penstock

ADDRESSES = ["192.0.2.1", "192.0.2.2", "192.0.2.300", "198.51.100.7", "2001:db8::1"]


async def look_up(address: str) -> str:
    """Say which network it belongs to; stands for a call that takes its time."""
    number = ipaddress.ip_address(address)
    await asyncio.sleep(0.01)
    bits = 24 if isinstance(number, ipaddress.IPv4Address) else 64
    network = ipaddress.ip_network((number, bits), strict=False)
    return f"{number} is in {network}"


async def main(addresses: list[str]) -> int:
    """Look all of them up."""
    looked_up = penstock.stream(addresses).map(look_up, concurrency=3, timeout=5, on_error="collect")
    async with looked_up.open() as lines:
        async for line in lines:
            print(line)
        for failure in lines.failures:
            print(f"failed: {failure.error}")
        return 1 if lines.failures else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("addresses", nargs="*", metavar="ADDRESS", default=ADDRESSES)
    raise SystemExit(asyncio.run(main(parser.parse_args().addresses)))
