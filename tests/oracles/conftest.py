"""What the tests share."""

import pytest


@pytest.fixture
def read_until_error():
    """Read a stream; gives the items, and the error that ended them, or None."""

    async def read(stream):
        seen = []
        try:
            async with stream.open() as items:
                async for item in items:
                    seen.append(item)  # noqa: PERF401 -- a comprehension would lose them at the error
        except BaseException as error:  # noqa: BLE001 -- it is what the test looks at
            return seen, error
        return seen, None

    return read
