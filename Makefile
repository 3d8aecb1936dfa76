# `make help` lists the targets. Each is a thin call; uv is installed into .tools/ where there is none.
.DEFAULT_GOAL := help
.PHONY: help setup environment engine demo test check serve bench clean

# Another environment that is active, and a wish for no byte code, are the caller's; neither is for this project's.
unexport VIRTUAL_ENV PYTHONDONTWRITEBYTECODE

uv = uv=$$(sh tools/install-uv.sh) && "$$uv"
run = $(uv) run --no-sync

help: ## This list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 12

environment:
	@$(uv) sync --locked --quiet

engine: environment
	@$(run) python -m asgard.platform.engine_install

setup: engine ## Everything that the rest needs: the environment, a Pulumi CLI, and for root on Debian a Kubernetes
	@$(run) python -m tests.cluster prepare

demo: engine ## Deploys examples/quickstart/train.py through a running API and predicts with it; TARGET=kubernetes
	@$(run) python tools/demo.py $(if $(TARGET),--target $(TARGET))

test: setup ## All tests
	@$(run) pytest --numprocesses 3 --dist loadgroup --no-loadscope-reorder

check: environment ## Linter, formatter, types, layers
	@$(run) ruff check
	@$(run) ruff format --check
	@$(run) mypy -p asgard -p tests
	@$(run) mypy tools bench
	@$(run) lint-imports

serve: engine ## The API on 127.0.0.1:8000
	@$(run) asgard serve

bench: engine ## Deploys, numbers of models, and the model server beside its peers; needs wrk
	@$(run) python bench/deploy.py --publish
	@$(run) python bench/scale.py --publish
	@$(run) python bench/serving.py --publish
	@$(run) python bench/overload.py --publish

clean: ## Removes what these targets made in this folder
	rm -rf .venv .tools .demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
