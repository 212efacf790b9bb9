# Two commands matter: `make run` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin

UPSTREAM ?= http://127.0.0.1:3003
PORT ?= 3004
HOST ?= 127.0.0.1
METRICS_PORT ?= 9464
TRITON_HTTP_PORT ?= 8000
TRITON_METRICS_PORT ?= 8002
MODELS ?= triton_models
OPTIONS ?=
WEB ?=
GPU ?=
WEB_PORT ?= 8081
SITE ?=
SITE_HOST ?= 127.0.0.1
SITE_PORT ?= 2284
SITE_METRICS_PORT ?= 9465
SITE_OPTIONS ?=
MT_PHOTOS ?=
MT_PHOTOS_KEY ?=
IMMICH ?=
# Where this machine reaches the gateway that make run started.
URL ?= http://$(if $(filter 0.0.0.0 ::,$(HOST)),127.0.0.1,$(HOST)):$(PORT)
AGAINST ?=
TASK ?= ocr

ifeq ($(origin IMMICH_API_KEY),command line)
$(error everybody on this machine can read a key on a command line; put it before: IMMICH_API_KEY=… make doctor)
endif

.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: requirements-dev.lock pyproject.toml scripts/setup.sh addons/immich_triton/cli/setup.py
	@scripts/setup.sh $(VENV) requirements-dev.lock

setup: $(VENV)/.installed  ## create .venv with Python 3.12 and install everything; does nothing when up to date

# By way of the environment, so that it may hold quotes.
run: export OPTIONS := $(OPTIONS)
run: export SITE_OPTIONS := $(SITE_OPTIONS)
run: setup $(if $(filter-out 0,$(GPU)),$(VENV)/.installed-gpu)  ## start Triton and the gateway: UPSTREAM, PORT, HOST, METRICS_PORT, TRITON_HTTP_PORT, TRITON_METRICS_PORT, MODELS, OPTIONS, GPU=1, WEB=1 for mitmweb; SITE=http://…:2283 for the site in front of the Immich server too; MT_PHOTOS=1 for MT-Photos
	@exec $(BIN)/immich-triton run --upstream "$(UPSTREAM)" --host "$(HOST)" --port "$(PORT)" --metrics-port "$(METRICS_PORT)" \
		--triton-http-port "$(TRITON_HTTP_PORT)" --triton-metrics-port "$(TRITON_METRICS_PORT)" \
		--models "$(MODELS)" --options="$$OPTIONS" $(if $(filter-out 0,$(WEB)),--inspect --inspect-port "$(WEB_PORT)") \
		$(if $(filter-out 0,$(GPU)),--gpu) \
		$(if $(filter-out 0,$(MT_PHOTOS)),--mt-photos --mt-photos-key "$(MT_PHOTOS_KEY)") \
		$(if $(SITE),--web "$(SITE)" --web-host "$(SITE_HOST)" --web-port "$(SITE_PORT)" --web-metrics-port "$(SITE_METRICS_PORT)" --web-options="$$SITE_OPTIONS")

# In an environment of its own, among the user's data: ONNX Runtime for GPUs and that for CPUs are the same module.
$(VENV)/.installed-gpu: requirements-gpu.lock $(VENV)/.installed
	@$(BIN)/immich-triton setup --gpu
	@touch $@

doctor: setup  ## say what is wrong and how to put it right: IMMICH=http://…:2283 with IMMICH_API_KEY in the environment for Immich's settings too, TRITON_KEY=file:…, SITE=… when the site runs, MT_PHOTOS=1 when MT-Photos is answered
	@$(BIN)/immich-triton doctor --url "$(URL)" --triton "http://127.0.0.1:$(TRITON_HTTP_PORT)" \
		--models "$(MODELS)" $(if $(TRITON_KEY),--triton-key "$(TRITON_KEY)") $(if $(IMMICH),--immich "$(IMMICH)") \
		$(if $(SITE),--site "http://$(if $(filter 0.0.0.0 ::,$(SITE_HOST)),127.0.0.1,$(SITE_HOST)):$(SITE_PORT)") \
		$(if $(filter-out 0,$(MT_PHOTOS)),--mt-photos "http://$(if $(filter 0.0.0.0 ::,$(HOST)),127.0.0.1,$(HOST)):8060" --mt-photos-key "$(MT_PHOTOS_KEY)")

# Tests wait more than they compute: a worker more than cores. With many cores the one Triton worker is the longest.
PYTEST := $(BIN)/pytest --numprocesses $$(n=$$(nproc); echo $$((n < 5 ? n + 1 : 6))) --dist loadgroup --no-loadscope-reorder --max-worker-restart 0

test: lint  ## set up, then ruff, mypy and the tests that are not slow
	$(PYTEST) -m "not slow"

test-all: lint  ## everything that checks the project: make test and the slow tests
	$(PYTEST)

lint: setup  ## ruff and mypy alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

eval: setup  ## mark the OCR answers of the running gateway and of RapidOCR: URL, AGAINST="URL…" of stock Immich MLs
	$(BIN)/python scripts/lab/eval_ocr.py --url "$(URL)" --engine $(foreach url,$(AGAINST),--against "$(url)")

bench: setup  ## measure the running gateway: URL, TASK=ocr|clip|faces, AGAINST="URL…" of stock Immich MLs; more: scripts/lab/bench.py --help
	$(BIN)/python scripts/lab/bench.py --task "$(TASK)" --url "$(URL)" --triton "http://127.0.0.1:$(TRITON_HTTP_PORT)" \
		--metrics "http://127.0.0.1:$(TRITON_METRICS_PORT)" --models "$(MODELS)" --engine $(foreach url,$(AGAINST),--against "$(url)")

lock: setup  ## renew the hashed lock files (needs uv); they carry no address of a package host
	@scripts/lock.sh

clean:  ## remove what setup and run created (models stay)
	rm -rf $(VENV) .run

.PHONY: help setup run doctor test test-all lint eval bench lock clean
