# This file needs python3 (3.11 or newer) and make. Everything else goes into .venv.
PYTHON ?= python3
PIP_FLAGS ?=

# Settings of the service are environment variables. The targets share these.
export INFERCEPTION_MODEL_REPOSITORY ?= model_repository
export INFERCEPTION_DEFAULT_MODEL ?= xception
export INFERCEPTION_HOST ?= 127.0.0.1
export INFERCEPTION_PORT ?= 8000

bin := .venv/bin
pip := $(bin)/python -m pip install --disable-pip-version-check $(PIP_FLAGS)
photos := .cache/photos
family := .cache/family
manifests := $(INFERCEPTION_MODEL_REPOSITORY)/xception/1/manifest.json $(INFERCEPTION_MODEL_REPOSITORY)/inception_v4/1/manifest.json
# Tests of the configuration and of the page run these programs. Where the machine lacks them, the tests take Debian's.
debian := .venv/debian
programs := $(if $(and $(shell command -v promtool),$(shell command -v haproxy),$(shell command -v chromium)),,$(debian)/usr/bin/chromium)
# Biome checks the page's files. The version is part of the folder's name, so that another version is installed anew.
biome_version := 2.6.8
biome := .venv/biome-$(biome_version)/node_modules/.bin/biome

# Docker builds where it answers, else podman. Podman's own image format has no health checks, hence BUILDAH_FORMAT.
ENGINE = $(shell docker info >/dev/null 2>&1 && echo docker || echo podman)
BUILD_FLAGS ?=
version = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
build = BUILDAH_FORMAT=docker $(ENGINE) build --file docker/Dockerfile $(BUILD_FLAGS) \
	--build-arg VERSION=$(version) \
	--build-arg REVISION=$(shell git rev-parse HEAD)

.DEFAULT_GOAL := help
.PHONY: help setup gpu export serve test test-clients fuzz test-gpu test-gpu-wheel lint bench family load locust locust-smoke screenshots lock stubs sbom images test-container clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/dev ## install everything for development into .venv
	$(bin)/pre-commit install

gpu: .venv/gpu ## replace ONNX Runtime in .venv by the one for CUDA (2 GB)

export: $(manifests) ## export the models that model_repository lacks

serve: .venv/service $(manifests) ## install and export what is missing, then serve on http://127.0.0.1:8000
	@exec $(bin)/python -m service serve

test: lint $(manifests) $(programs) ## run what CI runs, but for test-clients
	$(bin)/python -m pytest -n 2 --dist loadfile

# What pytest reads from above tests/clients needs more than the clients' environment has. Each file has a process of its
# own, because no two copies of the protocol fit into protobuf's default pool.
test-clients: .venv/clients $(manifests) ## run clients of the Open Inference Protocol, each against a real server
	for file in tests/clients/test_*.py; do \
		.venv/clients/bin/python -m pytest -q -m clients --confcutdir=tests/clients $$file || exit 1; \
	done

fuzz: .venv/dev ## fuzz what reads clients' bytes (minutes)
	$(bin)/python -m pytest -m fuzz --hypothesis-profile=fuzz

test-gpu: .venv/gpu .cache/gpu/xception/1/manifest.json ## run the tests that need an NVIDIA GPU
	INFERCEPTION_MODEL_REPOSITORY=.cache/gpu $(bin)/python -m pytest -m gpu

test-gpu-wheel: .venv/gpu $(manifests) ## test ONNX Runtime for CUDA on a machine without a GPU
	$(bin)/python -m pytest -m gpu_wheel

lint: .venv/dev $(biome) ## check style, types and import rules
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(biome) ci service/http/page
	$(bin)/hadolint docker/Dockerfile
	$(bin)/mypy
	$(bin)/lint-imports

bench: .venv/export $(manifests) $(photos) ## measure models and service (10 minutes); reports go to reports/
	$(bin)/python -m bench rewrites
	$(bin)/python -m bench limits
	$(bin)/python -m bench service

family: .venv/export ## export every network and measure them beside Xception (8 minutes)
	for network in inception_v1 inception_v2 inception_v4 inception_resnet_v1 inception_resnet_v2 se_inception_v2; do \
		$(bin)/python -m export $$network --weights untrained --if-missing --out $(family) || exit 1; \
	done
	$(bin)/python -m export xception --weights kitchenware --precision int8 --if-missing --out $(family)
	$(bin)/python -m export inception_v3 --weights nsfwjs --precision int8 --if-agrees --if-missing --out $(family)
	INFERCEPTION_MODEL_REPOSITORY=$(family) $(bin)/python -m bench family

load: .venv/dev $(manifests) $(photos) ## measure the service under load (40 minutes); reports go to reports/load
	$(bin)/python -m bench load

locust: .venv/dev $(photos) ## open Locust's page on http://127.0.0.1:8089, for the service of make serve
	$(bin)/python -m locust -f bench/locust/locustfile.py,bench/locust/shapes.py --class-picker --web-host 127.0.0.1 \
		--host http://$(INFERCEPTION_HOST):$(INFERCEPTION_PORT) --photos $(photos)

locust-smoke: .venv/dev $(manifests) ## run Locust for ten seconds against a server of its own
	$(bin)/python -m pytest tests/bench/test_locust.py -k smoke

screenshots: .venv/dev $(manifests) $(programs) ## take the pictures of the page in docs/page
	$(bin)/python -m tests.page.screenshots

compile := ../$(bin)/uv pip compile --universal --generate-hashes --python-version 3.11 \
	--no-header --no-emit-index-url --upgrade --quiet

lock: .venv/dev ## lock the requirements of the service, the GPU and Locust
	cd requirements && $(compile) service.in --output-file service.txt
	cd requirements && $(compile) service-gpu.in --output-file service-gpu.txt \
		--constraints service.txt --no-emit-package onnxruntime --no-emit-package onnxruntime-ep-openvino
	cd requirements && $(compile) locust.in --output-file locust.txt --constraints dev.txt

# The stubs get a pool of names of their own. A process that imports tritonclient's copy of the protocol needs the default
# pool for that copy.
stubs: .venv/dev ## write the stubs of service/grpc/inference.proto
	$(bin)/python -m grpc_tools.protoc --proto_path=service/grpc --python_out=service/grpc inference.proto
	sed -i 's/_descriptor_pool.Default()/_descriptor_pool.DescriptorPool()/' service/grpc/inference_pb2.py

sbom: .venv/dev ## list what the images contain, as CycloneDX files in reports/
	mkdir -p reports
	for kind in service service-gpu locust; do \
		$(bin)/cyclonedx-py requirements requirements/$$kind.txt --output-file reports/sbom-$$kind.cdx.json || exit 1; \
	done

images: image-export image-service image-locust ## build the images for export, service and Locust, with docker or podman

image-%:
	$(build) --target $* --tag inferception-$* --tag inferception-$*:$(version) .

test-container: .venv/dev $(manifests) ## test the image inferception-service end to end
	INFERCEPTION_TEST_ENGINE="$(ENGINE)" INFERCEPTION_TEST_IMAGE=inferception-service \
		$(bin)/python -m pytest tests/docker tests/over_http tests/service/test_drain.py

clean: ## remove .venv, exported models and reports
	rm -rf .venv $(INFERCEPTION_MODEL_REPOSITORY) reports .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# Each stamp is as new as the requirements that it was made from.
.venv/service: requirements/service.txt
	@echo "== Installing what the server needs (a few seconds)"
	$(PYTHON) -m venv .venv
	$(pip) -r requirements/service.txt
	@touch $@

.venv/export: requirements/export.txt .venv/service
	@echo "== Installing what exporting needs, PyTorch above all (about a minute)"
	$(pip) -r requirements/export.txt
	@touch $@

.venv/dev: requirements/dev.txt requirements/reference.txt requirements/torchvision.txt .venv/export
	@echo "== Installing what tests and checks need"
	$(pip) -r requirements/dev.txt
	$(pip) --no-deps -r requirements/reference.txt
	$(pip) --no-deps --upgrade --target .venv/reference -r requirements/torchvision.txt
	@touch $@

.venv/clients: requirements/clients.txt .venv/service
	@echo "== Installing clients of the Open Inference Protocol"
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -r requirements/clients.txt
	@touch $@

# Both packages are onnxruntime to Python, and the files of the one installed last count. So one has to go first.
.venv/gpu: requirements/service-gpu.txt .venv/dev
	@echo "== Putting ONNX Runtime for CUDA in place of the one for CPUs (2 GB)"
	$(bin)/python -m pip uninstall --yes onnxruntime
	$(pip) -r requirements/service-gpu.txt
	@touch $@

.cache/gpu/xception/1/manifest.json: | .venv/export
	$(bin)/python -m export xception --weights kitchenware --precision fp16 --out .cache/gpu

$(photos): | .venv/export
	$(bin)/python -m export.photos $@

# The packages are unpacked and not installed. With package lists of its own, apt needs no root for that.
part := $(debian).part
apt = apt-get -qq -o Dir::State=$(abspath $(part)/apt) -o Dir::State::status=/var/lib/dpkg/status \
	-o Dir::Cache=$(abspath $(part)/apt) -o APT::Sandbox::User= -o Debug::NoLocking=1
$(debian)/usr/bin/chromium: | .venv/dev
	@echo "== Unpacking Prometheus, HAProxy and Chromium from Debian's packages"
	rm -rf $(part) && mkdir -p $(part)/apt/lists/partial $(part)/apt/archives/partial
	$(apt) update
	$(apt) install --download-only --reinstall --yes --no-install-recommends prometheus haproxy chromium
	for package in $(part)/apt/archives/*.deb; do dpkg -x $$package $(part); done
	rm -r $(part)/apt && rm -rf $(debian) && mv $(part) $(debian)

$(biome): | .venv/dev
	$(bin)/npm install --silent --no-save --prefix .venv/biome-$(biome_version) @biomejs/biome@$(biome_version)

# The export needs PyTorch, and serving does not. So .venv/export is an order-only prerequisite.
$(manifests) &: | .venv/export
	$(bin)/python -m export --out $(INFERCEPTION_MODEL_REPOSITORY)
