# Needs python3 (3.10 or newer) only; everything else goes into .venv. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
FIVEFOLD := $(VENV)/bin/fivefold
DEMO := .fivefold-demo
CORPUS := examples/corpus

.DEFAULT_GOAL := help
.PHONY: help demo test test-clients fuzz check bench docs clean

help:
	@echo "make demo    install, embed a small multilingual corpus, ask it questions"
	@echo "make test    install with the test tools, run the tests"
	@echo "make test-clients  other people's clients against the server"
	@echo "make fuzz    hostile requests against the server, half an hour"
	@echo "make check   linter and strict type checker"
	@echo "make bench   measurements, as tables and JSON"
	@echo "make docs    write the generated parts of docs/"
	@echo "make clean   remove what the others made"

# torch first and pinned, so that nothing pulls another build of it.
$(VENV)/torch.stamp: constraints.txt
	@echo "Setting up $(VENV) (once; a minute or two) ..."
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	@touch $@

$(VENV)/run.stamp: $(VENV)/torch.stamp pyproject.toml
	$(PIP) --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/torch.stamp pyproject.toml
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/run.stamp

demo: $(VENV)/run.stamp
	@FIVEFOLD=$(FIVEFOLD) INDEX=$(DEMO)/index sh examples/demo.sh

test: $(VENV)/dev.stamp
	$(VENV)/bin/python -m pytest

test-clients: $(VENV)/dev.stamp
	$(PIP) --editable '.[dev,clients]'
	$(VENV)/bin/python -m pytest -m clients

fuzz: $(VENV)/dev.stamp
	$(PIP) --editable '.[dev,fuzz]'
	$(VENV)/bin/python -m pytest -m fuzz

check: $(VENV)/dev.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

bench: $(VENV)/dev.stamp
	@for script in bench/*.py; do echo "== $$script"; $(VENV)/bin/python "$$script" || exit 1; done

docs: $(VENV)/run.stamp
	$(VENV)/bin/python docs/cli_help.py

clean:
	rm -rf $(VENV) $(DEMO) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
