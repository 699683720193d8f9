# Every target is complete in itself: it makes the environment and fills it where that has not been done yet.

# The pinned set to install: requirements/$(PROFILE).txt.
PROFILE ?= current
PYTHON  ?= python3
# What `make test` runs, as pytest takes it; empty is what its help says.
TESTS   ?=
# Options of `make bench`, e.g. BENCH="--images 2000 --memory 0".
BENCH   ?=
# How many files `make fuzz` damages, and from which seed; empty is another one each time.
MUTANTS ?= 200000
SEED    ?=
# Which part of the tests of `make test-full`, e.g. PART=1/3; empty is all of them.
PART    ?=

# An environment a profile, so that none holds what another left: .venv, and .venv-lts beside it.
venv = .venv$(filter-out -current,-$(PROFILE))

# If the user names a Python, use it or refuse it. Otherwise try python3, then python3.12 to python3.10.
pythons = $(PYTHON) $(if $(filter file,$(origin PYTHON)),python3.12 python3.11 python3.10)
profiles = $(basename $(notdir $(wildcard requirements/*.txt)))

# Two processes share the files; see pytest_xdist_make_scheduler in tests/conftest.py.
pytest = $(venv)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# pytest-split makes parts that take about the same time, by the seconds in that file. To measure them anew:
# .venv/bin/python -m pytest -n 2 --dist loadfile -m full --store-durations --durations-path tests/durations.json
part = $(if $(PART),$(if $(findstring /,$(PART)),,$(error PART=$(PART) must be like 1/3)) \
    --durations-path tests/durations.json --splitting-algorithm duration_based_chunks \
    --group $(firstword $(subst /, ,$(PART))) --splits $(lastword $(subst /, ,$(PART))))
units = tests/unit cnnlib pipelines jobs
others = tests/end_to_end tests/spark
# Tests that also run on lts: the feed and its bridge on Arrow 14, image sets, training and sealed models on TensorFlow
# 2.18 and NumPy 1, the registry of MLflow 2, ingest, train and Delta tables on Spark 3.5.
lts_units = $(filter-out %/test_feed_learning.py, $(wildcard $(addprefix tests/unit/test_, \
    arrow_bridge.py checkpoints.py data_parallel.py feed*.py image*.py models.py old_sealed_model.py parts.py predict.py \
    publisher.py rank*.py registry.py requirements.py rewrite_parts.py scoring*.py storage.py training.py)))
lts_spark = $(addprefix tests/spark/test_, delta.py ingest.py train.py)

.PHONY: help demo test test-full test-lts coverage fuzz bench petastorm lint wheel pins clean environment

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s  %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: environment ## MNIST from images to a scored, registered model (5 minutes)
	@$(venv)/bin/sparkcnn demo

test: lint ## lint, unit tests, one path through every capability on Spark (8 minutes), or TESTS=...
	@$(if $(TESTS),$(venv)/bin/python -m pytest $(TESTS), \
	    $(pytest) -m 'not full' $(others) $(units))

test-full: environment ## all other tests, benchmarks at their smallest, fuzzing, a part on lts (over an hour), or PART=1/3
	@$(pytest) -m full $(part) $(units) $(others)
	@$(MAKE) --no-print-directory fuzz MUTANTS=50000
	@$(if $(filter current,$(PROFILE)),$(MAKE) --no-print-directory test-lts PROFILE=lts)

coverage: environment ## all tests, and a table of the lines that they run; takes up to 1.5 times as long
	@$(pytest) --cov $(units) $(others)

test-lts: environment
	@$(pytest) -m 'not full' $(lts_units)
	@$(pytest) $(lts_spark)

bench: environment ## ingest beside the machine's ceiling, petastorm and Ray Data (10 minutes)
	@$(venv)/bin/python -m benchmarks.ingest $(BENCH)

fuzz: environment ## damaged image files through the decoder: MUTANTS=... SEED=... (a minute)
	@$(venv)/bin/python -W error -m tests.unit.fuzz_images --mutants $(MUTANTS) $(if $(SEED),--seed $(SEED))

petastorm: environment ## petastorm's own tests on both profiles: fails if the Arrow bridge breaks one (20 minutes)
	@$(venv)/bin/python benchmarks/petastorm_tests.py

lint: environment ## ruff and mypy
	@$(venv)/bin/python -m ruff check .
	@$(venv)/bin/python -m ruff format --check .
	@$(venv)/bin/python -m mypy

# setuptools would pack what an earlier build left.
wheel: environment ## the package: dist/sparkcnn-*.whl, for spark-submit --py-files
	@rm -rf build dist/sparkcnn*
	@$(venv)/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/sparkcnn*

pins: environment ## compile requirements/*.in to *.txt; a pin that still fits stays (needs uv)
	@compile() { \
	    PATH="$$PATH:$(venv)/bin" uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate "$$@"; \
	}; \
	for set in $(profiles); do \
	    compile requirements/$$set.in --output-file requirements/$$set.txt && \
	    compile requirements/dev.in --constraint requirements/$$set.txt --output-file requirements/dev/$$set.txt || exit; \
	done

clean: ## remove the environments and all else that the targets made, but no data, run or model
	rm -rf .venv .venv-* build dist *.egg-info .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis

# $(error) is evaluated here, not in a script: it ends make with this one line and exit status 2.
environment:
	$(if $(filter $(PROFILE),$(profiles)),,$(error PROFILE=$(PROFILE) has no requirements/$(PROFILE).txt: choose one of $(profiles)))
	$(eval python := $(shell sh requirements/find_python.sh $(venv) $(pythons)))
	$(if $(filter-out 0,$(.SHELLSTATUS)),$(error $(python)))
	@sh requirements/install.sh $(python) $(PROFILE) $(venv)
