"""The engine of Dask, on a local cluster."""

import asyncio
import importlib.util
import logging
from importlib import import_module

import pytest

import penstock
from penstock.engines.cluster import dask_engine

from . import contract
from .work import same, wait_for_profiles

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="distributed is not installed"),
    pytest.mark.filterwarnings("default"),  # those of Dask
]


async def another_engine_uses_its_workers(engine):
    """`address=`: they go on when it is closed."""
    async with penstock.engines.dask(address=engine._cluster.scheduler_address) as other:
        assert other.slots() == 2
        assert await penstock.stream(range(40)).map(same, engine=other).count() == 40
    assert await penstock.stream(range(40)).map(same, engine=engine).count() == 40


async def test_the_promises_hold_on_dask(tmp_path, capfd):
    """P12; and Dask prints nothing."""
    async with penstock.engines.dask(2) as engine:
        await contract.keep(engine, tmp_path, another_engine_uses_its_workers)
    assert capfd.readouterr() == ("", "")


async def test_workers_may_connect_later_and_need_a_nanny(monkeypatch, caplog):
    """An error says which of both is missing; the scheduler has no errors to tell."""
    local = {"n_workers": 0, "processes": False, "protocol": "tcp", "dashboard_address": "127.0.0.1:0"}
    with import_module("distributed").LocalCluster(**local, scheduler_kwargs={"dashboard": False}) as cluster:
        engine = penstock.engines.dask(address=cluster.scheduler_address)
        monkeypatch.setattr(dask_engine, "CONNECTS", 0.0)
        with pytest.raises(penstock.OptionError, match=r"no worker has connected to 'tcp://.*' within 0 s"):
            await engine.__aenter__()
        monkeypatch.setattr(dask_engine, "CONNECTS", 60.0)
        entering = asyncio.create_task(engine.__aenter__())
        cluster.scale(1)
        with pytest.raises(penstock.OptionError, match=r"whose workers have nannies, .* where none has one"):
            await entering
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []
    wait_for_profiles()


def test_without_dask_an_error_says_what_to_install(monkeypatch):
    contract.is_missing_without_its_library(monkeypatch, "dask", "distributed")


def test_an_engine_that_was_not_entered_says_so():
    contract.says_that_it_is_to_be_entered("dask")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"workers": 0}, "workers must be an int >= 1, got 0"), ({"address": 3}, "address must be")],
)
def test_a_wrong_option_of_dask(options, message):
    with pytest.raises(penstock.OptionError, match=message):
        penstock.engines.dask(**options)
