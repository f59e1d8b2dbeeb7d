"""Every message of a refused option names the option, also where the value is only seen in a run."""

import pytest

import penstock
from penstock import OptionError, Retry


async def work(item):
    raise ConnectionError(item)


async def test_what_wait_returns_is_refused_by_the_name_of_wait():
    retry = Retry(on=ConnectionError, wait=lambda error: -1)
    with pytest.raises(OptionError, match=r"^wait\(exception\) must be a finite number of seconds >= 0"):
        await penstock.stream([1]).map(work, retry=retry).to_list()


@pytest.mark.parametrize("value", [True, False])
def test_a_bool_is_no_number_of_seconds(value):
    with pytest.raises(OptionError, match=f"^max must be a finite number .*, got {value}"):
        Retry(on=ConnectionError, max=value)


def test_an_option_of_retry_is_refused_by_its_name():
    for option, value in (("deadline", -1), ("initial", -1), ("max", -1), ("factor", 0), ("jitter", 2), ("wait", 3)):
        with pytest.raises(OptionError, match=f"^{option} must be"):
            Retry(on=ConnectionError, **{option: value})
