# Two commands for a newcomer: `make demo` and `make test`. Both install what they need into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# pip compiles to bytecode one file after another; COMPILE does it on all cores, once, for all workers.
INSTALL := $(PIP) install --no-compile -c constraints.txt
COMPILE := $(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true

.PHONY: demo test test-fast examples lint audit docs clean

demo: $(VENV)/.demo
	$(BIN)/autoprune search --budget 20MB

# Two processes share the tests, whole files at a time, the longest first.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The packages that do without torch, and neither Ray nor a browser: a minute.
FAST := core space tasks workers strategy run report
test-fast: $(VENV)/.dev
	$(PYTEST) --fast -m "not (ray or browser or slow or demo or gpu)" $(FAST:%=autoprune/%) tests

# Every example at small size, those of several minutes too.
examples: $(VENV)/.demo $(VENV)/.dev
	AUTOPRUNE_ALL_EXAMPLES=1 $(PYTEST) --dist load tests/examples

test: $(VENV)/.demo $(VENV)/.dev
	$(PYTEST)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/bandit -q -c pyproject.toml -r autoprune

# The documentation as a site, in dist/site; its reference pages are made from the code first.
docs: $(VENV)/.dev
	$(BIN)/python -m docs.generators
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Known holes of the versions in constraints.txt, from a database on the network: where pip-audit is not
# installed, or that cannot be reached, this says so and goes on.
AUDIT := $(or $(wildcard $(BIN)/pip-audit),$(shell command -v pip-audit))
audit:
ifeq ($(AUDIT),)
	@echo "audit: skipped, since pip-audit is not installed"
else
	@$(AUDIT) --no-deps --disable-pip -r constraints.txt >.audit 2>&1; code=$$?; cat .audit; \
	if [ $$code -ne 0 ] && grep -qiE "connection|resol|timed? ?out|proxy|unreachable" .audit; then \
	  echo "audit: skipped, since its database cannot be reached from here"; code=0; fi; \
	rm -f .audit; exit $$code
endif

$(VENV)/.package: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	$(COMPILE)
	touch $@

$(VENV)/.demo: $(VENV)/.package demo-requirements.txt
	$(PIP) install --no-deps --require-hashes -r demo-requirements.txt
	touch $@

$(VENV)/.dev: $(VENV)/.package
	$(INSTALL) -e '.[dev]'
	$(COMPILE)
	touch $@

clean:
	rm -rf $(VENV) dist
