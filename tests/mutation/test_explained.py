"""A mutant that no test can kill says why; `make mutate` checks that there is such a mutant, and that none kills it."""

import tomllib
from pathlib import Path

EXPLAINED = Path(__file__).with_name("explained.toml")


def groups():
    return tomllib.loads(EXPLAINED.read_text()).get("explained", [])


def test_every_explanation_says_why():
    assert all(group["why"].strip() and group["mutants"] for group in groups())


def test_no_mutant_is_explained_twice():
    mutants = [key for group in groups() for key in group["mutants"]]
    assert len(mutants) == len(set(mutants))
