# Every target makes the environment that it needs; a second run does not reinstall.
.DEFAULT_GOAL := help
BIN := .venv/bin
DEPENDS := uv.lock tools/environment

.venv/.ready: $(DEPENDS)
	@tools/environment .venv

.venv-3.12/.ready: $(DEPENDS)
	@tools/environment .venv-3.12 3.12

.PHONY: demo test quick test-3.12 soak soak-engines ray-nodes kill-matrix kill-postgres kill-runs flood test-dev coverage mutate check format docs site site-look bench lock clean help

demo: .venv/.ready ## index the standard library of this Python and ask it three questions
	@$(BIN)/python tools/demo.py

test quick test-3.12: export PYTHONDONTWRITEBYTECODE =  # the programs that tests start need not compile everything

test: .venv/.ready ## run the tests
	@$(BIN)/python -m pytest -q -n 2 $(OPTIONS)

quick: .venv/.ready ## run what is quick, at one place of the grid, for daily work
	@$(BIN)/python -m pytest -q -n 2 --quick

test-3.12: .venv-3.12/.ready ## run on Python 3.12 what may differ there: what is quick or runs in real time, on both loops, with default and eager tasks
	@.venv-3.12/bin/python -m pytest -q -n 2 --places=asyncio-default,uvloop-eager -m "not slow or quick or real_time" $(OPTIONS)

soak: .venv/.ready ## run random schedules for 20 minutes, or MINUTES=1
	@$(BIN)/python tools/soak.py $(or $(MINUTES),20)

soak-engines: .venv/.ready ## send 100,000 calls, or ITEMS=10000, to processes that are killed at random: is a result lost, or there twice?
	@$(BIN)/python tools/soak_engines.py $(or $(ITEMS),100000) $(SEED)

ray-nodes: .venv/.ready ## run 1,000 calls on a Ray cluster of three nodes on this machine, and kill one: is a result lost, or there twice?
	@$(BIN)/python tools/ray_nodes.py $(or $(ITEMS),1000)

kill-matrix: .venv/.ready ## kill durable runs 10,000 times, or KILLS=500: is a row lost, or there twice?
	@$(BIN)/python tools/kill_matrix.py $(or $(KILLS),10000) $(SEED)

kill-postgres: .venv/.ready ## kill runs into a PostgreSQL server, and the server, 1,000 times, or KILLS=100: is a row lost, or there twice?
	@$(BIN)/python -m tests.durable.postgres_killing $(or $(KILLS),1000) $(or $(SEED),0)

kill-runs: .venv/.ready ## kill a run of a pipeline before and after each single write, and at 500 moments: is a finished step called again?
	@$(BIN)/python tests/flow/killed_runs.py
	@$(BIN)/python tests/flow/killed_runs.py $(or $(KILLS),500) $(SEED)

flood: .venv/.ready ## run 10 GB that are generated as they are read through a durable run, or GIGABYTES=1: its peak memory in MB
	@$(BIN)/python -m tests.durable.flood big $$(( $(or $(GIGABYTES),10) * 1000 ))

test-dev: .venv/.ready ## run the tests in development mode: asyncio's debug mode, and every warning is an error
	@tools/develop

coverage: .venv/.ready ## measure which lines and branches of core/ and ops/ the tests run; all of them, or it fails
	@tools/coverage

mutate: ## break core/ in one place at a time for 30 minutes, or MINUTES=5: does a test notice? goes on where it stopped
	@tools/mutate --minutes $(or $(MINUTES),30) $(if $(ONLY),--only $(ONLY))

check: .venv/.ready ## format, lint and types, as CI does
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/ruff check --quiet
	@$(BIN)/mypy
	@$(BIN)/pyright
	@$(BIN)/python tools/typed.py

format: .venv/.ready ## format the code and mend what lint can mend
	@$(BIN)/ruff check --fix --quiet || true
	@$(BIN)/ruff format --quiet

docs: .venv/.ready ## renew what docs/guarantees.md says of the tests
	@$(BIN)/python tools/guarantees.py

site: ## build the pages of documents into build/site, warnings as errors (makes an environment of its own)
	@tools/site

site-look: site ## look at them in Chromium, if it is there: at 400 pixels, dark and light; pictures in build/site-look
	@.venv-site/bin/python -m pytest -q --noconftest tests/site

bench: ## measure speed and memory beside the peers (makes an environment of its own, takes nine minutes)
	@tools/bench all

lock: .venv/.ready ## renew uv.lock from pyproject.toml
	@$(BIN)/uv lock

clean: ## remove everything that a target has made
	@rm -rf .venv .venv-* dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* .mutate demo-index.db* benchmarks/node/node_modules
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@sed -n 's/^\([a-z0-9.-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'
