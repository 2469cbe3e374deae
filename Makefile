# make demo   install into .venv, verify the shipped network on the bundled digits, re-check the evidence
# make test   install into .venv with the development tools, run the linters, the type checker and the tests
#
# PYTHON names the interpreter (3.11 or newer). PIP_ARGS goes to every pip install, for example
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
# for the small build of torch without CUDA.

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?= -n 2
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test clean

demo: $(VENV)/.installed
	$(BIN)/lpverify verify lpverify/assets/digits-demo.safetensors --data digits --eps 0.05 --clip 0 1 \
	    --threads 1 --out runs/demo --overwrite
	$(BIN)/lpverify check runs/demo

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/flake8
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "lpverify needs Python 3.11 or newer; name one with make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -c constraints.txt $(PIP_ARGS) -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install -c constraints.txt $(PIP_ARGS) -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
