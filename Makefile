# `make` alone lists what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# Compiling what torch and diffusers import costs more than importing it: 10 s in every process.
unexport PYTHONDONTWRITEBYTECODE
export DIFFUSION_OPERATOR_CACHE ?= $(HOME)/.cache/diffusion-operator
UV := $(shell command -v uv 2>/dev/null || echo $(DIFFUSION_OPERATOR_CACHE)/uv/bin/uv)
# Our own programs look for uv there too.
export PATH := $(patsubst %/,%,$(dir $(UV))):$(PATH)
SLOWEST := --durations=10 --durations-min=1
RUN := $(UV) run --frozen --no-sync
EXTRAS := --extra operator --extra builder --extra serving --extra client --extra gateway --extra c2pa
DEVCLUSTER := $(RUN) python -m tools.devcluster
CHART_CRD := charts/diffusion-operator-crds/templates/diffusionpipelines.yaml
# A copy: a link would be a text file in a zip download and in a checkout on Windows.
OPERATOR_CRD := charts/diffusion-operator/files/diffusionpipelines.yaml

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(DIFFUSION_OPERATOR_CACHE)/uv/bin/uv:
	@# Debian keeps ensurepip, which a venv needs, in a package of its own.
	@python3 -c 'import ensurepip' 2>/dev/null || { apt-get update -qq && apt-get install -y -qq python3-venv; }
	@python3 -m venv --clear $(DIFFUSION_OPERATOR_CACHE)/uv
	@$(DIFFUSION_OPERATOR_CACHE)/uv/bin/pip install --quiet uv

.PHONY: venv
venv: $(UV) ## Create or update the Python environment from the lock
	@$(UV) sync --frozen --quiet $(EXTRAS)

.PHONY: demo
demo: venv ## From nothing to a picture on a real cluster (PROMPT=, SEED=, STEPS=)
	@$(RUN) python examples/demo.py

.PHONY: demo-canary
demo-canary: venv ## The demo, then a canary that is promoted and one that is refused, under load
	@$(RUN) python examples/demo_canary.py

.PHONY: test
test: check docs unit built ## Everything CI runs; each suite prints its ten slowest tests
	@# The cluster's tests wait for much of their time, in which the others have the processors.
	@$(RUN) python -m tests.support.suites \
		"cluster=$(MAKE) --no-print-directory test-cluster" "component=$(MAKE) --no-print-directory test-component"

.PHONY: unit
unit: venv ## Unit tests (about 200 s of processor time, spread over all cores)
	@$(RUN) pytest tests/unit --numprocesses auto $(SLOWEST)

.PHONY: test-component
test-component: venv ## Real export, real Triton, parity with diffusers
	@$(RUN) pytest tests/component -m "not long" --numprocesses 2 --dist loadfile $(SLOWEST)

.PHONY: test-long
test-long: venv ## Full-size compilation, thousands of requests, many images (minutes; not part of test)
	@$(RUN) pytest tests/component -m long --numprocesses 2 --dist loadfile $(SLOWEST)

.PHONY: test-conformance
test-conformance: venv ## TensorRT takes every component of every test checkpoint (minutes; not part of test)
	@CONFORMANCE=everything $(RUN) pytest tests/component/test_checkpoints.py tests/component/test_tensorrt_conformance.py \
		-k tensorrt --numprocesses 2 --dist loadfile

# What a cluster needs; `demo-hub` is the model hub of examples/pipeline.yaml.
IMAGES ?= operator builder triton gateway
PUSH_OPTIONS = $(if $(VALUES),--values $(VALUES)) $(if $(TAG),--tag $(TAG)) $(if $(CA),--ca-file $(CA)) $(if $(PLAIN_HTTP),--plain-http) \
	$(if $(ROOT_IMAGE),--root-image $(ROOT_IMAGE)) $(if $(PULL_SECRET),--pull-secret $(PULL_SECRET))
.PHONY: images
images: $(if $(REGISTRY),venv) ## Build the images and push them: REGISTRY=HOST[:PORT][/PATH] (IMAGES=, VALUES=, TAG=, CA=, …)
	@$(if $(REGISTRY),,echo "REGISTRY is not set: make images REGISTRY=registry.example.com/project" >&2; exit 64)
	@$(RUN) python -m tools.images push $(REGISTRY) $(IMAGES) $(PUSH_OPTIONS)

.PHONY: built
built: venv
	@$(DEVCLUSTER) build
	@$(RUN) python -m tools.images build --result $(DIFFUSION_OPERATOR_CACHE)/images.json

.PHONY: test-cluster
test-cluster: built ## The operator on the real embedded cluster
	@$(RUN) pytest tests/cluster --numprocesses 2 $(SLOWEST)

# The quick start installs the operator by itself, so it comes first.
INTEGRATIONS ?= quickstart gitops dashboards alerts metrics_adapter gateway images_api openai_node autoscaling tensorrt
.PHONY: test-integrations
test-integrations: built ## The quick start, and other people's programs: Argo CD's engine, Prometheus, Envoy Gateway, KEDA, Node.js, TensorRT (INTEGRATIONS=)
	@$(RUN) python -m tests.support.integrations.programs $(INTEGRATIONS)
	@$(RUN) pytest $(INTEGRATIONS:%=tests/integrations/test_%.py)

CHAOS ?=
.PHONY: test-chaos
test-chaos: venv ## Faults on purpose on a real API server: writes out/chaos.json and docs/reliability.md (CHAOS="areas and options")
	@$(DEVCLUSTER) build
	@$(RUN) python -m tests.support.chaos --minutes 30 --write $(CHAOS)

HOURS ?= 1
.PHONY: soak
soak: venv ## The same for HOURS hours, with more plans, and outages of ten minutes
	@$(DEVCLUSTER) build
	@$(RUN) python -m tests.support.chaos --soak --scale 4 --minutes $$(( $(HOURS) * 60 )) --write $(CHAOS)

.PHONY: check
check: venv ## ruff, mypy --strict, import layers, spelling, names, drift of generated files
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(RUN) lint-imports
	@$(RUN) codespell
	@$(RUN) python -m tools.names
	@$(RUN) diffusion-operator crd --check crds/diffusionpipelines.yaml
	@$(RUN) diffusion-operator crd --chart --check $(CHART_CRD)
	@$(RUN) diffusion-operator crd --check $(OPERATOR_CRD)
	@$(RUN) diffusion-operator docs --check docs/api.md
	@$(RUN) python -m tools.charttools docs --check
	@$(RUN) python -m tools.charttools install --check
	@$(RUN) python -m tools.dashboards --check charts/diffusion-operator/dashboards

# In environments of their own: they are no part of the lock.
BANDIT := bandit==1.9.4
ZIZMOR := zizmor==1.32.0
PIP_AUDIT := pip-audit==2.10.1
CHECKOV := checkov==3.3.30

.PHONY: audit
audit: $(UV) ## Scan code, workflows and manifests: bandit, zizmor, checkov (kube-score looks at the charts in test-cluster)
	@$(UV) tool run --quiet --from $(BANDIT) bandit --quiet --configfile pyproject.toml --recursive contract operator builder gateway
	@$(UV) tool run --quiet --from $(ZIZMOR) zizmor --offline --no-progress --quiet .github/workflows
	@$(UV) tool run --quiet --from $(CHECKOV) checkov --config-file tools/checkov.yaml --file deploy/install.yaml

.PHONY: audit-dependencies
audit-dependencies: $(UV) ## Known vulnerabilities of the locked packages, by PyPI itself (a mirror does not have them)
	@mkdir -p out
	@$(UV) export --frozen --quiet --no-emit-project --no-default-groups --no-hashes $(EXTRAS) > out/requirements.txt
	@$(UV) tool run --quiet --from $(PIP_AUDIT) pip-audit --strict --no-deps --disable-pip --requirement out/requirements.txt

.PHONY: docs
docs: $(UV) ## Build the documentation site into site/
	@UV_PROJECT_ENVIRONMENT=$(DIFFUSION_OPERATOR_CACHE)/docs-venv NO_MKDOCS_2_WARNING=1 \
		$(UV) run --frozen --quiet --only-group docs mkdocs build --strict

.PHONY: crds
crds: venv ## Regenerate the CRD, its chart, docs/api.md and deploy/install.yaml from the API
	@$(RUN) diffusion-operator crd --write crds/diffusionpipelines.yaml
	@$(RUN) diffusion-operator crd --chart --write $(CHART_CRD)
	@$(RUN) diffusion-operator crd --write $(OPERATOR_CRD)
	@$(RUN) diffusion-operator docs --write docs/api.md
	@$(RUN) python -m tools.charttools install

.PHONY: charts
charts: venv ## Regenerate the table of values in docs/chart.md
	@$(RUN) python -m tools.charttools docs

.PHONY: dashboards
dashboards: venv ## Regenerate Grafana's dashboards in the chart
	@$(RUN) python -m tools.dashboards --write charts/diffusion-operator/dashboards

.PHONY: manifests
manifests: venv ## Regenerate deploy/ from the chart
	@$(DEVCLUSTER) build
	@$(RUN) python -m tools.charttools manifests

.PHONY: changelog
changelog: venv ## Show what the next release's notes will be
	@$(RUN) towncrier build --draft --version next 2>/dev/null

.PHONY: release-notes
release-notes: venv ## Move the fragments of changelog.d into CHANGELOG.md under the version in pyproject.toml
	@$(RUN) towncrier build --yes

.PHONY: release-dry-run
release-dry-run: $(UV) ## Build, package, sign with a local key and verify a release, without images; nothing is published
	@$(UV) run --frozen --isolated --no-default-groups --extra operator python -m tools.release dry-run

.PHONY: cluster-up
cluster-up: venv ## Start (or bring up to date) the embedded Kubernetes
	@$(DEVCLUSTER) up

.PHONY: cluster-down
cluster-down: venv ## Stop the embedded Kubernetes and leave nothing behind
	@$(DEVCLUSTER) down

.PHONY: clean
clean: ## Remove build products of this checkout (the cache stays)
	@rm -rf out dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
