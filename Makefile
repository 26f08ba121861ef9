# kama's everyday commands. `make` alone lists them.
#
# The first one that needs it makes .venv and installs kama into it; after that
# pip runs again only when pyproject.toml is newer than the stamp it left there.

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check
SERVICES := kafka redis postgres
CACHES := .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage build dist

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve install install-dev test drills check style lint types imports collect format clean distclean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  ARGS='…' goes to the command:  make serve ARGS='--port 9000'   make test ARGS='-k history'"
	@echo "  PYTHON=… picks the Python that .venv is made with (3.11 or newer; now: $(PYTHON))"

serve: install ## Run a node
	@exec $(BIN)/kama serve $(ARGS)

install: .venv/.stamp-serve

install-dev: .venv/.stamp-dev

test: install-dev ## Run all tests against the real services that can be had here
	@exec $(BIN)/python scripts/services run $(SERVICES) -- $(BIN)/python scripts/test $(ARGS)

drills: install-dev ## Break nodes, brokers, Redis and PostgreSQL under load, one after the other, and fuzz (a quarter of an hour)
	@exec $(BIN)/python scripts/services run $(SERVICES) -- $(BIN)/pytest -m drill $(ARGS)

check: style lint types imports collect ## Check format, lint, types, import rules, and that the tests load

style: install-dev
	$(BIN)/ruff format --check --quiet .

lint: install-dev
	$(BIN)/ruff check --quiet .

types: install-dev
	$(BIN)/mypy
	$(BIN)/mypy --scripts-are-modules scripts/services scripts/test scripts/pictures

imports: install-dev
	$(BIN)/lint-imports --no-logo

collect: install-dev
	$(BIN)/pytest --collect-only -qq

format: install-dev ## Format the code and repair what the linter can
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format --quiet .

clean: ## End the services, remove caches and build output
	@if command -v $(PYTHON) >/dev/null; then $(PYTHON) scripts/services down; fi
	rm -rf $(CACHES)
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## Remove .venv as well
	rm -rf .venv .services

# What follows makes .venv. Each way it can fail on a fresh machine ends in one line that says what to do.

.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "kama: error: no $(PYTHON) on the PATH: install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "kama: error: kama needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1): name another: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "kama: error: $(PYTHON) cannot make a virtual environment: install its venv module (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@echo "making .venv with $$($(PYTHON) -V 2>&1)" >&2
	@$(PYTHON) -m venv --clear .venv

# The compiled extras make the node faster but nothing depends on them: where they cannot be had, do without.
.venv/.stamp-serve: pyproject.toml | .venv/bin/python
	@if [ .venv/.stamp-dev -nt pyproject.toml ]; then :; else \
	  echo "installing kama into .venv" >&2; \
	  $(PIP_INSTALL) --editable '.[fast]' || \
	  { echo "the 'fast' extra could not be installed: trying without it" >&2; $(PIP_INSTALL) --editable .; }; \
	fi
	@touch $@

.venv/.stamp-dev: pyproject.toml | .venv/bin/python
	@echo "installing kama and what its tests need into .venv" >&2
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch $@
