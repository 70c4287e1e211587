# The commands of a working copy. Every target makes the environment that it needs, once, in .venv.
# Needed beforehand: make, and Python 3.11 or later with its venv module.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
OTHER_PYTHONS := 3.12 3.13

# Tests wait more than they compute, so a processor has room for more than one of them. Those of one file
# share their daemons and stay together.
JOBS ?= 3
PYTEST = $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
# The tests start Culvert a thousand times and more: none of those is to compile it again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Environments, caches and two processor cores are shared by all targets: side by side they only disturb
# each other, so `make -j` runs them one after the other.
.NOTPARALLEL:
.PHONY: help demo test unit unit-in-venv check bench pictures clean

help:
	@echo "make demo    show a tunnel at work, both ends, in a few seconds"
	@echo "make test    run all tests (unit tests also on Python $(OTHER_PYTHONS), where installed)"
	@echo "make check   lint, formatting, types, import rules"
	@echo "make bench   measure against stunnel4 on this machine"
	@echo "make pictures  take the pictures of the status page in docs/ again, with Chromium"
	@echo "make clean   remove environments, caches and build products"
	@echo "Another interpreter: make PYTHON=python3.12 demo"

demo: $(INSTALLED)
	@$(BIN)/culvert demo

test: unit $(INSTALLED_DEV)
	@$(PYTEST)

check: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/python -m pytest --quiet tests/unit/test_imports.py

bench: $(INSTALLED)
	@$(BIN)/python -m bench

pictures: $(INSTALLED_DEV)
	@cd tests && ../$(BIN)/python -m integration.portrait ../docs

unit: $(OTHER_PYTHONS:%=unit-%)

# A python3.x on PATH may be a pyenv shim that runs nothing, so each candidate is tried, not looked up.
unit-%:
	@for python in python$* $$(ls -d "$$HOME"/.pyenv/versions/$*.*/bin/python 2>/dev/null | sort -rV); do \
	    "$$python" -c 'import ensurepip' 2>/dev/null || continue; \
	    exec $(MAKE) --no-print-directory PYTHON="$$python" VENV=.venv-$* unit-in-venv; \
	done; \
	echo "Unit tests on Python $*: skipped, there is no python$* with a venv module"

unit-in-venv: $(INSTALLED_DEV)
	@echo "Unit tests on $$($(BIN)/python --version)"
	@$(PYTEST) --quiet tests/unit

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "$(PYTHON) is not Python 3.11 or later; name one that is: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make a virtual environment: its venv module is missing" >&2; \
	    echo "(Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@echo "Installing culvert into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --quiet --editable .
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	@echo "Installing the development tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet --quiet --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv .venv-* build dist src/*.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
