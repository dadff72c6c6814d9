# Everything runs in the project's own environment (.venv), made from pyproject.toml at first use.
PYTHON ?= python3
TIMES ?= 10
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest
# The oldest PostgreSQL that serves, and the tests that have one; who has no npm does without.
OLDEST_POSTGRES := 12.22.0-beta.15
OF_POSTGRES := tests/unit/store tests/contract/test_replicas.py $(addprefix tests/faults/test_,postgres.py doubt.py replicas.py reseal.py)
# nft lives in /usr/sbin, which an ordinary user's PATH lacks on Debian.
export PATH := $(PATH):/usr/sbin:/sbin
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help up test test-long test-full soak lint fmt golden bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

up: .venv/.installed ## set up what is needed, then run the demo: a throw-away world with real packets, no root needed
	@$(BIN)/ringfence demo

test: .venv/.installed-dev ## all tests with reduced counts, some 6 minutes on 2 cores
	$(PYTEST) --numprocesses 2 tests/unit tests/golden tests/property
	$(PYTEST) --numprocesses 2 tests/netns
	$(PYTEST) --numprocesses 2 tests/contract tests/faults

test-long: .venv/.installed-dev ## what is too long for make test, 1,000 seeds of the simulation, and the oldest PostgreSQL
	RINGFENCE_FULL=1 $(PYTEST) --numprocesses 2 tests/faults/test_simulation.py
	RINGFENCE_FULL=1 $(PYTEST) -m long --timeout 600 --numprocesses 2 tests/faults
	RINGFENCE_FULL=1 $(PYTEST) -m long --timeout 600 tests/netns
	@if folder=$$(scripts/postgresql $(OLDEST_POSTGRES)); then RINGFENCE_POSTGRES=$$folder $(PYTEST) --numprocesses 2 $(OF_POSTGRES); fi

test-full: test-long ## that, and the tests that have stated counts (marker "full") with those counts; half an hour
	RINGFENCE_FULL=1 $(PYTEST) -m full --timeout 1800 --numprocesses 2 tests/unit tests/property tests/contract tests/faults --ignore tests/faults/test_simulation.py
	RINGFENCE_FULL=1 $(PYTEST) -m full --timeout 1800 tests/netns

soak: .venv/.installed-dev ## the faults (kill -9, lost databases, the simulation) for hours: TIMES=10 times their stated counts
	RINGFENCE_FULL=1 RINGFENCE_TIMES=$(TIMES) $(PYTEST) -m "full or long" tests/faults

lint: .venv/.installed-dev ## ruff, formatting, mypy --strict, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: .venv/.installed-dev ## format, and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

golden: .venv/.installed-dev ## rewrite tests/golden from the present code: read the diff before you commit it
	RINGFENCE_GOLDEN=1 $(PYTEST) tests/golden

bench: .venv/.installed-bench ## measurements: ratios within one run, results as JSON
	-@scripts/system-packages bench
	$(PYTEST) tests/bench -s

clean: ## remove the environment and every cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist

.venv/.installed-bench: .venv/.installed-dev
	-@$(PIP) install --editable '.[bench]'
	@touch $@

.venv/bin/python:
	@scripts/system-packages up
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ringfence: needs Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0])'
	@echo "ringfence: making .venv (once)" >&2
	@$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml | .venv/bin/python
	@echo "ringfence: installing the run-time dependencies into .venv (once)" >&2
	@$(PIP) install --editable .
	@touch $@

.venv/.installed-dev: pyproject.toml packages.apt | .venv/bin/python
	@scripts/system-packages test
	@echo "ringfence: installing the development dependencies into .venv (once)" >&2
	@$(PIP) install --editable '.[dev]'
	@touch .venv/.installed $@
