# The same commands at home and in CI. `make demo` in a fresh clone is all that a newcomer needs.
# Another interpreter: `make PYTHON=python3.12 test`. To start afresh: `make clean`, and remove .venv.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help setup demo test check bench dist clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    set up .venv and run the demo"
	@echo "make test    set up .venv and run the tests"
	@echo "make check   formatting, lint and types"
	@echo "make bench   the benchmarks, whose tables are in benchmarks/results/; DATA=DIR for those on real dumps"
	@echo "make dist    wheel and sdist in dist/"
	@echo "make clean   remove what was built, but not .venv"

setup: .venv/.ready

# A stamp, since the folder's own time says nothing. torch goes first, by its pin: asked for as a range it may bring
# gigabytes of CUDA packages. Without build isolation the pinned setuptools builds, not the newest of the day.
# Compiling 21,000 files takes pip two minutes, one by one; compileall takes all cores. (Not at import: POT has a line that
# Python warns of when it compiles it, and tests turn warnings into errors.) Some files are templates, and do not compile.
# The stamp does not count when the interpreter is gone that .venv was made with.
ifneq ($(shell test -x $(BIN)/python && echo yes),yes)
.PHONY: .venv/.ready
endif
.venv/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv --clear .venv
	$(PIP) install --quiet --quiet --constraint constraints.txt --upgrade pip setuptools
	$(PIP) install --quiet --quiet --constraint constraints.txt --no-compile torch
	$(PIP) install --quiet --quiet --constraint constraints.txt --no-compile --no-build-isolation \
		--editable '.[dev]'
	-$(BIN)/python -W ignore -m compileall -qq -j 0 .venv/lib
	touch $@

demo: .venv/.ready
	$(BIN)/suture demo

# A process a core and one more, since some tests wait for disks; each with one thread: tests are many and small. Each takes
# its share of them in order, as a file's tests share what they fitted, and then what another has not done.
PROCESSES ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
test: .venv/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist worksteal

# mypy reads an installed copy, because the checkout's folder need not be called suture. `build` goes first: a stale
# build/lib ships modules that were deleted long ago.
check: .venv/.ready
	rm -rf build
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(PIP) install --quiet --quiet --no-deps --no-build-isolation --target build/typed .
	MYPYPATH=build/typed $(BIN)/mypy -p suture

bench: .venv/.ready
	$(BIN)/python benchmarks/run.py $(if $(DATA),--data $(DATA))

# The wheel is built from the sdist, so both are whole or neither is.
dist: .venv/.ready
	rm -rf build dist suture.egg-info
	$(BIN)/python -m build --no-isolation --quiet .

clean:
	rm -rf build dist suture.egg-info .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
