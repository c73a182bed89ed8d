# Everything runs in a virtual environment that make sets up by itself.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# The oldest versions that the package allows, and its own tests: programs and clients need newer
# ones (nnx optimizers flax 0.12), and what a compiler makes of an event is asked of newer ones.
OLDEST := jax==0.7.0 jaxlib==0.7.0 optax==0.2.8 'numpy==2.0.*' 'flax<0.12' chex flatbuffers hypothesis \
  orbax-checkpoint pydmd pytest pytest-xdist scikit-learn
OLDEST_TESTS := arguments checkpoint citizen criteria dynamics extra_arguments fuzz ire_citizen \
  ire_sharding momentum oracle pdt predictors programs schedule sharding shampoo solve \
  storage streaming sums svd training_time verify

.PHONY: help demo demo-paper science test test-all test-oldest bench fuzz kill smoke lint format toy tpu docs figures tables notebooks package clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

demo: $(VENV)/science  ## Solve a physics problem with Adam, L-BFGS and Adam with Solve, about 2 minutes
	$(BIN)/python -m experiments.science.demo

demo-paper: $(VENV)/experiments  ## Train on MNIST with and without PDT, about 2 minutes
	$(BIN)/python -m experiments.train --config=experiments/configs/fcn.py --run_dir=runs/demo-paper

RIVALS := adam,solve,solve_third,lbfgs,adam_lbfgs,muon,muon_solve,verify,lm
OTHERS := poisson,reaction,wave,burgers,allen_cahn,image,regression_tables,regression_synthetic,neural_ode,circuit

science: $(VENV)/science  ## Twelve tasks and their rivals at equal seconds, about two hours
	$(BIN)/python -m experiments.science.study --seconds=30 --run_dir=runs/science --methods=$(RIVALS) --tasks=convection_20,convection_40
	$(BIN)/python -m experiments.science.study --seconds=12 --run_dir=runs/science --methods=$(RIVALS) --tasks=$(OTHERS)
	$(BIN)/python -m experiments.science.report --run_dir=runs/science

toy: $(VENV)/experiments  ## The paper's six-variable example
	$(BIN)/python -m experiments.toy

tpu:  ## Compile whole train steps for TPU slices, without a TPU
	$(MAKE) VENV=.venv-tpu .venv-tpu/tpu
	.venv-tpu/bin/python -m experiments.tpu

test: lint  ## Lint, types, tests and doctests
	$(BIN)/python -m pytest

test-all: lint  ## What `test` does, and whole programs, studies, published sizes, notebooks
	$(BIN)/python -m pytest -m ""

test-oldest:  ## The tests of the package on the oldest jax that it allows
	$(MAKE) VENV=.venv-oldest .venv-oldest/oldest
	.venv-oldest/bin/python -m pytest -k 'not event_moves_sums and not nnx' pdt_optax $(OLDEST_TESTS:%=tests/test_%.py)

bench: $(VENV)/bench  ## Time events, steps and epochs beside what they compare with, about 15 minutes
	$(BIN)/python -m experiments.benchmarks.events
	$(BIN)/python -m experiments.benchmarks.compiling
	$(BIN)/python -m experiments.benchmarks.accuracy
	$(BIN)/python -m experiments.ire.bench

fuzz: $(VENV)/test  ## Thousands of hostile histories; prints how many
	PDT_FUZZ=1 $(BIN)/python -m pytest -n0 -s tests/test_fuzz.py

docs: $(VENV)/docs  ## The pages, into docs/_build/html/index.html; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

figures: $(VENV)/docs  ## Draw the pictures of the pages anew
	$(BIN)/python docs/draw.py

tables: $(VENV)/test  ## Make the tables of the pages anew from the records of the studies
	$(BIN)/python tests/pages.py

notebooks: $(VENV)/notebooks  ## Run the notebooks in place and keep their outputs
	$(BIN)/python tests/test_notebooks.py

package: $(VENV)/package  ## Build wheel and sdist and try both in a clean environment
	$(BIN)/python tests/try_package.py

kill: $(VENV)/test  ## Kill training runs of one process and of two, ten times each
	PDT_KILL=1 $(BIN)/python -m pytest -m "" -n0 -s tests/test_killed.py

smoke: $(VENV)/test  ## Run every study at its smallest scale, lower each network at its published size
	PDT_SMOKE=1 $(BIN)/python -m pytest -m "" tests/test_smoke.py tests/test_paper_sizes.py tests/test_workloads.py \
	  tests/test_ire_experiments.py

lint: $(VENV)/test  ## Ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/test  ## Format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## Remove the environment and caches
	rm -rf $(VENV) .venv-tpu .venv-oldest .pytest_cache .ruff_cache build dist docs/_build *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.13 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/oldest: pyproject.toml $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable . $(OLDEST)
	@touch $@

$(VENV)/%: pyproject.toml $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@
