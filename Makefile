# Each target makes .venv and installs what it needs on first use, and nothing twice.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all lint types docs format bench clean

demo: .venv/installed
	$(BIN)/pipa demo

test: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 -m "not slow"

test-all: .venv/installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[web]"
	$(BIN)/pytest -q -n 2

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell src tests docs README.md CHANGELOG.md CONTRIBUTING.md

types: .venv/installed-dev
	$(BIN)/mypy

docs: .venv/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed-dev
	for name in contrast data_loading training_step inference gpu_step; do $(BIN)/python benchmarks/$$name.py || exit 1; done

clean:
	rm -rf .venv

# torch goes first, by its exact version: an open range would pull gigabytes of CUDA on a machine
# whose index has a CPU wheel of this version.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt | sed 's/+.*//')"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,docs,export]"
	touch $@
