# Each target does all its own set-up, in .venv, from hash-pinned locks.

PYTHON ?= $(shell tools/find-python)
BIN := .venv/bin

.PHONY: serve test test-fast environments test-frameworks chaos soak lint fix wheel site release-check bench bench-compare lock docs clean

serve: .venv/.run
	@$(BIN)/farebox serve

# Farebox's processes are started by the hundred: where byte code is not kept (as many images set it), each would compile
# the code anew.
test test-fast test-frameworks chaos soak: export PYTHONDONTWRITEBYTECODE =

# aider runs on no Python newer than 3.12. Where there is none, its tests say so.
AIDER_PYTHON := $(shell tools/find-python 3.12 2>/dev/null)
AIDER := $(if $(AIDER_PYTHON),.venv-aider/.done)
.venv-aider/.done: private PYTHON = $(AIDER_PYTHON)

# Frameworks that people build on, and coding agents: apart, because they bring some hundred packages along.
ENVIRONMENTS := $(patsubst %,.venv-%/.done,frameworks browser apify1 apify2 llm litellm llamacpp ledgers) $(AIDER)
environments: $(ENVIRONMENTS)

# First what starts no process and listens nowhere, with how much of the code it runs: no less than when this was written.
# With FRAMEWORKS=1 then test-frameworks' tests, too, among the others: they are the longest, so they begin.
test: .venv/.dev $(if $(FRAMEWORKS),$(ENVIRONMENTS))
	$(BIN)/python -m pytest -n auto --dist worksteal tests/fast --cov=farebox --cov-report= --cov-fail-under=52
	$(BIN)/python -m pytest -n $(TESTS_AT_ONCE) --dist worksteal $(if $(FRAMEWORKS),tests/frameworks) tests/served

test-fast: .venv/.dev
	$(BIN)/python -m pytest -n auto --dist worksteal tests/fast

# Most of a test's time is waiting, for servers and for deadlines: more at once than there are processors.
TESTS_AT_ONCE ?= $(shell expr 3 \* $$(nproc 2>/dev/null || echo 2))

test-frameworks: .venv/.dev $(ENVIRONMENTS)
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/frameworks

# Hang-ups, faults, 200 kills and 140 deaths at each step over 20,000 orders; takes some ten minutes.
chaos: .venv/.dev
	$(BIN)/python -m tools.chaos

# A steady load for half an hour, and how memory and open files lean.
soak: .venv/.dev
	$(BIN)/python -m tools.soak

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.reference --check

# What of that can be mended by itself.
fix: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What `pip`, `pipx` and `uvx` install: one file, in dist/.
wheel: .venv/.run
	@$(BIN)/python -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w dist .
	@ls dist/farebox-*.whl

# The docs as a site, in .site/html, built strictly. With pictures of the console where Debian's Chromium is there;
# `make site PICTURES=` without, in a few seconds.
PICTURES ?= yes
site: .venv/.run .venv-site/.done $(if $(PICTURES),.venv-browser/.done)
	$(BIN)/python -m tools.site $(if $(PICTURES),--pictures)

# What must be so before a release: see RELEASING.md.
release-check: .venv/.dev
	$(BIN)/python -m tools.release

# With PEERS=1 also LiteLLM and Portkey, which are installed into .bench (some 800 MB).
bench: .venv/.dev
	$(BIN)/python -m bench $(if $(PEERS),--peers)

# This tree beside a revision of it, in alternating slices.
REV ?= main
bench-compare: .venv/.dev
	$(BIN)/python -m bench --compare $(REV)

# The reference pages that are made from the code.
docs: .venv/.dev
	$(BIN)/python -m tools.reference

# After a change to the dependencies in pyproject.toml; needs `uv`.
lock:
	uv pip compile -q pyproject.toml --extra import --extra mcp --extra postgres --extra otel --extra guards --group build -o requirements/run.txt $(LOCK)
	uv pip compile -q pyproject.toml --extra import --extra mcp --extra postgres --extra otel --extra guards --group dev -o requirements/dev.txt $(LOCK)
	for group in frameworks browser site apify1 apify2 aider llm litellm llamacpp ledgers; do \
		uv pip compile -q --group pyproject.toml:$$group -o requirements/$$group.txt $(LOCK); \
	done
LOCK := --generate-hashes --no-emit-index-url --no-header --no-annotate --universal --python-version 3.11 --upgrade

clean:
	rm -rf .venv .venv-* .bench .site tests/frameworks/*/node_modules tests/node/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*

.venv/bin/python:
	@tools/make-venv "$(PYTHON)"

.venv/.run: .venv/bin/python requirements/run.txt pyproject.toml
	@echo "Installing Farebox into .venv ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/run.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev: .venv/.run requirements/dev.txt
	@echo "Installing what the tests need into .venv ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

# Filled by the pip of .venv: one of its own would take as long as what is installed.
.venv-%/.done: .venv/bin/python requirements/%.txt
	@echo "Installing $* into .venv-$* ..."
	@"$(PYTHON)" -m venv --without-pip .venv-$*
	@$(BIN)/python -m pip --python .venv-$*/bin/python install -q --disable-pip-version-check --require-hashes --no-compile -r requirements/$*.txt
	@touch $@
