# `make demo` and `make test` are all a new user needs; both set everything up first.

# The Python that makes .venv (3.11 or newer):  make setup PYTHON=python3.12
PYTHON ?= python3

.PHONY: demo test lint format setup lock clean help

help:
	@echo "make demo    set up, then train and evaluate specs/fpn_inject.yaml on the embedded data set"
	@echo "make test    set up, then run the tests"
	@echo "make lint    set up, then ruff, mypy and the layers"
	@echo "make format  set up, then let ruff format and fix what it can"
	@echo "make setup   .venv with torch, MinkowskiEngine, the locked dependencies and ditr"
	@echo "make lock    resolve the dependencies anew into requirements.lock"

demo: setup
	.venv/bin/ditr run specs/fpn_inject.yaml
	.venv/bin/ditr query "select name, variant, seed, ap, ap50, ap25, epochs, wall_s, device from results order by started_at"

test: setup
	.venv/bin/pytest -n 2 --dist worksteal

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

format: setup
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

setup:
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON): apt-get install python3 python3-venv python3-dev g++, or dnf install python3 python3-devel gcc-c++, or conda install -c conda-forge python gxx" >&2; exit 2; }
	@$(PYTHON) tools/setup.py

lock:
	@$(PYTHON) tools/lock.py

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
