# The README's commands. By default they make an environment of their own in .venv.
#
#   make demo                    train WGAN-GP on real digits, show quality and the speed table
#   make test                    set up and run all tests
#   make bench                   measure this machine (over an hour), write benchmarks/results/
#   make wheel                   build a wheel into dist/
#   make lint                    ruff, mypy, clang-format
#   make clean                   remove what was built (not runs/)
#
#   PYTHON=/path/to/python       use that environment as it is, and install ganops into it
#   TORCH=2.12.0                 another torch (any pip version, or a whole requirement); by default
#                                2.13.0 for the CPU, where your package index has such a build
#   PIP_ARGS="--index-url ..."   extra arguments of every pip install
#   WORKERS=4                    tests side by side; by default as many as cores, at most 8
#   GANOPS_CUDA=0|1              see setup.py; auto builds CUDA code wherever nvcc is found

SHELL := /bin/bash
TORCH ?= 2.13.0
PIP_ARGS ?=
WORKERS ?= $(shell n=$$(nproc); echo $$((n < 8 ? n : 8)))
# Tests run one to a core: threads inside them would only wait for each other.
ONE := OMP_NUM_THREADS=1
VENV := .venv
ifdef PYTHON
  PY := $(PYTHON)
  STAMPS := build/stamps-$(subst /,_,$(PYTHON))
else
  PY := $(VENV)/bin/python
  STAMPS := $(VENV)/stamps
endif
PIP := $(PY) -m pip install --disable-pip-version-check -q $(PIP_ARGS)
TORCH_SPEC := $(if $(filter torch%,$(TORCH)),$(TORCH),torch==$(TORCH))
NO_CPU_BUILD := no CPU build of torch $(TORCH) on your package index: taking its own, which may bring \
  several GB of CUDA; PIP_ARGS names another index
SOURCES := $(wildcard csrc/*.cpp csrc/*/*) setup.py pyproject.toml

.PHONY: demo test bench bench-tiny wheel lint clean

demo: $(STAMPS)/train
	$(PY) -m ganops demo --out runs/demo

test: $(STAMPS)/test
	$(ONE) $(PY) -m pytest -q -n $(WORKERS)
	@echo "== the Triton kernels, interpreted on the CPU"
	$(ONE) TRITON_INTERPRET=1 $(PY) -m pytest -q -n $(WORKERS) tests/ops -m triton

bench: $(STAMPS)/test
	$(PY) -m ganops bench run
	$(PY) -m ganops bench report --readme README.md

wheel: $(STAMPS)/base
	$(PIP) build wheel
	$(PY) -m build --wheel --no-isolation

lint: $(STAMPS)/dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	find csrc tests -name '*.h' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu' \
	  | xargs $(PY) -c "from clang_format import clang_format; clang_format()" --dry-run --Werror

clean:
	rm -rf build dist *.egg-info $(VENV) ganops/_C.so ganops/_C_cuda.so ganops/_build_info.json

# An environment; then torch, only where there is none; then ganops, built against that torch.
$(VENV)/bin/python:
	python3 -m venv $(VENV)

$(STAMPS)/base: $(if $(PYTHON),,$(VENV)/bin/python)
	@mkdir -p $(STAMPS)
ifeq ($(TORCH),2.13.0)
	@$(PY) -c "import torch" 2>/dev/null || { echo "installing $(TORCH_SPEC) for the CPU"; \
	  $(PIP) "$(TORCH_SPEC)+cpu" 2>/dev/null || { echo "$(NO_CPU_BUILD)"; $(PIP) "$(TORCH_SPEC)"; }; }
else
	@$(PY) -c "import torch" 2>/dev/null || { echo "installing $(TORCH_SPEC)"; $(PIP) "$(TORCH_SPEC)"; }
endif
	$(PIP) "setuptools>=77" wheel ninja numpy
	@touch $@

$(STAMPS)/build: $(STAMPS)/base $(SOURCES)
	@echo "building ganops (about two minutes where nvcc is found)"
	$(PIP) --no-build-isolation -e .
	@touch $@

# ganops itself is there by now: these install only what the extras name.
$(STAMPS)/train: $(STAMPS)/build
	$(PIP) "ganops[train,bench]"
	@touch $@

$(STAMPS)/test: $(STAMPS)/build
	$(PIP) "ganops[test,triton]"
	@touch $@

$(STAMPS)/dev: $(STAMPS)/test
	$(PIP) "ganops[dev]"
	@touch $@
