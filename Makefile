# `make demo` and `make test` each set up what they need on a fresh machine: Python 3.10 to 3.13 with venv, no more.
PYTHON ?= python3
VENV ?= .venv
RUNS ?= runs
OUT ?= report
PYTEST_ARGS ?=
BIN = $(VENV)/bin

SOURCES = pyproject.toml CMakeLists.txt $(shell find graphattn datasets experiments -name '*.py' -o -name '*.toml' -o -name '*.cpp' -o -name '*.h')

.PHONY: help demo test lint install sanitize gpu scatter lock clean

help:
	@echo "make demo     set up, then train MLP, GCN and GAT on handwritten digits (10 seeds each), tables and pictures"
	@echo "make test     set up, then run all tests (GRAPHATTN_DATA=FOLDER adds those on real data)"
	@echo "make lint     ruff and mypy"
	@echo "make sanitize the kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer (gcc)"
	@echo "make gpu      on a machine with a GPU, with the Python there: its tests, then what bench measures there"
	@echo "make scatter  build torch-scatter for the 'scatter' back end (needs a C++ compiler; about 5 minutes)"
	@echo "make lock     resolve requirements.lock anew"
	@echo "make clean    remove the environment and caches"

$(VENV)/.locked: requirements.lock
	@echo "== making the environment $(VENV) from requirements.lock"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@touch $@

$(VENV)/.installed: $(VENV)/.locked $(SOURCES)
	@echo "== installing graphattn into $(VENV)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall .
	@touch $@

install: $(VENV)/.installed

demo: install
	@echo "== MLP, GCN and GAT on scikit-learn's handwritten digits as a graph, 10 seeds each: no network, no data"
	$(BIN)/graphattn run digits/mlp --runs $(RUNS)
	$(BIN)/graphattn run digits/gcn --runs $(RUNS)
	$(BIN)/graphattn run digits/gat --runs $(RUNS)
	$(BIN)/graphattn report digits/mlp digits/gcn digits/gat --runs $(RUNS) --out $(OUT)
	@echo "== pictures and the page report.html are in $(OUT)"

test: install
	@echo "== all tests; those that need data skip unless GRAPHATTN_DATA names a folder with it"
	$(BIN)/pytest $(PYTEST_ARGS)

lint: $(VENV)/.locked
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A copy of the package whose kernels check every access; -x stops at the first finding. Not `python -m pytest`, which
# would put the working directory, and so the package without these kernels, first; and not the test that measures
# memory, of which the sanitizers take their own.
SANITIZED = build/sanitized
sanitize: $(VENV)/.locked
	$(BIN)/cmake -S . -B $(SANITIZED)/build -G Ninja -DGRAPHATTN_SANITIZE=address,undefined \
		-DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DPython_EXECUTABLE=$(abspath $(BIN))/python > /dev/null
	$(BIN)/cmake --build $(SANITIZED)/build
	cp -r graphattn $(SANITIZED)/
	cp $(SANITIZED)/build/_cpu*.so $(SANITIZED)/graphattn/
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=$(abspath $(SANITIZED)) \
		$(BIN)/pytest -x -p no:cacheprovider -k 'not gpu and not no_array_of_edges' \
		$(SANITIZE_ARGS) tests/ops tests/grid tests/test_graph.py tests/data/test_neighbor_loader.py

# From the source tree, with whatever torch that machine has: the kernels for GPUs need no compiler. Those for CPUs may be
# missing, and what is compared with the CPU is slow then.
gpu:
	$(PYTHON) -m pytest -q -m gpu -p no:benchmark -W 'ignore:graphattn has no compiled kernels'
	$(PYTHON) -m graphattn bench layers --device cuda --out experiments/bench/layers.csv
	$(PYTHON) -m graphattn bench gpu --device cuda --out experiments/bench/gpu.csv
	$(PYTHON) -m graphattn bench ops --device cuda --out experiments/bench/ops.csv
	$(PYTHON) -m graphattn report

scatter: $(VENV)/.locked
	$(BIN)/python -m pip install --quiet --disable-pip-version-check setuptools wheel
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation torch-scatter==2.1.2

# torch's own CUDA packages are left to torch, so that a CPU build of torch installs without them.
lock: $(VENV)/.locked
	$(BIN)/python -m pip install --quiet uv
	echo "torch==2.13.0" > $(VENV)/constraints.txt
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.10 --constraints $(VENV)/constraints.txt \
		--no-header --no-annotate --no-emit-index-url --quiet --output-file $(VENV)/resolved.txt
	(echo "# Written by 'make lock' for Python 3.10 to 3.13."; grep -vE '^(nvidia|cuda)' $(VENV)/resolved.txt) > requirements.lock

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
