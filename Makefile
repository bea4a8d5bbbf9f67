# `make demo` shows the whole thing on real data; `make test` tests it. Both set up .venv first.
PYTHON ?= python3
ARGS ?=
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')
OBSERVED := tests/integration/observability
BIN := .venv/bin

.PHONY: help setup demo stack test test-pipelines test-benchmarks lint types lock wheel clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

setup: .venv/installed  ## build .venv from the lock file

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	  || { echo "the lock file is for Python 3.11; set PYTHON=/path/to/python3.11 (found: $$($(PYTHON) --version 2>&1))"; exit 1; }
	@$(PYTHON) -m venv --clear .venv \
	  || { echo "cannot make a virtual environment: on Debian run 'apt install python3-venv' and try again"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check --disable-pip-version-check
	@touch $@

demo: setup  ## flights of 2013 through the real daemon; ARGS=--exit ends by itself
	$(BIN)/drift-monitor demo $(ARGS)

stack: setup  ## Prometheus, Alertmanager and a daemon on loopback, with a story to watch; ARGS=--exit ends by itself
	$(BIN)/python tests/integration/observability/stack.py $(ARGS)

test: setup  ## the whole test suite, in a process more than there are cores, since many tests wait; ARGS="-k name" picks
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --ignore $(OBSERVED) $(ARGS) || [ $$? = 5 ]
	$(BIN)/python -m pytest $(OBSERVED) $(ARGS) || [ $$? = 5 ]  # alone: it says when each alert fires

test-pipelines: setup  ## real Airflow 3, Prefect 3 and Dagster, each in an environment of its own outside this folder
	$(BIN)/python tests/pipelines/install.py
	$(BIN)/python -m pytest -n 0 tests/pipelines $(ARGS)

test-benchmarks: setup  ## the short run of every benchmark: do they still run, and say what they should?
	DRIFT_MONITOR_BENCHMARKS=1 $(BIN)/python -m pytest -n 0 tests/integration/test_benchmarks.py $(ARGS)

lint: setup  ## ruff, and mypy in strict mode
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

lock:  ## write requirements.lock, and the container's without the tools, anew (needs uv)
	uv pip compile pyproject.toml --extra demo --group dev --python-version 3.11 --no-header --generate-hashes --quiet -o requirements.lock
	uv pip compile pyproject.toml --python-version 3.11 --no-header --generate-hashes --quiet --constraints requirements.lock -o deploy/requirements.lock

wheel: setup  ## a wheel in dist/
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

clean:  ## remove what was built; the demo's folder stays
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
