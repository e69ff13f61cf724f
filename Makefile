# `make run` and `make test` are all a fresh machine needs; see `make help`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup run test test-lab test-slow test-gpu fault-table space-table reference chaos ends fuzz check fmt clean
SECONDS_EACH ?= 60
SEED ?= 1
ROUNDS ?= 200
.DEFAULT_GOAL := help

help: ## Show this help
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv with TianJi and its development tools

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "TianJi needs Python 3.11 or newer; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: setup ## Train CartPole asynchronously on this machine and draw the report
	$(BIN)/tianji up
	$(BIN)/tianji report

# Tests start hundreds of processes; without compiled modules each would compile TianJi anew.
test test-lab test-slow: export PYTHONDONTWRITEBYTECODE :=
test: setup ## Run the tests, on all cores: logic, processes, documentation
	$(BIN)/python -m pytest -n auto --dist worksteal

test-lab: setup ## Run the tests on real sshd hosts (Linux, root)
	$(BIN)/python -m pytest -n 3 --dist loadfile -m 'lab and not slow'

test-slow: setup ## Run the slow tests: real compilers, resumed and stuck runs, soak tests, bad networks
	$(BIN)/python -m pytest -m slow

test-gpu: setup ## Prove and measure on one GPU, in eight minutes at most; says so without one
	$(BIN)/python -m tests.gpu

fault-table: setup ## Run all fault tests (root) and write the table in docs/reliability.md
	$(BIN)/python -m pytest -m 'not matrix' --fault-rows tests/faults/observed.jsonl \
	  tests/faults tests/processes tests/lab tests/cli/test_errors.py
	$(BIN)/python tests/faults/table.py

space-table: setup ## Train every kind of space with every algorithm; write docs/spaces.md
	SPACE_TABLE=1 $(BIN)/python -m pytest -m '' tests/engine/test_space_matrix.py

reference: setup ## Write docs/reference.md, every key of every file, from the specs
	$(BIN)/python -m tianji_cli.reference docs/reference.md

chaos: setup ## Inject faults in random order (SEED) for ten minutes on real hosts (root)
	$(BIN)/python tests/faults/random_faults.py --seed $(SEED) --out results/chaos-$(SEED)

ends: setup ## Start ROUNDS (200) runs on this machine and end them at random (SEED)
	$(BIN)/python tests/faults/random_ends.py --seed $(SEED) --rounds $(ROUNDS) --out results/ends-$(SEED)

fuzz: setup ## Fuzz frames, sealed messages, YAML, traces, rings and memory, SECONDS_EACH (60) each
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fuzz]'
	for target in frames sealed yaml traces deployments names rings memory; do \
	  $(BIN)/python tests/fuzz/fuzz.py $$target -max_total_time=$(SECONDS_EACH) -max_len=160 || exit 1; \
	done

check: setup ## Lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fmt: setup ## Format the code
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean: ## Remove the virtual environment and caches (results are kept)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
