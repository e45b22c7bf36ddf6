# make demo: set up, train the embedded picture set, show that it learned.   make test: set up, test.
PYTHON ?= python3
VENV ?= .venv
DEMO_OUT ?= runs/demo
BIN = $(VENV)/bin

.PHONY: demo test test-slow lint type bench kill clean

demo: $(VENV)/ready
	$(BIN)/byol pretrain --out $(DEMO_OUT)

test: $(VENV)/ready-dev
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-slow: $(VENV)/ready-dev
	$(BIN)/python -m pytest -m "slow or gpu"

lint: $(VENV)/ready-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

type: $(VENV)/ready-dev
	$(BIN)/mypy

bench: $(VENV)/ready-dev
	$(BIN)/python -m benchmarks.views
	$(BIN)/python -m benchmarks.loader
	$(BIN)/python -m benchmarks.step
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.against_peers --quick --only views
	$(BIN)/python -m benchmarks.against_peers --quick --only step
	$(BIN)/python -m benchmarks.end_to_end --quick --rounds 2
	$(BIN)/python -m benchmarks.tables

kill: $(VENV)/ready-dev
	$(BIN)/python benchmarks/kill.py

$(VENV)/ready: pyproject.toml
	@command -v git >/dev/null || { echo "git was not found: install git, then run make again"; exit 2; }
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.10 or newer, or name it with make PYTHON=..."; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(PYTHON) is older than Python 3.10: name a newer one with make PYTHON=..."; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module: install it (Debian and Ubuntu: apt install python3-venv), then run make again"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing PyTorch and the rest into $(VENV): several GB, some minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/ready-dev: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info
