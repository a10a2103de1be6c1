# make demo   set up, train on drawn shapes, evaluate, write pictures and a model to runs/demo
# make test   set up, run every notebook but its slow cells, and tests/
# make slow   the same with the slow cells
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MPLBACKEND := Agg

.PHONY: demo test slow sync clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(STAMP): $(BIN)/python settings.ini setup.py pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# the demo needs the plain package only; a checkout that has the rest already is served as well
$(VENV)/.core: $(BIN)/python settings.ini setup.py pyproject.toml
	test -f $(STAMP) || $(BIN)/python -m pip install --quiet --editable .
	touch $@

demo: $(VENV)/.core
	$(BIN)/ssd-demo

test: $(STAMP)
	tools/test.sh

slow: $(STAMP)
	tools/test.sh --flags slow

sync: $(STAMP)
	tools/sync.sh

clean:
	rm -rf $(VENV) runs build dist *.egg-info
