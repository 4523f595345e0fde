# The commands of a working day. `./corral` sets the environment up and does the work.

PYTHON := .venv/bin/python
COMPILE := .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
NODE := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["node"])

.DEFAULT_GOAL := help
.PHONY: help check test bench up lock pictures ready

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

check: ready ## Lint, format, types and import rules, without the tests
	$(PYTHON) -m ruff check . corral
	$(PYTHON) -m ruff format --check . corral
	$(PYTHON) -m mypy
	$(PYTHON) .venv/bin/lint-imports

test: ## Every check and test, from nothing (ARGS="--long" adds the soak and chaos runs)
	./corral test $(ARGS)

bench: ready ## The benchmarks
	$(PYTHON) -m bench $(ARGS)

up: ## Start the control plane on 127.0.0.1:8000
	./corral up $(ARGS)

lock: ready ## Write the lock files anew from pyproject.toml (ARGS="--upgrade" moves every version)
	$(COMPILE) $(ARGS) --extra embedded --extra otel --extra web --extra bootstrap -o requirements.txt pyproject.toml
	$(COMPILE) $(ARGS) --extra embedded --extra otel --extra web --extra bootstrap --extra test -c requirements.txt -o requirements-test.txt pyproject.toml
	$(PYTHON) -c '$(NODE)' | $(COMPILE) $(ARGS) -o requirements-node.txt -

pictures: ready ## The README's pictures of the dashboard, from a real run with servers from the registries
	$(PYTHON) -m tests.tui.pictures

ready:
	@./corral test --help >/dev/null
