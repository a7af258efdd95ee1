# Every target makes the environment it needs; nothing has to be prepared.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := .venv-bench
RELEASE := .venv-release
TRIAL := .venv-trial

.PHONY: help demo test test-quick test-exhaustive test-example lint docs bench parity release-check clean

help:
	@echo "make demo | test | test-quick | test-exhaustive | test-example | lint | docs | bench | parity | release-check | clean"

$(VENV)/.pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	touch $@

# What the demo needs, and what the developers need on top of it. Compiling all modules takes minutes
# of which a run needs seconds.
$(VENV)/.demo: $(VENV)/.pip pyproject.toml examples/fer2013/pyproject.toml
	$(BIN)/pip install --quiet --no-compile --editable . --editable examples/fer2013
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/pip install --quiet --no-compile --group dev
	touch $@

# The peers live in an environment of their own, on top of the other one: grad-cam installs
# opencv-python-headless, which would overwrite opencv-python there.
$(BENCH)/.installed: $(VENV)/.dev benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	below=$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))") && \
	above=$$($(BENCH)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))") && \
	echo "import site; site.addsitedir('$$below')" > "$$above/below.pth"
	$(BENCH)/bin/python -m pip install --quiet --upgrade pip
	$(BENCH)/bin/python -m pip install --quiet --no-compile --requirement benchmarks/requirements.txt
	$(BENCH)/bin/python -m pip install --quiet --no-deps "lxt>=2.1"  # its models of language need much more
	touch $@

# The networks that are checked need libraries of their own.
$(BENCH)/.models: $(BENCH)/.installed benchmarks/requirements-models.txt
	$(BENCH)/bin/pip install --quiet --requirement benchmarks/requirements-models.txt
	touch $@

demo: $(VENV)/.demo
	$(BIN)/python -m fer2013 demo

# Each process, of which tests start many, would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

# A process for each core, each with one thread of torch's; ARGS="-n0" for one with all threads.
PROCESSES := -n auto --maxprocesses 8 --dist worksteal
ALL := tests src/camlens examples/fer2013/tests
test: export OMP_NUM_THREADS ?= 1
test: $(VENV)/.dev
	$(BIN)/pytest $(PROCESSES) -m "not exhaustive" $(ALL) $(ARGS)

# What is large, or repeats a random check many times.
test-exhaustive: export OMP_NUM_THREADS ?= 1
test-exhaustive: $(VENV)/.dev
	$(BIN)/pytest $(PROCESSES) -m exhaustive $(ALL) $(ARGS)

# The library's loop without what is slow; the example alone.
test-quick: export OMP_NUM_THREADS ?= 1
test-quick: $(VENV)/.dev
	$(BIN)/pytest $(PROCESSES) -m "not slow and not exhaustive" $(ARGS)

test-example: export OMP_NUM_THREADS ?= 1
test-example: $(VENV)/.dev
	$(BIN)/pytest $(PROCESSES) -m "not exhaustive" examples/fer2013/tests $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# docs/examples is what the gallery's code drew: removed, so that it is drawn anew.
docs: $(VENV)/.dev
	rm -rf docs/examples
	$(BIN)/sphinx-build --fail-on-warning --keep-going --builder html docs docs/_build/html
	$(BIN)/sphinx-build --fail-on-warning --builder doctest -D nb_execution_mode=off docs docs/_build/doctest
	$(BIN)/python docs/check_links.py docs/_build/html
	$(BIN)/python docs/check_pages.py docs/_build/html

bench: $(BENCH)/.models
	$(BENCH)/bin/python benchmarks/run.py $(ARGS)

parity: export OMP_NUM_THREADS ?= 1
parity: $(BENCH)/.installed
	$(BENCH)/bin/python -m pytest -c benchmarks/pytest.ini $(PROCESSES) benchmarks $(ARGS)

$(RELEASE)/.installed: pyproject.toml
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(RELEASE)/bin/pip install --quiet --group release
	touch $@

# What would be uploaded, tried in an empty environment at the lowest versions that pyproject.toml
# allows (torch 2.6 is 3 GB on Linux). VERSIONS=newest takes the newest; PYTHON=python3.13 another Python.
VERSIONS ?= lowest
release-check: $(RELEASE)/.installed
	$(RELEASE)/bin/cffconvert --validate
	rm -rf dist
	$(RELEASE)/bin/python -m build --outdir dist
	$(RELEASE)/bin/twine check --strict dist/*
	$(RELEASE)/bin/python release/check_wheel.py dist
	$(PYTHON) -m venv --clear $(TRIAL)
	$(TRIAL)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	test $(VERSIONS) = newest || $(RELEASE)/bin/python release/lower_bounds.py >$(TRIAL)/constraints.txt
	test $(VERSIONS) = lowest || touch $(TRIAL)/constraints.txt
	$(TRIAL)/bin/pip install --quiet --constraint $(TRIAL)/constraints.txt dist/*.whl
	cd $(TRIAL) && bin/python ../release/smoke.py

clean:
	rm -rf $(VENV) $(BENCH) $(RELEASE) $(TRIAL) dist docs/_build docs/examples out
