# Every target sets up what it needs: a .venv of its own, made when it is missing and brought
# up to date when pyproject.toml or constraints.txt have changed.
#
#   make run ARGS="--engine ray -c \"num-server-rounds=5 uplink.codec='int8'\""
#   make test ARGS="-k rice"
#   make PYTHON=python3.12 PIP_FLAGS="--find-links ~/wheels" test

PYTHON ?= python3
PIP_FLAGS ?=
ARGS ?=

# Tests run in one process for each processor, all tests of a file in the same one;
# JOBS=0 runs them one after the other, in a process that a debugger can enter.
JOBS ?= logical
XDIST := -n $(JOBS) --maxprocesses=8 --dist=loadfile --no-loadscope-reorder

SHELL := bash
.SHELLFLAGS := -o pipefail -c
BIN := .venv/bin
READY := .venv/.ready

# Flower: send nothing home, and install nothing for an app whose environment is this one.
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1

.PHONY: run test lint format bench bench-peers chaos docs deploy-demo setup clean help
.DELETE_ON_ERROR:

run: $(READY)  ## Train on this machine and print the summary
	@$(BIN)/python run_simulation.py $(ARGS)

test: $(READY)  ## All tests, with coverage
	@$(BIN)/python -m pytest $(XDIST) --cov --cov-report=term $(ARGS)

lint: $(READY)  ## Format, lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(READY)  ## Put the code in order
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY)  ## All benchmarks; each prints its table (ARGS=--quick: a short form)
	@set -e; for module in codecs codec_memory reference_workload uplink exchange exchange_memory \
		aggregation async_time_to_accuracy scale round_latency local_training \
		memory_limit data_cache smaller_models profiles profiler_overhead hostile soak time_to_accuracy; do \
		echo "== benchmarks.$$module"; $(BIN)/python -m benchmarks.$$module $(ARGS); \
	done

bench-peers: $(READY)  ## Codecs beside other projects' releases, each in an environment under .bench
	@$(BIN)/python -m benchmarks.peers --pip-flags="$(PIP_FLAGS)" $(ARGS)

chaos: $(READY)  ## Faults of real deployments, and the books afterwards (ARGS=--quick: four)
	@$(BIN)/python -m benchmarks.chaos $(ARGS)

docs: $(READY)  ## The site of docs/, into site/; warnings are errors
	@$(BIN)/python -m pip install -q $(PIP_FLAGS) -r docs/requirements.txt
	@$(BIN)/python -m mkdocs build --strict --quiet
	@echo "site/index.html"

deploy-demo: $(READY)  ## SuperLink and SuperNodes on this machine: start, run, clean up
	@$(BIN)/python scripts/deploy_demo.py $(ARGS)

setup: $(READY)  ## Only the environment

help:  ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do \
		printf '%-12s %s\n' "$$name" "$$what"; done

clean:  ## Everything that can be made again, but no run records
	@rm -rf .venv site .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: PYTHON=$(PYTHON) is not Python 3.11 or later; try make PYTHON=python3.12" >&2; \
		exit 1; }
	@echo "setting up .venv: a few minutes the first time"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e ".[dev,text,plot,tensorboard]" | sed -un \
		-e 's/^Collecting \([^ ]*\) (from fl-opt.*/  \1/p' -e 's/^Installing collected.*/  installing/p'
	@touch $@
