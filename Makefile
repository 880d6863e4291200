# Every habit of the project has a target; `make` alone lists them.

PYTHON3 ?= python3
VENV    := .venv
PYTHON  := $(VENV)/bin/python
READY   := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): requirements/dev.txt requirements/install.sh
	PYTHON3=$(PYTHON3) requirements/install.sh $(VENV) $<
	@touch $@

##   contracts between the services

.PHONY: proto proto-check proto-freeze
proto: $(READY) ## Generate contracts/ from proto/
	$(VENV)/bin/buf lint proto
	PYTHON=$(PYTHON) proto/generate.sh contracts

proto-check: $(READY) ## Lint proto/, refuse breaking changes, compare contracts/ with what proto/ generates
	PYTHON=$(PYTHON) proto/check.sh

proto-freeze: $(READY) ## Make today's proto/ the image that later changes must not break
	$(VENV)/bin/buf build proto --exclude-source-info --output proto/image.json
