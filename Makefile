# Every command installs the environment it needs. PYTHON=... or VENV=... selects an existing one.

EXP  ?=
SEED ?= 0
ARGS ?=
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
# Quotes a value as one word of the shell.
quoted = '$(subst ','\'',$(1))'

.DEFAULT_GOAL := help
.PHONY: no-recipe help demo data adopt verify recipes train show study submit status evaluate predict decide compare results export card ensemble aggregate sweep dashboard sync test check docs audit bench gpu

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*##/ {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(ENV) ## draw synthetic lesions, train SPMix on them and evaluate it
	$(PYTHON) -m datamodules synthesize
	$(PYTHON) -m experiments train demo
	$(PYTHON) -m experiments evaluate runs/demo/seed0
	@echo "Images of this run: runs/demo/seed0/attention/*.png and runs/demo/seed0/mixing/*.png"

data: $(ENV) ## [SRC=folder]: download and install HAM10000, or install from archives in a folder
	$(PYTHON) -m datamodules install $(if $(SRC),--src $(call quoted,$(SRC))) $(ARGS)

adopt: $(ENV) ## SRC=folder [ARGS="--out data/mine"]: write table.csv and dataset.yaml for your own images or a public set
	$(PYTHON) -m datamodules adopt $(if $(SRC),$(call quoted,$(SRC))) $(ARGS)

verify: $(ENV) ## list missing, unreadable and unexpected files of the data
	$(PYTHON) -m datamodules verify $(ARGS)

recipes: $(ENV) ## [ARGS=--write]: list the recipes, or update their index
	$(PYTHON) -m experiments recipes $(ARGS)

train: $(RECIPE) $(ENV) ## EXP=vgg_ce [SEED=1] [ARGS="--trainer.max_epochs=9"]: train a recipe or resume its run
	$(PYTHON) -m experiments train $(EXP) --seed_everything $(SEED) $(ARGS)

show: $(RECIPE) $(ENV) ## EXP=vgg_ce: print a recipe and explain its options
	$(PYTHON) -m experiments show $(EXP)

study: $(ENV) ## STUDY=imbalance [ROWS="ce focal"] [ARGS="--jobs 2"]: train and evaluate all runs of a study
	$(PYTHON) -m experiments study $(STUDY) $(if $(ROWS),--rows $(call quoted,$(ROWS))) $(ARGS)

submit: $(RECIPE) $(ENV) ## EXP=vgg_ce [SEED=0-4] [GPUS=4] [NODES=2] [SLURM="--time=8:00:00"]: train a recipe on Slurm
	$(PYTHON) -m experiments submit $(EXP) --seeds $(SEED) --gpus $(GPUS) --nodes $(NODES) $(SLURM) -- $(ARGS)

status: $(ENV) ## list all runs, their progress and their Slurm jobs
	$(PYTHON) -m experiments status

evaluate: $(ENV) $(RUN)/config.yaml ## EXP=vgg_ce [SEED=1] [CKPT=last] [ON=folder MAPPING=file]: score a run on its test split, or on another data set
	$(PYTHON) -m experiments evaluate $(RUN) --checkpoint $(or $(CKPT),best) $(if $(ON),--on $(call quoted,$(ON))) $(if $(MAPPING),--mapping $(call quoted,$(MAPPING))) $(ARGS)

predict: $(ENV) $(RUN)/config.yaml ## EXP=vgg_ce IN=folder [OVERLAYS=1] [FORMAT=isic]: classify one image or all images of a folder
	$(PYTHON) -m experiments predict $(RUN) $(if $(IN),--images $(call quoted,$(IN))) $(if $(OVERLAYS),--overlays) $(if $(FORMAT),--format $(call quoted,$(FORMAT))) $(ARGS)

decide: $(ENV) $(RUN)/config.yaml ## EXP=vgg_ce [RULE=Sensitivity] [SETS=ClassConditional] [RISK=0.1]: choose a decision and prediction sets on validation
	$(PYTHON) -m experiments decide $(RUN) $(if $(RULE),--rule $(RULE)) $(if $(SETS),--sets $(SETS)) $(if $(COVERAGE),--coverage $(COVERAGE)) $(if $(RISK),--risk $(RISK)) $(if $(SHARE),--share $(SHARE)) $(ARGS)

compare: $(ENV) ## [RUNS="runs/imbalance-*"] [BASELINE=imbalance-ce]: compare runs in a table and an HTML page
	$(PYTHON) -m experiments compare $(RUNS) $(if $(BASELINE),--baseline $(call quoted,$(BASELINE))) $(ARGS)

results: $(ENV) ## STUDY=imbalance: record a study's finished runs in docs/results/ and write its table
	$(PYTHON) -m experiments results $(STUDY)

export: $(ENV) $(RUN)/config.yaml ## EXP=vgg_ce [SEED=1]: export a run to ONNX and torch.export, and check both files
	$(PYTHON) -m experiments export $(RUN) $(ARGS)

ensemble: $(ENV) ## RUNS="runs/vgg_ce/seed*" [VIEWS=8] [IN=folder]: average runs, or orientations of the images
	$(PYTHON) -m experiments ensemble $(RUNS) $(if $(VIEWS),--views $(VIEWS)) $(if $(IN),--folder $(call quoted,$(IN))) $(ARGS)

aggregate: $(ENV) ## RUNS="runs/probe_sade/seed*" [IN=folder]: weigh a run's experts on unlabeled test images
	$(PYTHON) -m experiments aggregate $(RUNS) $(if $(IN),--folder $(call quoted,$(IN))) $(ARGS)

card: $(ENV) $(RUN)/config.yaml ## EXP=vgg_ce [SEED=1]: write the model card of an evaluated run
	$(PYTHON) -m experiments card $(RUN)

dashboard: $(ENV) ## [ARGS="--project longderm"]: create the project's workspace on W&B
	$(PYTHON) -m experiments dashboard $(ARGS)

sweep: $(ENV) ## SWEEP=weighting: register a W&B sweep; run it with `wandb agent` and the printed id
	$(PYTHON) -m wandb sweep --project longderm experiments/sweeps/$(SWEEP).yaml

sync: $(ENV) ## upload runs recorded offline to W&B
	$(PYTHON) -m wandb sync --yes --include-online runs/*/*/wandb/*run-*

test: $(ENV) ## run the test suite
	$(PYTHON) -m pytest -n auto --durations=10 --durations-min=1 $(ARGS)

check: $(ENV) ## check lint, format, types and the import rule
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	PATH="$(dir $(PYTHON)):$$PATH" oxlint --deny-warnings experiments/compare/web
	PATH="$(dir $(PYTHON)):$$PATH" oxfmt --check experiments/compare/web
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest tests/test_architecture.py

docs: $(ENV) ## build the documentation into site/; broken links fail
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet

audit: $(ENV) ## check the pinned versions for known vulnerabilities (online)
	$(PYTHON) -m pip install --quiet --constraint constraints.txt pip-audit
	$(PYTHON) -m pip_audit --requirement constraints.txt --no-deps --disable-pip --strict

bench: $(ENV) ## run the benchmarks of speed and memory
	$(PYTHON) -m tests.benchmarks $(ARGS)

gpu: $(ENV) ## [DATA=folder WEIGHTS=file]: tests, measurements and studies on a GPU, within 25 minutes
	$(PYTHON) -m tests.gpu --data $(call quoted,$(or $(DATA),data/ham10000)) $(if $(WEIGHTS),--weights $(call quoted,$(WEIGHTS))) $(ARGS)

.venv/.installed: pyproject.toml requirements.lock
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is required: put it first on the PATH, or set PYTHON= to its path")'
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --require-hashes --requirement requirements.lock
	.venv/bin/python -m pip install --no-deps --no-build-isolation --editable .
	@touch $@

no-recipe:
	@echo "There is no recipe '$(EXP)'. Set EXP= to one of: $(sort $(basename $(notdir $(RECIPES))))"; exit 2

runs/%/config.yaml:
	@echo "There is no run in runs/$*: train it with make train EXP=... SEED=..."; exit 2
