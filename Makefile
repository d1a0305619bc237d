# The daily verbs. Each creates .venv and installs what it needs, once; continuous integration runs `make test`.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Modules are compiled when they are first imported: compiling all of torch and the rest takes minutes on a slow machine.
INSTALL := $(PIP) install --no-compile --constraint constraints.txt --editable
# How many times their usual length the tests of `make proof` run for, and for how long `make fuzz` looks and asks.
PROOF ?= 50
FUZZ_SECONDS ?= 60
ASK ?= 300
# How many schedules of faults `make chaos` plays, and for how many minutes `make soak` runs.
SEEDS ?= 100
MINUTES ?= 30
# More arguments for a verb, e.g. make test ARGS='-k job'.
ARGS   ?=
# The container engine and the image's name. BASE_IMAGE, BUILD_IMAGE, TORCH_INDEX, EXTRAS and SOURCE, where they are
# given, become arguments of the build (services/Dockerfile); IMAGE_ARGS is more of its command line.
DOCKER ?= docker
IMAGE  ?= concord:dev
IMAGE_ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo figure1 figure2 paper test check lint type arch audit proof fuzz chaos soak e2e bench loadtest
.PHONY: peers serving-peers test-kserve swaps image test-containers clean
.PHONY: kind-up kind-demo kind-down chart-docs rendered dashboards
.PHONY: screenshots docs error-docs metric-docs alert-docs pictures

help:  ## List the verbs.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/demo.stamp  ## Create .venv with the `concord` command in it.

demo: $(VENV)/demo.stamp  ## Eight sites learn the digits together: ECL against gossip, local and pooled training.
	$(BIN)/concord demo $(ARGS)

figure1: $(VENV)/figures.stamp  ## CIFAR-10 at eight sites: error against rounds; longer with ARGS='--size full'.
	$(BIN)/concord figure 1 $(ARGS)

figure2: $(VENV)/figures.stamp  ## Chest X-rays at eight hospitals.
	$(BIN)/concord figure 2 $(ARGS)

paper: $(VENV)/figures.stamp  ## Fashion-MNIST as in the paper of ECL-ISVR, beside its published ends.
	$(BIN)/concord figure paper $(ARGS)

test: check $(VENV)/dev.stamp  ## Run lint, type, arch and all tests.
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(ARGS)

check: lint type arch

lint: $(VENV)/dev.stamp  ## Look for mistakes and odd formatting (ruff).
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/dev.stamp  ## Check the types (mypy, strict).
	$(BIN)/mypy

arch: $(VENV)/dev.stamp  ## Check who imports whom (import-linter).
	$(BIN)/lint-imports

# MkDocs' theme announces its successor at every build; docs/decisions/0012-documentation-site.md says what we think of it.
docs: $(VENV)/dev.stamp  ## Build the documentation site into out/docs; a link that leads nowhere is an error.
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "out/docs/index.html; with search: $(BIN)/python -m http.server --directory out/docs"

error-docs: $(VENV)/dev.stamp  ## Make docs/errors.md anew.
	$(BIN)/python -m tools.error_docs

metric-docs: $(VENV)/dev.stamp  ## Make docs/metrics.md anew.
	$(BIN)/python -m tools.metric_docs

alert-docs: $(VENV)/dev.stamp  ## Make the table of alerts in docs/monitoring.md anew.
	$(BIN)/python -m tools.alert_docs

pictures: $(VENV)/dev.stamp  ## Draw the pictures of docs/idea.md anew.
	$(BIN)/python -m tools.site.pictures

audit: $(VENV)/dev.stamp  ## Ask an advisory service about the packages we build with; exit 3 inside if it cannot be asked.
	$(BIN)/python -m tools.audit $(ARGS)

e2e: $(VENV)/dev.stamp  ## Test in the Kubernetes cluster that KUBECONFIG names, in a namespace of its own.
	@test -n "$$KUBECONFIG" || { echo "set KUBECONFIG to the cluster to test in"; exit 1; }
	CONCORD_E2E=1 $(BIN)/python -m pytest tests/e2e $(ARGS)

proof: $(VENV)/dev.stamp  ## The tests of docs/guarantees.md at fifty times the length: a million changed updates.
	CONCORD_PROOF=$(PROOF) $(BIN)/python -m pytest tests/proof --timeout 3600 $(ARGS)

fuzz: $(VENV)/dev.stamp  ## Look for bytes that the codec mistakes, for FUZZ_SECONDS (60), then ask each route ASK (300) times.
	$(INSTALL) '.[fuzz]'
	PYTHONPATH=services $(BIN)/python tests/fuzz/fuzz_codec.py -max_total_time=$(FUZZ_SECONDS) $(ARGS)
	CONCORD_ASK=$(ASK) $(BIN)/python -m pytest tests/integration/test_described_answers.py --timeout 3600

loadtest: $(VENV)/loadtest.stamp  ## Load on a site started here, by people and neighbours; longer with ARGS=steady, spike or soak.
	$(BIN)/python -m loadtest $(ARGS)

chaos: $(VENV)/dev.stamp  ## Play SEEDS (100) schedules of faults on real sites; goes on where out/chaos.jsonl ends.
	PYTHONPATH=tests $(BIN)/python -m chaos --seeds $(SEEDS) $(ARGS)

soak: $(VENV)/dev.stamp  ## Eight sites at full traffic under faults for MINUTES (30): does anything grow?
	PYTHONPATH=tests $(BIN)/python -m soak --minutes $(MINUTES) $(ARGS)

bench: $(VENV)/dev.stamp  ## Measure, print medians with the machine's load, and write out/bench.json.
	$(BIN)/python -m benchmarks $(ARGS)

swaps: $(VENV)/dev.stamp  ## Measure latency under load while the model is replaced 200 times, against without (5 minutes).
	$(BIN)/python -m benchmarks.swaps $(ARGS)

peers: $(VENV)/dev.stamp  ## The same work in Flower and here, in turn; installs both into out/peers (2.8 GB).
	$(BIN)/python -m benchmarks.peers $(ARGS)

serving-peers: $(VENV)/dev.stamp  ## Predictions by KServe, FastAPI, BentoML and here, in turn, for ten minutes; installs 4 GB.
	$(BIN)/python -m benchmarks.serving $(ARGS)

test-kserve: $(VENV)/dev.stamp  ## KServe's client against a server of ours; installs it into out/serving-peers (1.3 GB).
	$(BIN)/python -m pytest tests/foreign_client --timeout 900 $(ARGS)

# helm as it is installed, or else fetched once into out/tools.
HELM ?= $(shell $(PYTHON) -m tools.get_helm)
KIND ?= kind
KUBECTL ?= kubectl
NAMESPACE := concord

kind-up:  ## Create a cluster of four nodes on this machine; needs Docker and kind.
	$(KIND) create cluster --config k8s/kind/cluster.yaml --wait 3m

kind-demo: image  ## Install eight sites in it, wait until they are ready, and test them.
	$(KIND) load docker-image concord:dev --name concord
	$(KUBECTL) apply -k k8s/overlays/kind
	$(HELM) upgrade --install concord helm/concord --namespace $(NAMESPACE) \
	  --values k8s/overlays/kind/values.yaml --wait --timeout 10m $(ARGS)
	$(HELM) test concord --namespace $(NAMESPACE) --logs

kind-down:  ## Remove it.
	$(KIND) delete cluster --name concord

chart-docs: $(VENV)/dev.stamp  ## Make the table of values in helm/concord/README.md anew.
	$(BIN)/python -m tools.chart_docs

rendered: $(VENV)/dev.stamp  ## Make the manifests in k8s/rendered and the rules in k8s/prometheus anew.
	$(BIN)/python -m tools.render_manifests

dashboards: $(VENV)/dev.stamp  ## Make the dashboards in helm/concord/dashboards anew.
	$(BIN)/python -m tools.dashboards $(ARGS)

screenshots: $(VENV)/dev.stamp  ## Take the pictures of the console in docs/images anew.
	$(BIN)/python -m tools.screenshots

BUILD_ARGS := VERSION BASE_IMAGE BUILD_IMAGE TORCH_INDEX EXTRAS SOURCE REVISION
image: VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
image: REVISION := $(shell git rev-parse HEAD 2>/dev/null)
image:  ## Build the container image concord:dev, by its version too; docs/image.md tells of CUDA, mirrors and CAs.
	$(DOCKER) build --file services/Dockerfile --tag $(IMAGE) $(if $(filter concord:dev,$(IMAGE)),--tag concord:$(VERSION)) $(IMAGE_ARGS) \
	  $(foreach name,$(BUILD_ARGS),$(if $(filter undefined,$(origin $(name))),,--build-arg $(name)='$($(name))')) .

test-containers: $(VENV)/dev.stamp  ## Build the image and run eight sites in containers; needs a container engine.
	DOCKER='$(DOCKER)' IMAGE='$(IMAGE)' $(BIN)/python -m pytest tests/containers $(ARGS)

clean:  ## Remove everything that the other verbs made, .venv included.
	rm -rf $(VENV) out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name '*.egg-info' -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is not. Say which one, e.g. make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) '.[demo]'
	@touch $@

$(VENV)/figures.stamp: $(VENV)/demo.stamp
	$(INSTALL) '.[demo,datasets]'
	@touch $@

$(VENV)/loadtest.stamp: $(VENV)/dev.stamp
	$(INSTALL) '.[demo,loadtest]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/demo.stamp
	$(INSTALL) '.[demo,datasets,cluster,docs,dev]'
	@touch $@
