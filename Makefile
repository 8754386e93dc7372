# make demo: a preference dataset from 100 texts, on this machine, with no key and no GPU.   make test: everything checked.
PYTHON ?= $(or $(shell command -v python3.11),python3)
DEMO := .venv
DEV := .venv-dev
SITE := .venv-site
TORCH := torch==2.13.0

.PHONY: help demo test lint types check adapters reference docs clean

help:  ## Say what there is.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(DEMO)/.installed  ## Build a preference dataset with the embedded model (sets up .venv; 2 to 3 minutes after the downloads, 8 on x86 without AVX-512 VNNI).
	$(DEMO)/bin/safer-instruct models pull
	$(DEMO)/bin/safer-instruct run examples/civility.yaml --out runs/civility

test: $(DEV)/.installed  ## Run all tests (sets up .venv-dev with torch).
	$(DEV)/bin/safer-instruct models pull
	$(DEV)/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(DEV)/.installed  ## ruff, code and format.
	$(DEV)/bin/ruff check
	$(DEV)/bin/ruff format --check

types: $(DEV)/.installed  ## mypy --strict.
	$(DEV)/bin/mypy

check: lint types test  ## All three.

adapters: $(DEV)/.installed  ## Rebuild the adapters that ship with the package (about two hours on 2 cores).
	$(DEV)/bin/safer-instruct tune examples/tune-embedded.yaml --fresh
	rm -f src/safer_instruct/adapters/civility-*/*  # with them they would be finished already, and --fresh would leave the old ones in the package
	$(DEV)/bin/safer-instruct tune examples/tune-embedded-2.yaml
	$(DEV)/bin/safer-instruct tune examples/tune-expert.yaml
	$(DEV)/bin/python bench/refusal_reader.py src/safer_instruct/adapters/refusal-reader

reference: $(DEV)/.installed  ## Write docs/reference and the picture of the rooms from the code.
	$(DEV)/bin/python tools/reference

docs: $(SITE)/.installed  ## Build the documentation site into site/ (sets up .venv-site); a broken link is an error.
	$(SITE)/bin/sphinx-build --nitpicky --fail-on-warning --keep-going --fresh-env --quiet -c docs . site

clean:  ## Remove the environments and the site; run directories and the model cache stay.
	rm -rf $(DEMO) $(DEV) $(SITE) site

$(DEMO)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/pip install --quiet --no-compile --disable-pip-version-check -e '.[local]'  # bytecode that is never run is 50 MB
	touch $@

# torch first: its CPU build by an exact version, where a find-links folder or an index offers one
$(DEV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/pip install --quiet --upgrade pip
	$(DEV)/bin/pip install --quiet $(TORCH)
	$(DEV)/bin/pip install --quiet -e '.[train,embed,calibrate,review,storage,web]' --group dev
	touch $@

$(SITE)/.installed: pyproject.toml
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/pip install --quiet --upgrade pip
	$(SITE)/bin/pip install --quiet --group site
	touch $@
