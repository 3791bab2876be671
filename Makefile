# make app | test-quick | test | lint | docs | bench: each does its own set-up, in .venv, the first time.
#
# PYTHON       the Python to use, 3.11 or newer: make app PYTHON=python3.12
# TORCH_INDEX  optional. On Linux without an NVIDIA GPU, plain PyPI gives a torch with several GB of CUDA libraries.
#              Give the address of PyTorch's own CPU package index (see "Get started" on PyTorch's site, Linux, Pip,
#              CPU: the address after --index-url) to get the small CPU build: make app TORCH_INDEX=<address>
#              On macOS and Windows plain PyPI's torch is the CPU build already.
PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
HAS_GPU := $(shell nvidia-smi -L 2>/dev/null | head -n 1)

ifeq ($(HAS_GPU),)
PIN := -c constraints.txt
else
PIN :=
endif

# Tests run in this many processes; a file's tests stay in one.
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=20

.PHONY: setup app test test-quick lint docs bench clean

# Everything: the app, the tests and the linters.
setup: $(VENV)/.stamp-dev

app: $(VENV)/.stamp-app
	$(BIN)/python app.py

test: $(VENV)/.stamp-dev
	@$(PYTEST)

# No browser, no servers, no slow tests, few damaged files.
test-quick: $(VENV)/.stamp-dev
	@MELBO_FUZZ=200 $(PYTEST) -m "not browser and not server and not slow"

docs: $(VENV)/.stamp-dev
	$(BIN)/mkdocs build --strict

lint: $(VENV)/.stamp-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy melbo app.py
	$(BIN)/lint-imports
	$(BIN)/deptry .

bench: $(VENV)/.stamp-dev
	$(BIN)/python benchmarks/planted.py
	$(BIN)/python benchmarks/train_speed.py
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/annotate.py
	$(BIN)/python benchmarks/interpret.py
	$(BIN)/python benchmarks/elicit.py
	$(BIN)/python benchmarks/app_speed.py
	MELBO_FUZZ=10000 $(BIN)/python -m pytest -q tests/test_fuzz.py

clean:
	rm -rf $(VENV) build site melbo.egg-info .pytest_cache .mypy_cache .ruff_cache

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "melbo: $(PYTHON) was not found; install Python 3.11 or newer, or name it: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "melbo: $$($(PYTHON) --version) is too old; melbo needs Python 3.11 or newer. Name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "melbo: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu run: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Without a GPU, torch comes first and alone: as a dependency of the others pip might choose a CUDA build.
$(VENV)/.stamp-app: constraints.txt pyproject.toml | $(BIN)/python
ifeq ($(HAS_GPU),)
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$$(grep '^torch==' constraints.txt)"
endif
	$(BIN)/python -m pip install --quiet $(PIN) --config-settings editable_mode=compat --editable '.[all]'
	@touch $@

$(VENV)/.stamp-dev: requirements-peers.txt $(VENV)/.stamp-app
	$(BIN)/python -m pip install --quiet $(PIN) --config-settings editable_mode=compat --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-peers.txt
	@touch $@
