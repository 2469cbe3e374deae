# make demo   install into .venv, verify the shipped network on the bundled digits, re-check the evidence
# make test   install into .venv with the development tools, run the linters, the type checker and the tests
# make soundness     the soundness gate: no wrong verdict on thousands of questions; SOUNDNESS_ARGS chooses parts
# make figures       install into .venv, draw every figure and table from benchmarks/results into figures/out
# make figures-data  measure again what they are drawn from: hours on two cores; DATA names the folder of shared data
# make docs          build docs/_build/html; every warning is an error
# make bench         time the core kernels with pytest-benchmark; BENCH_ARGS saves and compares
#
# PYTHON names the interpreter (3.11 or newer). PIP_ARGS goes to every pip install, for example
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
# for the small build of torch without CUDA.

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?= -n 2
DATA ?= ../shared/data
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test soundness bench docs figures figures-data clean

demo: $(VENV)/.installed
	$(BIN)/lpverify verify lpverify/assets/digits-demo.safetensors --data digits --eps 0.05 --clip 0 1 \
	    --threads 1 --out runs/demo --overwrite
	$(BIN)/lpverify check runs/demo

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/flake8
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

soundness: $(VENV)/.installed-dev
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(BIN)/python -m soundness --data $(DATA) $(SOUNDNESS_ARGS)

figures: $(VENV)/.installed
	PYTHONPATH=. $(BIN)/python figures/draw.py

# What can be continued is continued: remove a file of benchmarks/results first to have all of it measured again.
MEASURE = PYTHONPATH=. OMP_NUM_THREADS=1 $(BIN)/python benchmarks
TRAININGS = standard pgd dual ibp

figures-data: $(VENV)/.installed
	$(MEASURE)/compare.py --data $(DATA)
	for name in $(TRAININGS); do \
	    $(BIN)/lpverify train benchmarks/configs/digits-$$name.toml --out runs/digits-$$name --no-card || exit 1; done
	$(MEASURE)/learning_curves.py $(TRAININGS:%=runs/digits-%)
	$(MEASURE)/cards.py
	$(MEASURE)/filters.py --data $(DATA)
	$(MEASURE)/neurons.py
	$(MEASURE)/sorted_bounds.py
	$(MEASURE)/robust_error.py
	$(MEASURE)/radii.py
	$(MEASURE)/boundaries.py
	$(MEASURE)/polytopes.py
	$(MEASURE)/projections.py errors
	$(MEASURE)/projections.py cost
	$(MEASURE)/projections.py training
	$(MEASURE)/scaling.py
	$(MEASURE)/tightness_training.py
	$(MEASURE)/lp_sdp.py

bench: $(VENV)/.installed-dev
	PYTHONPATH=.:benchmarks OMP_NUM_THREADS=1 $(BIN)/python -m pytest benchmarks/test_kernels.py --benchmark-only \
	    $(BENCH_ARGS)

docs: $(VENV)/.installed-dev
	PYTHONPATH=. OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

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
	rm -rf $(VENV) build docs/_build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
