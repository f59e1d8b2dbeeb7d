"""`CancelToken`: signalled once, seen by everybody who asks or waits."""

import asyncio
import threading

import pytest

from penstock import OptionError
from penstock.tasks import CancelToken


def test_a_fresh_token_is_not_signalled():
    token = CancelToken()
    assert (token.cancelled, token.reason) == (False, None)
    token.raise_if_cancelled()


def test_it_is_signalled_once():
    token = CancelToken()
    calls = []
    token.on_cancel(lambda: calls.append(1))
    token.cancel("deadline")
    token.cancel("caller cancelled")
    assert (token.cancelled, token.reason, calls) == (True, "deadline", [1])
    with pytest.raises(asyncio.CancelledError, match="deadline"):
        token.raise_if_cancelled()


def test_callbacks_come_in_order_and_can_be_called_off():
    token = CancelToken()
    calls = []
    token.on_cancel(lambda: calls.append("a"))
    forget = token.on_cancel(lambda: calls.append("b"))
    token.on_cancel(lambda: calls.append("c"))
    forget()
    forget()
    token.cancel()
    assert calls == ["a", "c"]


def test_a_callback_on_a_signalled_token_is_called_at_once():
    token = CancelToken()
    token.cancel()
    calls = []
    token.on_cancel(lambda: calls.append(1))()
    assert calls == [1]


def test_a_callback_is_a_plain_function():
    with pytest.raises(OptionError, match="callback must be callable"):
        CancelToken().on_cancel(None)
    with pytest.raises(OptionError, match="callback must be a plain function"):
        CancelToken().on_cancel(asyncio.sleep)


@pytest.mark.grid
async def test_waiting_ends_with_the_signal(clock):
    token = CancelToken()
    asyncio.get_running_loop().call_later(3, token.cancel)
    await asyncio.gather(token.wait(), token.wait())
    await token.wait()
    assert clock.now == 3
    assert not token._callbacks


@pytest.mark.grid
async def test_a_cancelled_wait_leaves_nothing_on_the_token():
    token = CancelToken()
    waiting = asyncio.create_task(token.wait())
    await asyncio.sleep(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not token._callbacks
    token.cancel()


@pytest.mark.grid
async def test_a_signal_from_a_thread_wakes_the_loop():
    token = CancelToken()
    thread = threading.Thread(target=token.cancel)
    thread.start()
    await token.wait()
    thread.join()
    assert token.cancelled


def test_no_callback_is_lost_between_threads():
    for _ in range(200):
        token, called, ready = CancelToken(), [], threading.Barrier(3)

        def register(token=token, called=called, ready=ready):
            ready.wait()
            token.on_cancel(lambda: called.append(1))

        def signal(token=token, ready=ready):
            ready.wait()
            token.cancel()

        threads = [threading.Thread(target=each) for each in (register, register, signal)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert called == [1, 1]
