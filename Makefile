PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# what is installed depends on these three files: on what they say, not on when they were written
SUM    := $(shell cat settings.ini setup.py pyproject.toml | cksum | cut -d' ' -f1)
DEV    := $(VENV)/.dev-$(SUM)
CORE   := $(VENV)/.core-$(SUM)
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MPLBACKEND := Agg

.PHONY: help demo test slow sync dist clean

help:
	@echo 'make demo              set up, train on drawn shapes, evaluate, write pictures and a model to runs/demo'
	@echo 'make test              set up, run every notebook but its slow cells, and tests/'
	@echo 'make test NB=12_match  run one notebook'
	@echo 'make slow              as make test, with the slow cells'
	@echo 'make sync              after editing a notebook: export the modules, clean the notebooks, remake README.md'
	@echo 'make dist              build sdist and wheel into dist/'
	@echo 'make clean             remove the environment, runs and builds'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(DEV): | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	rm -f $(VENV)/.dev-* $(VENV)/.core-*
	touch $@ $(CORE)

# the demo needs the plain package only; a checkout that has the rest already is served as well
$(CORE): | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	rm -f $(VENV)/.core-*
	touch $@

demo: $(CORE)
	$(BIN)/ssd-demo

test: $(DEV)
	tools/test.sh $(NB)

slow: export SSD_FASTAI_SLOW = 1
slow: $(DEV)
	tools/test.sh $(NB) --flags slow

sync: $(DEV)
	tools/sync.sh

dist: $(DEV)
	rm -rf dist
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf $(VENV) runs build dist *.egg-info
