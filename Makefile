# One command each. The environment is made from requirements.lock, once; the second time is instant.

VENV    := .venv
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
# PYTHON=python3.12 chooses one of Python 3.9 to 3.13. Else tools/environment.py finds one, or fetches it.
PYTHON  ?=
# A folder of `make classroom`: install from it, without a network.
OFFLINE ?= $(wildcard classroom)

.DEFAULT_GOAL := help
.PHONY: help demo test lab notebooks book student slides sheet assignments bench lint lock classroom clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(READY)  ## train LeNet without batch norm, with ours, with Gluon's: table, picture, JSON
	$(BIN)/gluon-bn demo

test: $(READY)  ## run the tests
	$(BIN)/python -m pytest -n auto --dist worksteal

# MALLOC_ARENA_MAX: gluon_bn/runtime.py says why.
lab: $(READY)  ## JupyterLab, opened on the chapters
	MALLOC_ARENA_MAX=1 $(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/chapters

notebooks: $(READY)  ## execute the chapters whose text changed; CHAPTERS="01_name ..." for these only
	$(BIN)/python docs/book/notebooks.py $(CHAPTERS)

book: $(READY)  ## the chapters as a web site that needs no network, in site/
	$(BIN)/python docs/book/website.py site

student: $(READY)  ## the chapters to hand out, in student/: no outputs, gaps for the exercises
	$(BIN)/python docs/book/student_edition.py student

slides: $(READY)  ## the chapters as slides, in slides/; they need no network either
	$(BIN)/python docs/book/slides.py slides

sheet: $(READY)  ## the formulas on one page, in sheet/: HTML and, where there is a Chromium, PDF
	$(BIN)/python docs/book/sheet.py sheet

assignments: $(READY)  ## a course folder for nbgrader, in course/: an opening and six chapters, to hand out and grade
	$(BIN)/python assignments/make_course.py course

bench: $(READY)  ## measure the speed tables of the README again
	$(BIN)/gluon-bn bench

lint: $(READY)  ## ruff and mypy: mistakes, style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One lock for Python 3.9 to 3.13 on Linux x86-64, Linux aarch64 and macOS x86-64.
lock:  ## write requirements.lock again (needs uv: pip install uv)
	printf 'mxnet==1.9.1\nd2l==1.0.3\n' | uv pip compile --quiet --universal --python-version 3.9 \
	  --only-binary :all: --extra course --extra book --extra dev --extra workers --extra classroom \
	  --custom-compile-command "make lock" --output-file requirements.lock pyproject.toml -

classroom: $(READY)  ## FOLDER=...: the course, the wheels and the data for machines without a network
	$(BIN)/python tools/classroom.py "$(FOLDER)" --platforms $(PLATFORMS) --pythons $(PYTHONS)

PLATFORMS ?= linux-x86_64
PYTHONS   ?= 3.11 3.12 3.13

clean:  ## remove the environment, a fetched Python, the site, student's edition, slides and sheet
	rm -rf $(VENV) .python site student slides sheet  # never course/: it holds what students have handed in

$(READY): requirements.lock pyproject.toml compat/mxnet_compat.py
	@for python in "$(PYTHON)" python3 python $$HOME/.pyenv/versions/3.*/bin/python; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 6))' >/dev/null 2>&1; then \
	    exec "$$python" tools/environment.py $(VENV) --python "$(PYTHON)" --offline "$(OFFLINE)"; \
	  fi; \
	done; echo "No Python 3 was found. Install one, such as: apt-get install python3 python3-venv" >&2; exit 1
	@touch $@
