# Two commands for a newcomer: `make demo` and `make test`. Both install what they need into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# pip otherwise byte-compiles 20,000 files at install; Python does so when it first imports them.
INSTALL := $(PIP) install --no-compile -c constraints.txt

.PHONY: demo test lint clean

demo: $(VENV)/.demo
	$(BIN)/autoprune search --budget 20MB

test: $(VENV)/.demo $(VENV)/.dev
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

$(VENV)/.package: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	touch $@

$(VENV)/.demo: $(VENV)/.package demo-requirements.txt
	$(PIP) install --no-deps --require-hashes -r demo-requirements.txt
	touch $@

$(VENV)/.dev: $(VENV)/.package
	$(INSTALL) -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) dist
