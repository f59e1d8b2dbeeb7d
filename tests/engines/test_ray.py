"""The engine of Ray, on a local cluster."""

import asyncio
import importlib.util
import inspect
import signal
import sys
from contextlib import asynccontextmanager

import pytest

import penstock

from . import test_promises as promises
from .conftest import Gates
from .work import knows_penstock

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
    pytest.mark.filterwarnings("default"),  # those of Ray
]

SCENARIOS = (
    promises.test_the_bound_holds_behind_a_slow_head,
    promises.test_a_slow_call_holds_up_no_other,
    promises.test_every_item_has_one_outcome,
    promises.test_any_value_is_a_value,
    promises.test_a_late_call_fails_alone,
    promises.test_every_operator,
    promises.test_finite_work,
    promises.test_a_call_that_kills_its_worker_is_named,
    promises.test_a_cancellation_is_no_failure,
)


async def test_the_promises_hold_on_ray(tmp_path):
    """P12: one cluster for all, since it takes seconds to start."""
    before = signal.getsignal(signal.SIGTERM)
    async with penstock.engines.ray(2, address="local") as engine:
        assert signal.getsignal(signal.SIGTERM) is before

        @asynccontextmanager
        async def kept():
            yield engine

        assert await penstock.stream([0]).map(knows_penstock, engine=engine).to_list() == [False]
        words = penstock.stream(["__MAIN__"]).map(str.lower, engine=engine)
        assert await words.to_list() == ["__main__"]  # what is of this name goes by value, and so may what says it
        for number, scenario in enumerate(SCENARIOS):
            folder = tmp_path / str(number)
            folder.mkdir()
            given = {"make": kept, "gates": Gates(folder)}
            await scenario(**{name: given[name] for name in inspect.signature(scenario).parameters})


async def test_without_ray_an_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"penstock\.engines\.ray needs ray: pip install 'penstock\[ray\]'"):
        penstock.engines.ray()


def test_an_engine_that_was_not_entered_says_so():
    engine = penstock.engines.ray()
    with pytest.raises(penstock.MisuseError, match=r"ray\(\) is to be entered first: `async with engine:` connects"):
        asyncio.run(penstock.stream([1]).map(knows_penstock, engine=engine).to_list())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers must be an int >= 1, got 0"),
        ({"num_cpus": -1}, "num_cpus must be a finite number >= 0, got -1"),
        ({"num_gpus": "one"}, "num_gpus must be"),
        ({"resources": ["disk"]}, "resources must be a mapping"),
        ({"runtime_env": 3}, "runtime_env must be a mapping"),
        ({"address": 3}, "address must be"),
    ],
)
def test_a_wrong_option_of_ray(options, message):
    with pytest.raises(penstock.OptionError, match=message):
        penstock.engines.ray(**options)
