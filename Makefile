# `make help` lists the commands. Each makes .venv when it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test attack floors lint docs bench clean

help:
	@echo "make demo   few-shot classification of image files with the bundled model"
	@echo "make test   the whole test suite, doctests and coverage"
	@echo "make attack robustness tests (damaged files and images, killed writers), up to 20 minutes"
	@echo "make floors the tests with the oldest dependencies allowed"
	@echo "make lint   style, format and the order of imports"
	@echo "make bench  the speed benchmarks, written to docs/benchmarks.md"
	@echo "make docs   the documentation, in docs/_build/html"

# The stamp makes the second call quick: it is older than pyproject.toml only
# when the dependencies may have changed.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "skbridge needs Python 3.11 or newer, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test,lint,plots,onnx,ray]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

# SciPy reads SCIPY_ARRAY_API once, when it is imported; without it
# scikit-learn's array API check is skipped.
test: $(VENV)/.installed
	SCIPY_ARRAY_API=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term-missing --cov-fail-under=95 $(PYTEST_ARGS)

# Another seed: make attack SEED=1.
SEED ?= 0
attack: $(VENV)/.installed
	SKBRIDGE_ATTACK=$(SEED) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests/attack $(PYTEST_ARGS)

# The oldest Python that is supported, for not every floor has a wheel for a newer one.
floors:
	$(PYTHON) tools/floors.py $(PYTEST_ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

$(VENV)/.docs-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	touch $@

# Warnings are errors. The gallery's examples run here, two at a time.
docs: $(VENV)/.docs-installed
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "The documentation is in docs/_build/html/index.html"

$(VENV)/.bench-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[bench]"
	touch $@

bench: $(VENV)/.bench-installed
	$(BIN)/python benchmarks/run_all.py --output docs/benchmarks.md

clean:
	rm -rf docs/_build docs/api docs/auto_examples docs/sg_execution_times.rst
	rm -rf $(VENV) .venv-floors .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage* demo-output
