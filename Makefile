# Everyday commands. Needs git, make, bash, a C++ compiler and Python 3.11 or 3.12; the rest comes from PyPI.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON_VERSIONS := 3.12 3.11
PYTHON ?= $(PYTHON_VERSIONS:%=python%) python3
UV_VERSION := 0.13.8
TEST_JOBS ?= 2
TEST_OPTIONS ?= -m "not (slurm and slow)"

VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Where it is set, as in many containers, each of the thousand processes that tests start would
# compile the project's source again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test lint bench schema lock clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# One stamp per step: a second run does nothing, a changed input redoes its step and what follows,
# and an interrupted run goes on where it was.
setup: $(VENV)/project.stamp $(VENV)/lmplz.stamp  ## make .venv with every package, and build lmplz

$(VENV)/python.stamp: tools/choose_python.sh
	@python=$$(tools/choose_python.sh "$(PYTHON_VERSIONS)" $(PYTHON)); \
	echo "setup: $(VENV) with $$python"; \
	"$$python" -m venv $(VENV) || \
	  { echo "setup: Python's venv module failed; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(VENV)/packages.stamp: requirements.lock tools/install_packages.sh $(VENV)/python.stamp
	@echo "setup: installing requirements.lock (about 5 GB, a minute on a fast line)"
	@tools/install_packages.sh $(VENV) --requirement requirements.lock
	@touch $@

$(VENV)/project.stamp: pyproject.toml $(VENV)/packages.stamp
	@tools/install_packages.sh $(VENV) --no-deps --editable .
	@touch $@

$(VENV)/lmplz.stamp: tools/build_lmplz.py tools/lmplz.txt $(VENV)/packages.stamp
	@$(BIN)/python tools/build_lmplz.py
	@touch $@

demo: setup  ## run the whole workflow on the built-in corpus and print the table
	@snakemake --profile profiles/local --config scale=sample
	@cat results/tables/sample/encoders.md
	@echo "The report: results/report/sample.html"

test: setup  ## run the tests (TEST_JOBS=2 at a time; with TEST_OPTIONS= also the slow ones of Slurm)
	@python -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder $(TEST_OPTIONS)

lint: setup  ## check style, types and the workflow
	@ruff check .
	@ruff format --check .
	@mypy
	@snakefmt --check Snakefile workflow
	@python tools/lint_workflow.py

bench: setup  ## measure kernels, encoders and decoding on this machine
	@tools/install_packages.sh $(VENV) --editable '.[bench]'
	@snakemake --profile profiles/local
	@lightasr bench

schema: setup  ## write config/schema.json from the typed config
	@lightasr schema --write

lock: setup  ## write requirements.lock from pyproject.toml
	@uv pip compile --quiet --universal --python-version 3.11 --extra build --extra dev \
	  --custom-compile-command "make lock" --output-file requirements.lock pyproject.toml

clean:  ## remove .venv and caches; data, checkpoints and results stay
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
