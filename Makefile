# make demo    install what is needed and draw the sample person: the main job
# make test    the default tests; make check: style, types, import layers
# make bench   speed and memory, as ratios against a named baseline in one run
# make screenshots   pictures of the page for the README, with the embedded model
# make train-mini   the embedded model again, from renders to weights

PYTHON ?= python3
BIN := .venv/bin
# Several busy processes on few cores: threads that sleep while they wait share them far better.
export OMP_WAIT_POLICY ?= PASSIVE
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test check bench screenshots train-mini clean

demo: .venv/.installed-base
	$(BIN)/imagine-me demo

test: .venv/.installed-dev
	$(BIN)/python -m pytest -q

check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.installed-dev
	$(BIN)/python -m training.bench
	$(BIN)/python -m training.bench_unet
	$(BIN)/python -m training.bench_unet --shape full --device cuda
	$(BIN)/python -m training.bench_engine

screenshots: .venv/.installed-dev
	$(BIN)/python -m tests.ui.take_screenshots

train-mini: .venv/.installed-dev
	$(BIN)/python -m training.train_mini

.venv/bin/python:
	$(PYTHON) -m venv .venv

# torch comes first and exactly: a range would let pip prefer a build other pins do not know.
.venv/.installed-base: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/.installed-dev: pyproject.toml .venv/.installed-base
	sh training/system_packages.sh
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv build *.egg-info demo-output
