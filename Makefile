# SPDX-License-Identifier: Apache-2.0
# Every target installs what it needs; `make` alone lists them.

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
MINUTES ?= 60
SEED ?=
ROUNDS ?= 20
# One more than the processors have to do: tests wait for disks, deadlines and each other.
WORKERS ?= $(shell echo $$(($$(nproc) * 3 / 2)))
export DEBIAN_FRONTEND := noninteractive

.DEFAULT_GOAL := help
.PHONY: help venv system demo test chaos rounds simulate reliability lint install uninstall

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

venv: $(STAMP) ## a virtual environment with the command: .venv/bin/slackwater

$(STAMP): pyproject.toml
	@PYTHON="$(PYTHON)" packaging/venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(VENV)/bin/python -m pip install --quiet --editable '.[postgresql]' --group lint --group test
	@touch $@

system: ## Debian packages of the demo and the tests: PostgreSQL, Btrfs, user-mode Linux (root)
	@packaging/system

demo: venv system ## a busy database, a backup, a disaster, a recovery, and its undo (root)
	@$(VENV)/bin/slackwater demo

test: venv system ## all tests; what cannot run here is skipped and listed, or fails where CI=true; SEED=
	@export SLACKWATER_SEED=$${SEED:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}; echo "SEED=$$SLACKWATER_SEED"; \
	$(VENV)/bin/pytest --tx '$(WORKERS)*popen//python=tests/isolated' --dist loadfile --no-loadscope-reorder \
		|| $(VENV)/bin/python tests/second_look.py $$?

chaos: venv system ## faults at random moments, MINUTES=60 of them, until something is not as it must be; SEED= (root)
	@tests/isolated -m tests.matrix.chaos --minutes $(MINUTES) --seed '$(SEED)'

rounds: venv system ## backups, mistakes and lost disks in a row on one database, ROUNDS=20 of them on each layout, with each archive (root)
	@SLACKWATER_ROUNDS=$(ROUNDS) tests/isolated -m pytest -p no:xdist -q -s tests/e2e/test_roll_forward_twenty.py tests/e2e/test_roll_forward_archives.py

simulate: venv ## thousands of sessions a minute on a simulated host with faults, for MINUTES=, or one world of SEED=
	@$(VENV)/bin/python -m tests.simulation $(if $(SEED),$(SEED),--minutes $(MINUTES))

reliability: venv ## write docs/reliability.md from what the last runs of the tests have seen
	@$(VENV)/bin/python docs/reliability.py

lint: venv ## style, types, and who may import whom
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

install: ## into /opt/slackwater, with a link in the path, units and completion (root)
	@PYTHON="$(PYTHON)" packaging/install

uninstall: ## take away what install put there, and nothing else (root)
	@packaging/uninstall
