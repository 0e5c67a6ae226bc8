# Everything happens in .venv, which the first command makes; `make run` and `make test` need nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := orion workers models benchmarks tests
STAMP := $(VENV)/.ready

.PHONY: run test check format setup package clean

run: $(STAMP)
	$(BIN)/python -m orion run

test: $(STAMP)-dev
	$(BIN)/python -m pytest

check: $(STAMP)-dev
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/vulture $(CODE) --min-confidence 80

format: $(STAMP)-dev
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

setup: $(STAMP)-dev

# The packages are installed once, and again when what is needed has changed.
$(STAMP): setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(STAMP)-dev: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(STAMP)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Orion needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "This Python cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# What an installed package does: a wheel in an environment of its own, run from an empty folder.
package: | $(BIN)/python
	rm -rf build dist $(VENV)-package
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	$(PYTHON) -m venv $(VENV)-package
	$(VENV)-package/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	folder=$$(mktemp -d) && cd $$folder && \
	  $(CURDIR)/$(VENV)-package/bin/python -m orion run --frames 30 --every-frame --instance-id package; \
	  code=$$?; rm -rf $$folder $(CURDIR)/$(VENV)-package $(CURDIR)/build; exit $$code

clean:
	rm -rf $(VENV) $(VENV)-package build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
