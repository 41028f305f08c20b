# 'make' lists what there is. Every target makes what it needs from the pinned versions in requirements/.

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint format engines bench docs lock clean

# Any Python from 3.11 on that can make virtual environments; 'make PYTHON=/path/to/python' chooses another.
PYTHON ?= $(shell scripts/find-python)
CORPUS ?=
TESTS  ?=
# All tests are shared by as many processes as there are cores, up to four: each has threads of its own too.
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist worksteal --durations 10

# A virtual environment is made again when its lock, the project's own data or its place changes.
key  = $(shell { pwd; cat requirements/$(1).lock pyproject.toml; } | sha256sum | cut -c 1-16)
RUN := .venv-run/made-$(call key,run)
DEV := .venv-dev/made-$(call key,dev)

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{ printf "make %-9s %s\n", $$1, $$2 }'

demo: $(RUN)  ## the whole tour on this machine, without network, in some seconds
	.venv-run/bin/blocklist demo

test: $(DEV)  ## every test but the long runs; TESTS=tests/test_rpz.py for some
	.venv-dev/bin/python -m pytest -m "not slow" $(or $(TESTS),$(SIDE_BY_SIDE))

test-slow: $(DEV)  ## the long runs: hundreds of kills, ten million fuzzed lines
	.venv-dev/bin/python -m pytest -m slow

lint: $(DEV)  ## style, formatting, types
	.venv-dev/bin/ruff check .
	.venv-dev/bin/ruff format --check .
	.venv-dev/bin/mypy

format: $(DEV)  ## let ruff arrange the code
	.venv-dev/bin/ruff check --fix .
	.venv-dev/bin/ruff format .

engines:  ## install the resolvers, firewalls and proxies that the tests use (Debian, root or sudo)
	scripts/install-engines

bench: $(RUN)  ## measure against the targets; CORPUS=FOLDER for real lists
	.venv-run/bin/python -m bench $(if $(CORPUS),--corpus $(CORPUS))

docs: $(RUN) $(DEV)  ## write docs/feeds.md from feeds/*.toml; conformance.md, precedence.md from the tables of the tests
	.venv-run/bin/python scripts/feeds_page.py > docs/feeds.md.new
	mv docs/feeds.md.new docs/feeds.md
	cd tests && ../.venv-dev/bin/python -m engines.page && ../.venv-dev/bin/python -m precedence

lock:  ## choose the newest versions and pin them (needs the package index)
	scripts/lock $(PYTHON)

clean:  ## remove the virtual environments and caches
	rm -rf .venv-run .venv-dev .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info

.venv-run/made-%:
	scripts/make-venv "$(PYTHON)" .venv-run requirements/run.lock $@

.venv-dev/made-%:
	scripts/make-venv "$(PYTHON)" .venv-dev requirements/dev.lock $@
