# Every verb makes the environment it needs. PYTHON=... or VENV=... uses one that you have.

EXP  ?=
SEED ?= 0
ARGS ?=
RULE ?= ArgMax
GPUS ?= 1
NODES ?= 1

VENV ?= .venv
ifdef PYTHON
  ENV :=
else
  PYTHON := $(VENV)/bin/python
  ENV := $(if $(filter file,$(origin VENV)),$(VENV)/.installed)
endif
RUN = runs/$(EXP)/seed$(SEED)
RECIPES = $(filter-out %/family.yaml,$(wildcard experiments/recipes/*/*.yaml))
RECIPE = $(or $(filter %/$(or $(EXP),none).yaml,$(RECIPES)),no-recipe)
# A name as one word of the shell, whatever it holds.
quoted = '$(subst ','\'',$(1))'

.DEFAULT_GOAL := help
.PHONY: no-recipe help demo data verify recipes train show study submit status evaluate predict decide compare results export card ensemble sweep dashboard sync test check docs audit bench

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*##/ {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(ENV) ## train and evaluate SPMix with a small network on drawn lesions, end to end
	$(PYTHON) -m datamodules synthesize
	$(PYTHON) -m experiments train demo
	$(PYTHON) -m experiments evaluate runs/demo/seed0
	@echo "Pictures of this run:"; ls runs/demo/seed0/*/*.png

data: $(ENV) ## install HAM10000; SRC=folder takes archives that you have, SRC=archive.zip one
	$(PYTHON) -m datamodules install $(if $(SRC),--src $(call quoted,$(SRC))) $(ARGS)

verify: $(ENV) ## name every missing, unreadable and unexpected file of the data
	$(PYTHON) -m datamodules verify $(ARGS)

recipes: $(ENV) ## list the recipes; ARGS=--write updates their index
	$(PYTHON) -m experiments recipes $(ARGS)

train: $(RECIPE) $(ENV) ## EXP=vgg_ce [SEED=1] [ARGS="--trainer.max_epochs=9"]: train a recipe, or resume its run
	$(PYTHON) -m experiments train $(EXP) --seed_everything $(SEED) $(ARGS)

show: $(RECIPE) $(ENV) ## EXP=vgg_ce: print a recipe with every option explained
	$(PYTHON) -m experiments show $(EXP)

study: $(ENV) ## STUDY=imbalance [ROWS="ce focal"] [ARGS="--jobs 2"]: train and evaluate all runs of a comparison
	$(PYTHON) -m experiments study $(STUDY) $(if $(ROWS),--rows $(call quoted,$(ROWS))) $(ARGS)

submit: $(RECIPE) $(ENV) ## EXP=vgg_ce [SEED=0-4 GPUS=4 NODES=2 SLURM="--time=8:00:00" ARGS=...]: train on a cluster
	$(PYTHON) -m experiments submit $(EXP) --seeds $(SEED) --gpus $(GPUS) --nodes $(NODES) $(SLURM) -- $(ARGS)

status: $(ENV) ## what runs, and what is left
	$(PYTHON) -m experiments status

evaluate: $(ENV) $(RUN)/config.yaml ## EXP=vgg_ce [SEED=1] [CKPT=last]: score the best checkpoint on the test split
	$(PYTHON) -m experiments evaluate $(RUN) --checkpoint $(or $(CKPT),best) $(ARGS)

predict: $(ENV) $(RUN)/config.yaml ## EXP=vgg_ce IN=folder [OVERLAYS=1]: classify the images of a folder, or one image
	$(PYTHON) -m experiments predict $(RUN) $(if $(IN),--images $(call quoted,$(IN))) $(if $(OVERLAYS),--overlays) $(ARGS)

decide: $(ENV) $(RUN)/config.yaml ## EXP=vgg_ce [RULE=Sensitivity]: choose a decision rule on the validation split
	$(PYTHON) -m experiments decide $(RUN) --rule $(RULE) $(ARGS)

compare: $(ENV) ## [RUNS="runs/imbalance-*"] [BASELINE=imbalance-ce]: runs to a table and a page
	$(PYTHON) -m experiments compare $(RUNS) $(if $(BASELINE),--baseline $(call quoted,$(BASELINE))) $(ARGS)

results: $(ENV) ## STUDY=imbalance: add a study's finished runs to docs/results/, and write its table
	$(PYTHON) -m experiments results $(STUDY)

export: $(ENV) $(RUN)/config.yaml ## EXP=vgg_ce [SEED=1]: write ONNX and torch.export, and check both
	$(PYTHON) -m experiments export $(RUN) $(ARGS)

ensemble: $(ENV) ## RUNS="runs/vgg_ce/seed*" [VIEWS=8] [IN=folder]: runs and views that decide together
	$(PYTHON) -m experiments ensemble $(RUNS) $(if $(VIEWS),--views $(VIEWS)) $(if $(IN),--folder $(call quoted,$(IN))) $(ARGS)

card: $(ENV) $(RUN)/config.yaml ## EXP=vgg_ce [SEED=1]: write the model card of an evaluated run
	$(PYTHON) -m experiments card $(RUN)

dashboard: $(ENV) ## [ARGS="--project longderm"]: the project's workspace on W&B, or --out FILE
	$(PYTHON) -m experiments dashboard $(ARGS)

sweep: $(ENV) ## SWEEP=weighting: register a sweep; `wandb agent` with the id that it prints runs it
	$(PYTHON) -m wandb sweep --project longderm experiments/sweeps/$(SWEEP).yaml

sync: $(ENV) ## send runs that were recorded offline to W&B
	$(PYTHON) -m wandb sync --yes --include-online runs/*/*/wandb/*run-*

test: $(ENV) ## run the test suite
	$(PYTHON) -m pytest -n auto $(ARGS)

check: $(ENV) ## lint, format, types, import directions
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	PATH="$(dir $(PYTHON)):$$PATH" oxlint --deny-warnings experiments/compare/web
	PATH="$(dir $(PYTHON)):$$PATH" oxfmt --check experiments/compare/web
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest tests/test_architecture.py

docs: $(ENV) ## build the documentation into site/; a broken link fails (offline)
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet

audit: $(ENV) ## ask PyPI whether a pinned version has a known vulnerability (needs a network)
	$(PYTHON) -m pip install --quiet --constraint constraints.txt pip-audit
	$(PYTHON) -m pip_audit --requirement constraints.txt --no-deps --disable-pip --strict

bench: $(ENV) ## measure speed and memory
	$(PYTHON) -m tests.benchmarks $(ARGS)

.venv/.installed: pyproject.toml requirements.lock
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: put it first on the PATH, or name an environment with PYTHON=")'
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --require-hashes --requirement requirements.lock
	.venv/bin/python -m pip install --no-deps --no-build-isolation --editable .
	@touch $@

no-recipe:
	@echo "There is no recipe '$(EXP)'. EXP= names one of: $(sort $(basename $(notdir $(RECIPES))))"; exit 2

runs/%/config.yaml:
	@echo "There is no run in runs/$*: start it with make train EXP=... SEED=..."; exit 2
