# Everything sets itself up: `make tune` and `make test` work on a bare machine with Python 3.10 to 3.13 and make.
# A second call starts at once: the environment is built again only when pyproject.toml or constraints.txt change.

VENV   := .venv
PYTHON := $(VENV)/bin/python
READY  := $(VENV)/.installed

# what the environment and a study take on disk, in GB
NEEDED_GB := 10

.PHONY: help tune test test-minimal lint install clean
.DEFAULT_GOAL := help

help:
	@echo "make tune          search the quick space on synthetic faces, on this machine (under 8 minutes on 2 cores)"
	@echo "make test          run the tests"
	@echo "make test-minimal  the gradient tests with torch, numpy and pytest only, at the oldest torch we admit"
	@echo "make lint          ruff, mypy and the import contracts"
	@echo "make install       set up $(VENV) and nothing else"
	@echo "make clean         remove $(VENV)"

# Local whatever the shell says: a RAY_ADDRESS or a tracking server elsewhere is for those who ask for it.
tune: $(READY)
	@env -u RAY_ADDRESS -u MLFLOW_TRACKING_URI $(PYTHON) -m mtlsearch.tune --address local \
		--tracking-uri sqlite:///mlflow.db $(ARGS)

test: $(READY)
	@env -u RAY_ADDRESS -u MLFLOW_TRACKING_URI $(PYTHON) -m pytest -n 2 $(ARGS)

# In a virtual environment of its own, which goes when the tests are done.
test-minimal:
	@$${PYTHON3:-python3} tests/minimal.py $(ARGS)

lint: $(READY)
	@$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check . && $(PYTHON) -m mypy && \
		$(VENV)/bin/lint-imports

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@sh ./install.sh $(VENV) $(NEEDED_GB)
	@touch $@

clean:
	rm -rf $(VENV)
