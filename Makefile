# Noria's front door. `make demo` and `make test` need nothing but Python 3.11+, Node 20+ and this folder.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

ENV ?= local
PYTHON ?= python3
BIN := .venv/bin
TWO := --numprocesses 2 --dist loadscope --no-loadscope-reorder
# jsii and the CDK say at every start that Node 20 is old; once, in the README, is enough.
export JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION := 20
export PYTHONPATH := $(CURDIR)

## demo: run the whole loop on this machine with real flight data, three to four minutes after set-up
.PHONY: demo
demo: setup
	@$(BIN)/python -m local.demo

## test: every test: end to end alone, as it answers to the clock; then those with clouds, and all others beside them
.PHONY: test
test: setup sdk .noria/chromium/.ready
	@$(BIN)/python -m pytest tests/e2e
	@nice -n 19 $(BIN)/python -m pytest tests/unit tests/infrastructure $(TWO) >.noria/test.log 2>&1 & others=$$!; \
	trap 'kill $$others 2>/dev/null || true' EXIT; \
	$(BIN)/python -m pytest tests/breaking tests/integration $(TWO); \
	wait $$others && failed=0 || failed=$$?; \
	cat .noria/test.log; exit $$failed

## unit: the tests that need no process, a minute or so
.PHONY: unit
unit: .venv/.ready
	@$(BIN)/python -m pytest tests/unit $(TWO)

## fuzz: give hostile input to every door, guided by what it reaches, a minute each (SECONDS_EACH=600); Linux only
.PHONY: fuzz
fuzz: .venv/.ready .noria/atheris/.ready
	@PYTHONPATH=$(CURDIR):.noria/atheris $(BIN)/python -m tests.fuzz

## breaking: kill every reaction at every call, deliver every event in every way, give every call a bad day; two to three hours
.PHONY: breaking
breaking: setup
	@$(BIN)/python -m pytest tests/breaking --points all --seed $(or $(SEED),0)

## gameday: break the local cloud in an order drawn from SEED, and time what notices and mends it; about seven minutes
.PHONY: gameday
gameday: setup
	@$(BIN)/python -m local.gameday $(if $(SEED),--seed $(SEED))

## flood: ten thousand uploads at once (UPLOADS=), and what became of each; half an hour, five a second
.PHONY: flood
flood: setup
	@$(BIN)/python -m local.gameday --flood $(or $(UPLOADS),10000)

## lint: style, security (ruff's S rules are bandit's) and types; templates are scanned by the tests
.PHONY: lint
lint: .venv/.ready
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy .

## audit: scan templates and policies (checkov, parliament), and ask what is known against packages (needs a network)
.PHONY: audit
audit: setup .noria/audit/.ready
	@$(BIN)/python -m audit templates
	@$(BIN)/python -m audit packages

## sbom: write what Noria is made of, as CycloneDX, into .noria/sbom
.PHONY: sbom
sbom: .venv/.ready .noria/audit/.ready
	@$(BIN)/python -m audit.sbom

## up: start the local cloud, deploy every stack to it and leave it running
.PHONY: up
up: setup
	@$(BIN)/python -m local up --deploy

## prometheus: unpack a real Prometheus from Debian's package, for make prometheus-test; Debian only
.PHONY: prometheus
prometheus: .noria/prometheus/.ready

## prometheus-test: have a real Prometheus read the local cloud's metrics, and answer every query of Grafana's dashboards
.PHONY: prometheus-test
prometheus-test: setup prometheus
	@$(BIN)/python -m pytest tests/prometheus --force-enable-socket

## tracking: install a real MLflow server (700 MB), for python -m local up --deploy --tracking
.PHONY: tracking
tracking: .noria/mlflow/.ready

## tracking-test: write trainings to a real MLflow server, and read them from it
.PHONY: tracking-test
tracking-test: setup tracking
	@$(BIN)/python -m pytest tests/tracking --force-enable-socket

## down: end the local cloud and everything it started
.PHONY: down
down:
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m local down; fi

## deploy: deploy every stack to the AWS account of your credentials (ENV=dev or prod)
.PHONY: deploy
deploy: setup aws-environment
	@$(BIN)/noria preflight --env $(ENV)
	@$(BIN)/python -m stacks.bundles --target aws
	@npx cdk deploy --all -c env=$(ENV)

## diff: what a deployment would change (ENV=dev or prod)
.PHONY: diff
diff: setup aws-environment
	@$(BIN)/noria preflight --env $(ENV)
	@npx cdk diff --all -c env=$(ENV)

## cost: what the stacks of ENV cost in a month, at list prices (AGAINST=<folder of cdk synth>: how that differs)
.PHONY: cost
cost: setup
	@npx cdk synth --quiet -c env=$(ENV)
	@$(BIN)/noria cost $(if $(AGAINST),--against $(AGAINST))

## destroy: remove every stack of ENV; says what it keeps, what is left and what that costs
.PHONY: destroy
destroy: setup aws-environment
	@$(BIN)/noria destroy --env $(ENV)

## pipeline: write pipelines/tabular/definition.json anew after a change of pipeline.py
.PHONY: pipeline
pipeline: sdk
	@.noria/sdk/bin/python -m pipelines.tabular.export

## benchmark-serving: compare the model server with others, side by side, in about ten minutes; Debian only
.PHONY: benchmark-serving
benchmark-serving: setup
	@$(BIN)/python -m benchmarks.serving

## benchmark-monitors: count false alarms and what is found, over thousands of monitor runs, in about fifteen minutes
.PHONY: benchmark-monitors
benchmark-monitors: setup
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.monitors

## benchmark-profile: compare contract, profile and drift with other libraries, on the same files, in about fifteen minutes
.PHONY: benchmark-profile
benchmark-profile: setup
	@$(BIN)/python -m benchmarks.profile

## schema: write the JSON Schema that editors check models/*.yaml with
.PHONY: schema
schema: .venv/.ready
	@$(BIN)/noria schema > docs/model.schema.json

## lock: resolve the pinned requirements anew, hashes included
.PHONY: lock
lock: .venv/.ready
	@$(BIN)/uv pip compile -q requirements-dev.txt --universal --python-version 3.11 --generate-hashes --no-header -o requirements.lock
	@$(BIN)/uv pip compile -q local/container/requirements.txt --universal --python-version 3.11 --generate-hashes --no-header -o local/container/requirements.lock
	@$(BIN)/uv pip compile -q local/tracking/requirements.txt --universal --python-version 3.11 --generate-hashes --no-header -o local/tracking/requirements.lock
	@$(BIN)/uv pip compile -q audit/requirements.txt --universal --python-version 3.11 --generate-hashes --no-header -o audit/requirements.lock
	@$(BIN)/uv pip compile -q pipelines/serving/requirements.txt --universal --python-version 3.11 --generate-hashes --no-header -o pipelines/serving/requirements.lock

## setup: virtual environments, node modules and bundles; done once, again when a pinned file changes
.PHONY: setup
setup: .venv/.ready node_modules/.ready .noria/container/.ready
	@$(BIN)/python -m stacks.bundles --target local

.PHONY: sdk
sdk: .noria/sdk/.ready

.PHONY: aws-environment
aws-environment:
	@if [ "$(ENV)" = local ]; then echo "name the environment: make $(MAKECMDGOALS) ENV=dev (or prod); the local one is make up"; exit 2; fi

.venv/.ready: requirements.lock
	@echo "· Python packages"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check uv==0.13.9
	@$(BIN)/uv pip sync -q --require-hashes --python $(BIN)/python requirements.lock
	@$(BIN)/uv pip install -q --no-deps --no-build-isolation --python $(BIN)/python --editable .
	@touch $@

node_modules/.ready: package-lock.json
	@echo "· the CDK command, and a browser for tests"
	@npm ci --silent --no-audit --no-fund
	@touch $@

.noria/container/.ready: local/container/requirements.lock | .venv/.ready
	@echo "· the container's Python packages"
	@$(BIN)/python -m local container
	@touch $@

# The package's own function unpacks it; it takes this variable for a sign that the machine may lack its libraries.
.noria/chromium/.ready: node_modules/.ready
	@rm -rf $(@D) && mkdir -p $(@D)
	@TMPDIR=$(CURDIR)/$(@D) AWS_EXECUTION_ENV=AWS_Lambda_nodejs20.x node --input-type=module \
		-e "import chromium from '@sparticuz/chromium'; await chromium.executablePath()"
	@touch $@

.noria/atheris/.ready: tests/fuzz/requirements.lock | .venv/.ready
	@echo "· what fuzzes"
	@$(BIN)/uv pip install -q --no-deps --require-hashes --python $(BIN)/python --target $(@D) -r tests/fuzz/requirements.lock
	@touch $@

.noria/mlflow/.ready: local/tracking/requirements.lock | .venv/.ready
	@echo "· MLflow, in an environment of its own"
	@test -x .noria/mlflow/bin/python || $(PYTHON) -m venv .noria/mlflow
	@$(BIN)/uv pip install -q --compile-bytecode --require-hashes --python .noria/mlflow/bin/python -r local/tracking/requirements.lock
	@touch $@

.noria/prometheus/.ready:
	@echo "· Prometheus"
	@rm -rf $(@D) && mkdir -p $(@D)
	@cd $(@D) && apt-get download -qq prometheus 2>/dev/null && dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin && rm prometheus_*.deb
	@touch $@

.noria/audit/.ready: audit/requirements.lock | .venv/.ready
	@echo "· what audits, in an environment of its own"
	@test -x .noria/audit/bin/python || $(PYTHON) -m venv .noria/audit
	@$(BIN)/uv pip sync -q --require-hashes --python .noria/audit/bin/python audit/requirements.lock
	@touch $@

.noria/sdk/.ready: pipelines/requirements.txt | .venv/.ready
	@echo "· the SageMaker SDK, in an environment of its own"
	@test -x .noria/sdk/bin/python || $(PYTHON) -m venv .noria/sdk
	@$(BIN)/uv pip install -q --no-deps --python .noria/sdk/bin/python -r pipelines/requirements.txt
	@touch $@

## clean: remove what set-up made
.PHONY: clean
clean: down
	@rm -rf .venv .noria node_modules cdk.out

## help: this list
.PHONY: help
help:
	@echo "Noria: event-driven MLOps on AWS, and the same cloud on a laptop"; echo
	@awk '/^## /{at = index($$0, ":"); printf "  make %-19s%s\n", substr($$0, 4, at - 4), substr($$0, at + 1)}' $(firstword $(MAKEFILE_LIST))
