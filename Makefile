# make train    trains on data that ships with altprop; make train ARGS="experiment=…" passes overrides
# make test     lint, types and the whole test suite
# make wheel    builds the package that can be installed elsewhere, in dist/
# make store    records what new experiments, sweeps, choices and algorithms compute, so that later changes to it are noticed
# make gpu-kit  a folder with what a bare machine with a GPU needs to run benchmarks/gpu.py (docs/performance.md)
# All create .venv first if it is missing. PYTHON is the interpreter to create it with.
# make test PYTHON=python3.12 TORCH=2.11.0 tests with another interpreter and torch, in an environment of their own.

PYTHON ?= python3
WORKERS ?= 2
DATA ?= data
ifdef TORCH
VENV := .venv-$(notdir $(PYTHON))-torch-$(TORCH)
# The versions of torch and torchvision belong together, so pip chooses that of torchvision.
CONSTRAINTS := $(VENV)/constraints.txt
else
VENV := .venv
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
CONSTRAINTS := constraints.txt
endif
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: train test store wheel setup lint types format clean slurm-up slurm-down gpu-kit

train: setup
	$(BIN)/python train.py $(ARGS)

test: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

store: setup
	$(BIN)/python -m tests.config.store
	ALTPROP_STORE_CURVES=1 $(BIN)/python -m pytest -q tests/algorithms/test_suite.py -k stored_curve

wheel: setup
	$(BIN)/python -m hatchling build -d dist

setup: $(STAMP)

# torch is installed first and alone, so that no other package makes pip look for another build of it.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch==$(TORCH)"
	test $(CONSTRAINTS) = constraints.txt || sed -E '/^torch(vision)?==/d; $$a torch==$(TORCH)' constraints.txt > $(CONSTRAINTS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable ".[dev]"
	touch $(STAMP)

gpu-kit: setup
	$(BIN)/python benchmarks/gpu_kit.py gpu-kit --data $(DATA)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Starts a one-node SLURM on this machine for the tests in tests/slurm (Debian, as root; settings and logs in /tmp/altprop-slurm).
slurm-up:
	tests/slurm/cluster.sh install
	tests/slurm/cluster.sh up

slurm-down:
	tests/slurm/cluster.sh down

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
