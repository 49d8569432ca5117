# Two commands do everything on a fresh machine: `make demo` and `make test`. `make help` lists the others.

PYTHON ?= python3
VENV ?= .venv
OUT ?= out
SCAN ?= examples/data/ts-aorta-cta/ct_cropped.nii.gz

# Extras of pyproject.toml that the demonstration, and the tests or `make extras`, need.
DEMO_EXTRAS ?= dicom
EXTRAS ?= dicom,train,federated,dev
PYTEST_FLAGS ?=

BIN := $(VENV)/bin
COMMA := ,
stamp = $(VENV)/.installed-$(subst $(COMMA),-,$(1))
DEMO_READY := $(call stamp,$(DEMO_EXTRAS))
TEST_READY := $(call stamp,$(EXTRAS))

.DEFAULT_GOAL := help
.PHONY: help demo extras test check format clean

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed 's/:.*## /\t/' | expand -t 10

demo: $(DEMO_READY) ## set up, predict the real scan in examples/data, say where to look
	$(BIN)/cardiac-ct-fm predict $(SCAN) -o $(OUT)
	@echo
	@echo "Look at $(OUT)/$(basename $(basename $(notdir $(SCAN))))/preview.png and open report.html beside it."

extras: $(TEST_READY) ## add to the environment: make extras EXTRAS=train

test: check ## set up, then lint, types and tests
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

check: $(TEST_READY) ## set up, then lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(TEST_READY) ## put the code into the house's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and what it made
	rm -rf $(VENV) $(OUT) build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# One stamp per set of extras; editing pyproject.toml or constraints.txt installs again.
$(sort $(DEMO_READY) $(TEST_READY)): $(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing cardiac-ct-fm[$(subst -,$(COMMA),$*)] into $(VENV); a few minutes the first time."
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[$(subst -,$(COMMA),$*)]"
	@touch $@
