# Every command of this project. `make` alone lists them.
#
#   PYTHON=python3.12                  what environments are made of: 3.11 or newer
#   TRAINMASTER_ACCELERATOR=cpu|cuda   the torch that jobs get; otherwise cuda where a GPU is seen
#   ARGS="..."                         passed on to the command

PYTHON ?= python3
ARGS ?=
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

# An environment names its own path: in a folder that was moved or copied, it is made again.
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
$(READY): made-elsewhere
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check fix bench serve openapi migration lock job-environment made-elsewhere

help:  ## List the commands
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1|/p' Makefile | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: job-environment  ## Set up if needed, serve, train a real job to the end, fetch its checkpoint
	@$(RUN) -m api demo $(ARGS)

test: job-environment  ## Set up if needed, then run the tests
	$(RUN) -m pytest -q $(ARGS)

check: job-environment  ## Format, lint, types, import contracts, rules, docs, locks
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports
	$(RUN) -m pytest -q tests/architecture tests/docs

fix: $(READY)  ## Format, and mend what the linter can
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

bench: job-environment  ## Measure, side by side with the named baselines
	$(RUN) -m tests.bench $(ARGS)

serve: job-environment  ## Serve on this machine: API, scheduler, and a node
	@$(RUN) -m api all $(ARGS)

openapi: $(READY)  ## Write docs/openapi.json
	$(RUN) -m api openapi > docs/openapi.json.new
	mv docs/openapi.json.new docs/openapi.json

migration: $(READY)  ## Draft the next migration from the models: ARGS="create jobs"
	$(RUN) -m api revision $(ARGS)

lock: $(READY)  ## Resolve the service's dependencies again, newest versions with ARGS=--upgrade
	$(VENV)/bin/uv lock --no-config --default-index https://pypi.org/simple $(ARGS)
	$(VENV)/bin/uv export --no-config --frozen --quiet --no-header --no-annotate --no-emit-local \
	  --output-file requirements.lock > /dev/null

job-environment: $(READY)
	@$(RUN) -m workers.node.job_environment

# uv where it is present, else venv and pip: the same packages, by the same hashes.
$(READY): requirements.lock sdk/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $(PYTHON) is missing or older than 3.11: name another, as in make PYTHON=python3.12"; exit 1; }
	@echo "service environment: making $(CURDIR)/$(VENV), once"
	@[ "$$(cat $@ 2>/dev/null)" = "$(CURDIR)" ] || rm -rf $(VENV)
	@rm -f $@
	@if command -v uv >/dev/null; then \
	  UV_PROJECT_ENVIRONMENT=$(VENV) uv sync --frozen --quiet --compile-bytecode --python $(PYTHON); \
	else \
	  { $(PYTHON) -m venv --clear $(VENV) || { echo "make: on Debian and Ubuntu: apt install python3-venv"; exit 1; }; } \
	  && $(RUN) -I -m pip install --quiet --no-input --disable-pip-version-check --require-hashes -r requirements.lock \
	  && $(RUN) -I -m pip install --quiet --no-input --disable-pip-version-check --no-deps --no-build-isolation -e ./sdk; \
	fi
	@echo "$(CURDIR)" > $@
