# SPDX-License-Identifier: Apache-2.0
# Every target installs what it needs; `make` alone lists them.

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
export DEBIAN_FRONTEND := noninteractive

.DEFAULT_GOAL := help
.PHONY: help venv system demo test lint install uninstall

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

test: venv system ## all tests; what cannot run here is skipped and listed, or fails where CI=true
	@$(VENV)/bin/pytest

lint: venv ## style, types, and who may import whom
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

install: ## into /opt/slackwater, with a link in the path, units and completion (root)
	@PYTHON="$(PYTHON)" packaging/install

uninstall: ## take away what install put there, and nothing else (root)
	@packaging/uninstall
