# make demo | test | check | bench; each makes its own .venv on the first call.
# PYTHON=... chooses the interpreter, PIP_ARGS=... is passed to pip install.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_ARGS ?=
ENGINE := requirements/engine-cpu.txt
# Renamed when what it stands for changes, and made last: an interrupted install starts over.
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test check bench format clean

help:
	@echo "make demo    stock vLLM against Holdfast on this machine, one table (minutes)"
	@echo "make test    all tests, those on the real engine included"
	@echo "make check   formatting, lint, types, layers"
	@echo "make bench   the measurements under benchmarks/"

install: $(STAMP)

$(STAMP): pyproject.toml $(ENGINE) scripts/install.sh
	PYTHON="$(PYTHON)" PIP_ARGS="$(PIP_ARGS)" bash scripts/install.sh "$(VENV)" "$(ENGINE)"
	@touch "$@"

demo: $(STAMP)
	$(BIN)/holdfast demo --json out/demo.json --html out/demo.html

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	@for script in $(wildcard benchmarks/*.py); do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf "$(VENV)"
