# `make demo` and `make test` are all a new user needs; both set everything up first.

# The Python that makes .venv (3.11 or newer):  make setup PYTHON=python3.12
PYTHON ?= python3

.PHONY: demo test test-long test-cluster damage stores torture lint format audit vulnerabilities setup lock clean help

help:
	@echo "make demo    set up, then train and evaluate specs/fpn_inject.yaml on the embedded data set"
	@echo "make test    set up, then run the tests"
	@echo "make test-long  set up, then run the tests that take minutes: ranks over twenty steps"
	@echo "make test-cluster  set up, then run trainings on a Slurm and a Ray of this machine (root, slurm-wlm, munge)"
	@echo "make damage  set up, then damage every kind of file that is read a thousand times"
	@echo "make stores  set up, then let stores fail in every phase: full, read-only, another user's, removed"
	@echo "make torture set up, then kill, stop and double every command that writes, hundreds of times"
	@echo "make lint    set up, then ruff, mypy and the layers"
	@echo "make format  set up, then let ruff format and fix what it can"
	@echo "make audit   set up, then look for secrets, and for licences that are not allowed"
	@echo "make vulnerabilities  ask PyPI for known faults of the locked dependencies"
	@echo "make setup   .venv with torch, MinkowskiEngine, the locked dependencies and ditr"
	@echo "make lock    resolve the dependencies anew into requirements.lock"

demo: setup
	.venv/bin/ditr run specs/fpn_inject.yaml
	.venv/bin/ditr query "select name, variant, seed, ap, ap50, ap25, epochs, wall_s, device from results order by started_at"

test: setup
	.venv/bin/pytest -n 2 --dist worksteal

test-long: setup
	.venv/bin/pytest -m long

test-cluster: setup
	.venv/bin/pytest -m cluster tests/runner/launchers

damage: setup
	.venv/bin/python -m tests.damage --count 1000

stores: setup
	.venv/bin/python -m tests.stores

torture: setup
	.venv/bin/python -m tests.torture

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

audit: setup
	git ls-files -z | xargs -0 .venv/bin/detect-secrets-hook --no-verify --baseline .secrets.baseline
	.venv/bin/python -m tools.licences --check
	.venv/bin/python -m pip check

# In an environment of its own, and strict: without, what could not be asked passes as free of faults.
vulnerabilities:
	$(PYTHON) -m venv build/pip-audit
	build/pip-audit/bin/pip install --quiet pip-audit==2.10.1
	build/pip-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement requirements.lock

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
