"""A client that talks to nobody, and counts its calls in progress."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any, override

from penstock.testing.gauge import Gauge


class FakeFailure(Exception):
    """The error of a `FakeClient` that has to fail."""


class FakeClient:
    """Stands in for a service: `await client(request)` takes its time, then replies or fails as it is told.

        client = FakeClient(delay=0.05, fail_at=3)
        outcomes = await settle([partial(client, city) for city in cities], concurrency=4)
        assert client.peak == 4
        assert client.calls == cities

    Args:
        delay: seconds that a call takes, or a function from request to seconds.
        fail_at: the number of the call that fails, or several; calls count from 1, in the order in which they start.
        error: what that call raises, once it has taken its time: an exception, or a class of one; default a
            `FakeFailure` that names the call.
        reply: makes the reply from the request; default: the request is the reply.

    Attributes:
        calls: the requests of all calls, in the order in which they started.
        gauge: how the calls ended.
    """

    def __init__(
        self,
        *,
        delay: float | Callable[[Any], float] = 0.05,
        fail_at: int | Collection[int] | None = None,
        error: BaseException | type[BaseException] | None = None,
        reply: Callable[[Any], Any] | None = None,
    ) -> None:
        self.calls: list[Any] = []
        self.gauge: Gauge = Gauge()
        self._delay = delay
        self._failing = set(() if fail_at is None else fail_at if isinstance(fail_at, Collection) else (fail_at,))
        self._error = error
        self._reply = reply

    @override
    def __repr__(self) -> str:
        return f"<FakeClient {len(self.calls)} calls, {self.now} now, {self.peak} at most>"

    @property
    def now(self) -> int:
        """Calls in progress."""
        return self.gauge.now

    @property
    def peak(self) -> int:
        """The most calls in progress at once."""
        return self.gauge.peak

    async def __call__(self, request: Any) -> Any:
        """Take the time, then reply or fail."""
        self.calls.append(request)
        number = len(self.calls)
        with self.gauge:
            await asyncio.sleep(self._delay(request) if callable(self._delay) else self._delay)
            if number in self._failing:
                raise FakeFailure(f"call {number} fails") if self._error is None else self._error
            return request if self._reply is None else self._reply(request)
