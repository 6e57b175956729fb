# longtake: `make demo` makes a clip, `make test` runs the whole suite. Both set up .venv by themselves.
#
#   make demo PYTHON=python3.12             another Python (3.11 or newer)
#   make demo PIP_ARGS="--index-url URL"    another package index, e.g. PyTorch's CPU-only one (see README)
#   make demo PROMPT="a green cone spins"   another prompt

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
PYTEST_ARGS ?=
PROMPT ?= a red ball rolls behind a blue cube

PIP := install --disable-pip-version-check $(if $(CI),--quiet) $(PIP_ARGS)
BIN := $(VENV)/bin
CORE := $(VENV)/.core-installed
DEV := $(VENV)/.dev-installed

.PHONY: help demo test test-quick lint format claims bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    a clip of \"$(PROMPT)\" from the starter: demo.mp4, demo.json, demo.png"
	@echo "make test    the whole test suite (make test-quick leaves out the slow ones)"
	@echo "make lint    ruff, pyright and the import contracts (make format applies ruff's fixes)"
	@echo "make claims  every experiment in claims/, or one: make claims CLAIM=name"
	@echo "make bench   every benchmark in benchmarks/, or one: make bench BENCH=name"
	@echo "make clean   remove .venv and what demo wrote"

# ---------------------------------------------------------------------------------------------------------- set-up

# A stamp is newer than pyproject.toml exactly when the last installation of its kind went through.
$(CORE): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "longtake needs Python 3.11 or newer; '$(PYTHON)' is not one. Name one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' has no venv module. On Debian: apt install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing longtake into $(VENV) (some minutes the first time)"
	@$(BIN)/python -m pip $(PIP) --editable .
	@touch $@

$(DEV): $(CORE)
	@echo "Installing the development tools into $(VENV)"
	@$(BIN)/python -m pip $(PIP) --editable '.[dev]'
	@touch $@

# ----------------------------------------------------------------------------------------------------------- verbs

demo: $(CORE)
	@$(BIN)/longtake generate "$(PROMPT)" --out demo.mp4
	@$(BIN)/python -c "from longtake.video import read_clip, write_strip; write_strip(read_clip('demo.mp4'), 'demo.png')"
	@echo "clip    $(CURDIR)/demo.mp4"
	@echo "record  $(CURDIR)/demo.json"
	@echo "strip   $(CURDIR)/demo.png"

test: $(DEV)
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

test-quick: $(DEV)
	@$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Runs all of them even when one fails, then fails if any did. A claim that does not hold is a result, not a failure.
CLAIMS := $(if $(CLAIM),claims/$(CLAIM).py,$(wildcard claims/*.py))
claims: $(CORE)
	@failed=; for claim in $(CLAIMS); do echo "== $$claim"; $(BIN)/python $$claim || failed="$$failed $$claim"; done; \
	  test -z "$$failed" || { echo "did not finish:$$failed" >&2; exit 1; }

BENCHES := $(if $(BENCH),benchmarks/$(BENCH).py,$(filter-out benchmarks/timing.py,$(wildcard benchmarks/*.py)))
bench: $(CORE)
	@failed=; for bench in $(BENCHES); do echo "== $$bench"; $(BIN)/python $$bench || failed="$$failed $$bench"; done; \
	  test -z "$$failed" || { echo "did not finish:$$failed" >&2; exit 1; }

clean:
	rm -rf $(VENV) demo.mp4 demo.json demo.png
