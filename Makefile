# Two commands do it all: `make book` and `make test`. Another interpreter: `make book PYTHON=python3.12`.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
ONE := OMP_NUM_THREADS=1 # a thread for each of two processes: more get in each other's way

.PHONY: help book pdf epub slides test test-bridges test-graders matrix coverage mutation audit lab execute headline fair endurance bench source-model photographs clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1|/p' Makefile | awk -F'|' '{ printf "make %-14s %s\n", $$1, $$2 }'

book: $(READY) ## install, run the short experiment, build the pages into _build/html
	$(BIN)/tta-iqa demo
	$(BIN)/python book/tools.py build

pdf: $(READY) ## the whole book as one file, _build/book.pdf (needs a Chromium)
	$(BIN)/python book/tools.py pdf

epub: $(READY) ## the whole book for an e-reader, _build/book.epub
	$(BIN)/python book/tools.py epub

slides: $(READY) ## slides of each chapter, players alive in them, in _build/slides
	$(BIN)/python book/tools.py slides

test: $(READY) ## check the code, the notebooks and the built pages
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(ONE) $(BIN)/python -m pytest --ignore tests/site -n 2
	$(BIN)/python book/tools.py lint
	$(ONE) $(BIN)/python -m pytest --nbval book index.ipynb -n 2 --dist loadfile
	$(BIN)/python book/tools.py build
	$(BIN)/python -m pytest tests/site -rs

test-bridges: .venv-bridges/.ready ## check metrics of pyiqa and torchmetrics (pyiqa: no commercial use), and Ray
	$(ONE) .venv-bridges/bin/python -m pytest tests/bridges tests/apps/test_clusters.py

GRADERS := _build/graders
test-graders: $(READY) ## grade the assignments with nbgrader and otter-grader, too, in an environment of their own
	$(BIN)/python -m venv $(GRADERS)
	$(GRADERS)/bin/python -m pip install --quiet nbgrader otter-grader
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" > $$($(GRADERS)/bin/python -c "import site; print(site.getsitepackages()[0])")/book.pth
	PYTHONPATH=$(CURDIR) $(ONE) $(GRADERS)/bin/python tests/teaching/kit/bridges.py

matrix: $(READY) ## test the wheel and the sdist on each Python there is, with the newest packages and the oldest
	$(BIN)/python tests/matrix.py $(MATRIX)

coverage: $(READY) ## which lines and branches of the library no test runs; at least 95 % must be
	rm -rf _build/coverage
	$(ONE) $(BIN)/coverage run -m pytest --ignore tests/site -n 2
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

mutation: $(READY) ## put small faults into metrics and adaptation: do tests notice? (MUTATION="--sample 40" for minutes)
	$(BIN)/python tests/mutation.py $(MUTATION)

audit: ## look the packages of requirements.lock up among the known weaknesses
	$(PYTHON) -m venv _build/audit
	_build/audit/bin/python -m pip install --quiet pip-audit
	_build/audit/bin/pip-audit --requirement requirements.lock --no-deps --disable-pip

lab: $(READY) ## open the chapters in JupyterLab
	$(BIN)/jupyter lab index.ipynb

execute: $(READY) ## run the notebooks again and store their outputs
	$(BIN)/python book/tools.py execute

headline: $(READY) ## run the full experiment into data/results
	$(BIN)/tta-iqa experiment headline alpha ema ema-by-content one-sided steps savings

fair: $(READY) ## run the fair experiment of chapters 9 and 10 into data/results
	$(BIN)/tta-iqa experiment recipe fair levers loss-levers faults gc-off gate gate-one-sided \
		sizes-shuffled sizes-by-content sizes-shuffled-online sizes-by-content-online streams

endurance: $(READY) ## long streams in the six settings of the field, into data/results (minutes)
	$(BIN)/tta-iqa endurance

bench: $(READY) ## measure what adapting costs on this machine (DEVICE=cuda for a GPU)
	$(BIN)/tta-iqa bench --device $(or $(DEVICE),cpu)

source-model: $(READY) ## train the shipped source models (one after another)
	$(BIN)/tta-iqa train --seed 0 --seed 1 --seed 2

LIVE ?= LIVE-Challenge # the database's folder, or a table of its paths and opinions
photographs: $(READY) ## train the shipped model of human opinions: make photographs LIVE=FOLDER
	$(BIN)/tta-iqa train "$(strip $(LIVE))" --name "LIVE Challenge" --seed 0 --out data/models/photographs.safetensors

clean: ## remove what was built; .venv stays
	rm -rf _build _vendor build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

# The stamp is older than neither file, so a second run installs nothing.
$(READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c requirements.lock -e ".[book,test]"
	touch $@

# An environment of its own: its packages are no dependency. openai-clip, which pyiqa brings, needs an old setuptools.
.venv-bridges/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-bridges
	.venv-bridges/bin/python -m pip install -e ".[ray]" pytest nbval openpyxl pyiqa "torchmetrics[image,multimodal]"
	.venv-bridges/bin/python -m pip install "setuptools<70"
	touch $@
