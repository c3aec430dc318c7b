# Five words, the same for people, README and CI. Each does all of its set-up, in .venv, on a machine with Python >= 3.11.
PYTHON ?= python3
# For pip: on Linux without a GPU, PIP_FLAGS='--extra-index-url https://download.pytorch.org/whl/cpu' saves gigabytes.
PIP_FLAGS ?=

BIN := .venv/bin

.PHONY: demo test check bench fuzz
.NOTPARALLEL:

demo: .venv/demo.done  ## make sample forgeries from public-domain photographs and scan them into demo/
	$(BIN)/python -m seamline.demo

test: .venv/dev.done  ## the test suite on up to four cores; also prints the parity table
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

check: .venv/dev.done  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/dev.done  ## speed and memory, each against a baseline in the same run
	set -e; for script in benchmarks/[a-z]*.py; do $(BIN)/python "$$script"; done

fuzz: .venv/dev.done  ## 10 000 hostile files through what reads them; those that do harm stay in fuzz/kept
	rm -rf fuzz/work
	$(BIN)/python -m tests.fuzz.run --files 10000 --folder fuzz/work --keep fuzz/kept

# The stamp is written last, so an interrupted set-up starts over. torch goes first, pinned: see constraints.txt.
.venv/%.done: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e '.[$*]'
	@# A metric of others to compare with. It asks for numpy 1, which the part that is used does not need.
	@case $* in dev) $(BIN)/python -m pip install --quiet $(PIP_FLAGS) --no-deps --only-binary :all: avdeepfake1m==0.0.4 || \
		echo "avdeepfake1m has no wheel for this machine: the tests that compare with it will skip themselves" ;; esac
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Seamline needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
