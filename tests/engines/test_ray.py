"""The engine of Ray, on a local cluster."""

import importlib.util
import logging
import signal

import pytest

import penstock
from penstock.engines.cluster import cluster_engine

from . import contract

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
    pytest.mark.filterwarnings("default"),  # those of Ray
]


async def test_the_promises_hold_on_ray(tmp_path, monkeypatch, caplog):
    """P12; and Ray leaves the handler of SIGTERM alone. Calls that wait for a first worker do not do so in silence."""
    monkeypatch.setattr(cluster_engine, "SLOW_START", 0.01)
    before = signal.getsignal(signal.SIGTERM)
    async with penstock.engines.ray(2, address="local") as engine:
        assert signal.getsignal(signal.SIGTERM) is before
        with caplog.at_level(logging.WARNING, "penstock"):
            await contract.keep(engine, tmp_path)
    assert "no worker of ray(2) is ready after 0.01 s: the cluster has no room, or prepares it" in caplog.messages


def test_without_ray_an_error_says_what_to_install(monkeypatch):
    contract.is_missing_without_its_library(monkeypatch, "ray", "ray")


def test_an_engine_that_was_not_entered_says_so():
    contract.says_that_it_is_to_be_entered("ray")


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
