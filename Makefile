PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
PIP := $(BIN)/pip -qq --disable-pip-version-check
# The logs have emoji, whatever the locale has.
export PYTHONUTF8 := 1

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: venv
venv: .venv/dev.stamp ## make .venv with everything that the other targets need (PYTHON=python3.12 chooses another Python)
	@:

.PHONY: demo
demo: .venv/demo.stamp ## show the bridge at work on servers of its own (ARGS=--exit ends it by itself)
	@$(BIN)/python -m bridge_service demo $(ARGS)

.PHONY: up
up: .venv/demo.stamp ## run the Procfile's processes against DATABASE_URL and REDIS_URL (from the environment or .env)
	@PATH="$(CURDIR)/$(BIN):$$PATH"; export PATH; \
	honcho run sh -c 'test -n "$${DATABASE_URL:-$$POSTGRES_CONNECTION_STRING}" && test -n "$$REDIS_URL"' || \
		{ echo "make up: set DATABASE_URL and REDIS_URL (see .env.example), or try: make demo" >&2; exit 1; }; \
	exec honcho start $(ARGS)

.PHONY: migrate
migrate: .venv/demo.stamp ## create or update the schema of the bridge in DATABASE_URL (from the environment or .env)
	@$(BIN)/honcho run $(BIN)/python -m bridge_service migrate $(ARGS)

.PHONY: test
test: .venv/dev.stamp ## run all tests except make browser, make chaos and make crashes (ARGS="-k journal" runs some)
	@$(BIN)/python -m pytest -n 6 --dist loadfile --no-loadscope-reorder tests/unit tests/simulation tests/integration tests/acceptance $(ARGS)

.PHONY: browser
browser: .venv/browser.stamp ## use the playground in a headless Chromium (PICTURES=docs/pictures takes the docs' pictures anew)
	@$(BIN)/python -m pytest -n 2 --dist loadfile tests/browser $(ARGS)

.PHONY: chaos
chaos: .venv/dev.stamp ## break everything under load, and check that no promise breaks (ARGS=--help)
	@$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: crashes
crashes: .venv/dev.stamp ## let processes die, hang and repeat themselves at every point between two steps
	@$(BIN)/python -m pytest tests/chaos $(ARGS)

.PHONY: load
load: .venv/dev.stamp ## write 100 messages a second for a minute and check every answer (ARGS="--workers 2" varies it)
	@$(BIN)/python -m tests.acceptance.load $(ARGS)

.PHONY: model-load
model-load: .venv/dev.stamp ## measure what people wait for while a model writes (ARGS="crowd lone" measures some of it)
	@$(BIN)/python -m tests.acceptance.model_load $(ARGS)

.PHONY: check
check: lint types imports ## lint, types and imports

.PHONY: lint
lint: .venv/dev.stamp ## look for mistakes and untidy code
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "make lint: run make format" >&2; exit 1; }

.PHONY: format
format: .venv/dev.stamp ## lay out the code as lint wants it
	@$(BIN)/ruff check --quiet --select I --fix .
	@$(BIN)/ruff format --quiet .

.PHONY: types
types: .venv/dev.stamp ## check the types
	@$(BIN)/mypy

.PHONY: imports
imports: .venv/dev.stamp ## check that imports point one way
	@$(BIN)/lint-imports

.PHONY: docs
docs: .venv/demo.stamp ## write the variables into CONFIGURATION.md, .env.example and compose.yaml, from the settings' fields
	@$(BIN)/python -m bridge_service.settings

.PHONY: lock
lock: .venv/dev.stamp ## write requirements.lock anew from requirements.txt
	@$(PIP) install pip-tools==7.6.2
	@{ grep '^#' requirements.lock; \
	   $(BIN)/pip-compile -q --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-trusted-host \
	     --no-emit-find-links --strip-extras --allow-unsafe -o - requirements.txt | grep -v '^#'; } > requirements.new
	@mv requirements.new requirements.lock

.PHONY: audit
audit: .venv/dev.stamp ## look the pinned packages up among the known vulnerabilities (asks the network)
	@$(PIP) install pip-audit==2.10.1
	@# Strict: a package that could not be looked up is a failure, and not "no known vulnerabilities".
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip -r requirements.lock

.PHONY: sbom
sbom: .venv/dev.stamp ## write sbom.json, the bill of materials of what the image installs (CycloneDX)
	@$(PIP) install cyclonedx-bom==7.5.0
	@PYTHONWARNINGS=ignore $(BIN)/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml \
		--output-reproducible -o sbom.json
	@echo "sbom.json: $$(grep -c '"bom-ref": "requirements-L' sbom.json) packages"

.PHONY: clean
clean: ## delete .venv and all caches
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than the requirements it was made from, or it is made again.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not: try make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/demo.stamp: requirements.txt requirements-demo.txt | .venv/bin/python
	@echo "Installing into .venv, once ..." >&2
	@$(PIP) install -r requirements-demo.txt
	@touch $@

.venv/browser.stamp: requirements-browser.txt .venv/dev.stamp
	@$(PIP) install -r requirements-browser.txt
	@touch $@

.venv/dev.stamp: requirements-dev.txt .venv/demo.stamp
	@$(PIP) install -r requirements-dev.txt
	@touch $@
