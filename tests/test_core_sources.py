"""What a source of a stream may be, and what the refusal of another says."""

import pytest

import penstock
from penstock import OptionError


class Numbers:
    """An async iterable that only a function makes, so that nothing is known of it before the run."""

    def __aiter__(self):
        raise AssertionError("it is refused before it is asked")

    def __repr__(self):
        return "<Numbers>"


async def test_an_async_iterable_made_by_a_function_is_refused_by_name_in_a_thread():
    with pytest.raises(OptionError, match='engine="thread" is for a source that blocks, got the async iterable <Num'):
        await penstock.stream(Numbers, engine="thread").to_list()
