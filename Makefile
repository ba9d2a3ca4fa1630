# Every target works alone on a fresh clone: it makes .venv first, once.
#   PYTHON=python3.12   the interpreter .venv is made with (3.11 or newer)
#   VENV=$CONDA_PREFIX  use an existing environment instead of .venv
#   CONSTRAINTS=constraints/lowest.txt   exact versions; makes .venv-lowest, unless VENV says otherwise
#   BENCHFLAGS=--help   further options of `make bench`
PYTHON ?= python3
VENV ?= .venv$(if $(CONSTRAINTS),-$(basename $(notdir $(CONSTRAINTS))))
BIN := $(VENV)/bin
# A stamp for each set of extras that was installed.
BOOK := $(VENV)/.installed-book
TEST := $(VENV)/.installed-test
LINT := $(VENV)/.installed-lint
BOOKFLAGS ?=
BENCHFLAGS ?=
SPEED := book/results/speed
# Two workers, one thread each.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -q -n 2 --dist worksteal
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help book test test-all pages pages-static twice links run bench bench-gpu lint clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' $(MAKEFILE_LIST)

book: $(BOOK)  ## build book/_build/html; runs stale chapters first (SSGN_PROFILE=smoke|quick|full)
	$(BIN)/jupyter-book build book/ $(BOOKFLAGS)

# The built book is as old as the last build: `make pages` checks it.
test: $(TEST)  ## run the tests, in five minutes; CONSTRAINTS=constraints/lowest.txt: with the oldest packages
	$(PYTEST) -m "not slow" --ignore-glob='tests/test_built_*.py'

test-all: test  ## run the slow tests too: all chapters, kills, the fuzz run, wheels, ONNX, Node
	$(PYTEST) -m slow --ignore-glob='tests/test_built_*.py'

pages: $(TEST)  ## check the built book's pages; in Chromium too, where there is one, on two screens
	$(BIN)/python -m pip install -q -e ".[pages]"
	$(BIN)/python -m pytest -v -rs tests/test_built_*.py

pages-static: $(TEST)  ## the same without a browser: links, ids, headings, texts of images
	$(BIN)/python -m pytest -q tests/test_built_*.py -k "not browser"

# Twenty minutes on two cores: all chapters run twice, in the smoke profile.
twice: $(TEST)  ## build the book in two fresh copies and compare every file, apart from times
	$(BIN)/python tests/same_book.py

links: $(BOOK)  ## ask the network whether the book's external links still answer
	$(BIN)/jupyter-book build book/ --builder linkcheck

run: $(BOOK)  ## run stale chapters only: CHAPTER=08_ablations PROFILE=full FORCE=1 (each optional)
	$(BIN)/python book/_ext/papermill_chapters.py run $(CHAPTER) \
	  $(if $(PROFILE),--profile $(PROFILE)) $(if $(FORCE),--force)

bench: $(TEST)  ## time everything against references on the CPU, about half an hour; into book/results/speed/
	$(BIN)/python -m bench --device cpu --out $(SPEED)/cpu.json $(BENCHFLAGS)

# The study comes first. Both write as they go: the same command goes on where it stopped.
bench-gpu: $(TEST)  ## on a GPU: all ablations with five seeds, then the benchmarks for nine minutes
	$(BIN)/ssgn study book/results/doodle-emoji-gpu.json --seeds 5
	$(BIN)/python -m bench --device cuda --minutes 9 --out $(SPEED)/gpu.json $(BENCHFLAGS)

lint: $(LINT)  ## check style
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check

clean:  ## remove the built book and caches; keeps .venv and executed notebooks, which cost hours
	rm -rf book/_build .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

# The stamp is written last, so an interrupted installation is taken up again.
$(VENV)/.installed-%: pyproject.toml $(CONSTRAINTS)
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "ssgn needs Python 3.11 or newer, and '$(PYTHON)' is not:" \
	       "make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -e ".[$*]" $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
	@touch $@
