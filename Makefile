# One command each. The environment is made from requirements.lock, once; the second time is instant.

VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# The first Python of 3.9 to 3.11 that really runs (a version manager's shim may not).
PYTHON ?= $(shell for p in python3.11 python3.10 python3.9 python3 python \
                  $$HOME/.pyenv/versions/3.11.*/bin/python $$HOME/.pyenv/versions/3.10.*/bin/python \
                  $$HOME/.pyenv/versions/3.9.*/bin/python; do \
            $$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))' \
              >/dev/null 2>&1 && { echo $$p; break; }; done)

.DEFAULT_GOAL := help
.PHONY: help demo test lab notebooks book bench lint lock clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(READY)  ## train LeNet without batch norm, with ours, with Gluon's: table, picture, JSON
	$(BIN)/gluon-bn demo

test: $(READY)  ## run the tests
	$(BIN)/python -m pytest

lab: $(READY)  ## JupyterLab, opened on the chapters
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/chapters

notebooks: $(READY)  ## execute the chapters whose text changed; CHAPTERS="01_name ..." for these only
	$(BIN)/python docs/book/notebooks.py $(CHAPTERS)

book: $(READY)  ## the chapters as a web site that needs no network, in site/
	$(BIN)/python docs/book/website.py site

bench: $(READY)  ## measure the speed tables of the README again
	$(BIN)/gluon-bn bench

lint: $(READY)  ## ruff
	$(BIN)/ruff check .

# One lock for Python 3.9 to 3.13 on Linux x86-64, Linux aarch64 and macOS x86-64.
lock:  ## write requirements.lock again (needs uv: pip install uv)
	printf 'mxnet==1.9.1\nd2l==1.0.3\n' | uv pip compile --quiet --universal --python-version 3.9 \
	  --only-binary :all: --extra course --extra book --extra dev \
	  --custom-compile-command "make lock" --output-file requirements.lock pyproject.toml -

clean:  ## remove the environment and the web site
	rm -rf $(VENV) site

$(READY): requirements.lock pyproject.toml
ifeq ($(PYTHON),)
	@echo "No Python 3.9, 3.10 or 3.11 was found (mxnet 1.9.1 needs one): install it from" \
	  "https://www.python.org/downloads/ or with 'conda env create -f environment.yml'." >&2
	@exit 1
endif
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  --no-build-isolation --editable .
	@touch $@
