# `make demo` and `make test` are all a fresh machine needs: Python 3.11+ and make.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin

.PHONY: help install demo demo-batch check test test-all docs notebook train-default clean

help:
	@echo "make demo    set up, then run the main job on a made scene, offline"
	@echo "make demo-batch   the same for an archive: 12 units, killed once in the middle, finished, with a map"
	@echo "make test    set up, then run the tests but for the slow ones (8 minutes on 2 cores)"
	@echo "make test-all    run the slow ones too, as continuous integration does"
	@echo "make check   set up, then lint, type-check and check the layering"
	@echo "make docs    set up, then build the documentation as a site, site/index.html"
	@echo "make notebook    set up, then run docs/field.ipynb again, and keep what it shows"
	@echo "make train-default IMAGES=FOLDER   train the shipped students again (hours on a CPU; goes on where it was)"
	@echo "make clean   remove the virtual environment and the demo's output"

# PIP_CONSTRAINT, not -c: the build's own isolated environment obeys it as well.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rsup needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

install: $(VENV)/installed

demo: install
	$(BIN)/rsup demo --output demo

demo-batch: install
	$(BIN)/python -m rsup.pipeline.demo.session demo-batch

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A worker that dies ends the run and is named: without, pytest-xdist would wait for its tests for ever.
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# Each in a process of its own: one that has run ONNX Runtime and OpenVINO both may crash later on, anywhere, in what
# Python keeps of freed tuples (seen with 3.11.7; by a debugger, not by its cause).
ENGINES = tests/models/graphs/test_engines.py tests/models/graphs/test_statement.py tests/models/test_export.py

test: install
	$(PYTEST) -m "not slow" $(ENGINES:%=--ignore=%)
	set -e; for file in $(ENGINES); do $(BIN)/python -m pytest -m "not slow" $$file || test $$? = 5; done  # 5: all slow

test-all: install
	$(PYTEST) $(ENGINES:%=--ignore=%)
	set -e; for file in $(ENGINES); do $(BIN)/python -m pytest $$file; done

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebook: install
	$(BIN)/python docs/run_notebook.py

# A run that was stopped goes on; a finished one is left as it is. Training that is told to stop leaves with 0, and the
# next recipe must not start from half a run's weights then: awk passes the report on, and fails unless it says finished.
COMPACT = student-x4 student-x4-sensor student-x4-uncertainty \
	student-x8 student-x8-finish student-x8-sensor student-x8-uncertainty \
	student-x4-sharp student-x4-sharp-finish student-x8-sharp student-x8-sharp-finish

train-default: install
	@test -n "$(IMAGES)" || { echo "give the folder of images: make train-default IMAGES=FOLDER" >&2; exit 2; }
	set -e; for name in $(COMPACT); do \
	    $(BIN)/rsup train student --recipe recipes/compact/$$name.toml --data "$(IMAGES)" -o runs/$$name --resume --json \
	    | awk '1; /"stopped": false/ { whole = 1 } END { exit !whole }'; \
	done

clean:
	rm -rf $(VENV) demo demo-batch site
