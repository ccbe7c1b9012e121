# Two commands on a fresh machine with Python 3.11 to 3.13: `make demo` and `make test`. Each makes .venv when it is missing.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
WORKERS := -n $(JOBS) --dist worksteal# each keeps to its own files, whose data are then made once
THREADS := OMP_NUM_THREADS=1# of each of the JOBS workers: more would fight for the same cores
# Tests write gigabytes of checkpoints that live for a moment: in memory, where 4 GB of it are free for files.
PLACE := $(shell test "$$(df --output=avail /dev/shm 2>/dev/null | tail -1)" -gt 4000000 2>/dev/null && echo PYTEST_DEBUG_TEMPROOT=/dev/shm)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-lowest test-newest test-wheel lint check coverage bench gpu clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

demo: .venv/installed  ## the whole path on generated data; ends with demo/report.html
	$(BIN)/harl-bench demo --out demo

test: .venv/installed  ## every test that needs no GPU and no Detectron2
	$(THREADS) $(PLACE) $(BIN)/python -m pytest $(WORKERS)

test-all: .venv/installed  ## the same with every round of tests/faults: 30 kills a command, thousands of damaged files
	$(THREADS) HARL_BENCH_FAULTS=full $(BIN)/python -m pytest $(WORKERS)

test-lowest: .venv/installed  ## fast tests with the oldest packages that pyproject.toml allows
	$(PYTHON) -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install -q uv
	.venv-lowest/bin/uv pip install -q --python .venv-lowest/bin/python --resolution lowest-direct -e ".[dev]"
	$(THREADS) $(PLACE) .venv-lowest/bin/python -m pytest $(WORKERS) -m "not slow" -q

test-newest: .venv/installed  ## fast tests with the newest packages that pyproject.toml allows
	$(PYTHON) -m venv --clear .venv-newest
	.venv-newest/bin/python -m pip install -q -e ".[dev]"
	$(THREADS) $(PLACE) .venv-newest/bin/python -m pytest $(WORKERS) -m "not slow" -q

test-wheel: .venv/installed  ## the wheel in a clean environment, in another folder: its demo
	rm -rf .venv-wheel && mkdir .venv-wheel && $(PYTHON) -m venv .venv-wheel/env
	$(BIN)/python -m build --wheel --outdir .venv-wheel .
	.venv-wheel/env/bin/python -m pip install -q -c constraints.txt .venv-wheel/*.whl
	cd .venv-wheel && env/bin/harl-bench demo --out demo

lint: .venv/installed  ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint  ## lint, and the fast tests
	$(THREADS) $(PLACE) $(BIN)/python -m pytest $(WORKERS) -m "not slow" -q

coverage: .venv/installed  ## lines that the fast tests run, file by file; a quarter slower than they are alone
	$(THREADS) $(PLACE) $(BIN)/python -m pytest $(WORKERS) -m "not slow" -q --cov=harl_bench --cov=pretrain --cov-report=term:skip-covered

bench: .venv/installed  ## ratios against named rivals, of what needs neither data nor Detectron2
	@for script in help coco_eval report; do echo "== $$script"; $(BIN)/python -m benchmarks.$$script || exit 1; done

gpu: .venv/installed  ## everything that needs a GPU, in at most eight minutes; ends with gpu_check.json and a table
	$(BIN)/python -m benchmarks.gpu_check

# Written last, so that an interrupted installation is made again.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12), (3, 13)) and "Python 3.11 to 3.13 is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	@touch $@

clean:  ## remove what make made
	rm -rf .venv .venv-lowest .venv-newest .venv-wheel demo
