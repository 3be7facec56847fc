# Each target makes .venv by itself when it is missing or older than pyproject.toml. No root, no system pip.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: docs pictures help demo run test crash corruption check format bench bench-micro clean fuzz man schema overload install uninstall deb boot-test constraints powercut

# The first of these that runs, is new enough and can make a virtual environment (a pyenv shim may be there and do none
# of it). A distribution's own is built with profile-guided optimisation, which saves the daemon a seventh of its CPU
# (docs/performance.md); one that pyenv built is not.
PYTHON ?= $(shell for python in /usr/bin/python3 python3.11 python3.12 python3.13 python3; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { command -v "$$python"; break; }; done)

BIN := .venv/bin
INSTALLED := .venv/.installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.* ## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(INSTALLED) ## see a campaign halted: a sink, the daemon, a load, a halt, the report
	@$(BIN)/python -m tests.demo

run: $(INSTALLED) ## start the daemon here in var/, on unprivileged ports, with all mail going to 127.0.0.1:2526
	@mkdir -p var/store
	@sed 's|@VAR@|$(CURDIR)/var|' config/development.toml.in > var/mtactl.toml
	@echo "SMTP on 127.0.0.1:2525, metrics on http://127.0.0.1:9464/metrics, and in another terminal:"
	@echo "  export MTACTL_SOCKET=$(CURDIR)/var/control.sock; $(BIN)/mtactl status"
	@exec $(BIN)/mtactld --config var/mtactl.toml

test: $(INSTALLED) ## run all tests (ARGS="..." goes to pytest)
	$(BIN)/pytest $(ARGS)

crash: $(INSTALLED) ## kill the daemon at random moments and at failpoints, 300 times (ARGS="--kills 1000 --seed 7")
	@$(BIN)/python -m tests.crash $(ARGS)

corruption: $(INSTALLED) ## damage stores at random, 2,000 of them (ARGS="--stores 100 --seed 7"); ARGS="--calls" for a failing disk
	@$(BIN)/python -m tests.corruption $(ARGS)

fuzz: $(INSTALLED) ## feed strangers' octets to what takes them apart (ARGS="--seconds 600 --target edge")
	@$(BIN)/python -m tests.fuzz $(ARGS)

overload: $(INSTALLED) ## inject faster than can be delivered for ten minutes; memory and answers (ARGS="--seconds 60")
	@$(BIN)/python -m tests.overload $(ARGS)

powercut: $(INSTALLED) ## cut the power, simulated, with the disk left in 5,000 states (ARGS="--states 20000 --seed 7")
	@$(BIN)/python -m tests.powercut $(ARGS)

check: $(INSTALLED) ## lint, format, types, and which room may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

schema: $(INSTALLED) ## write config/mtactl.schema.json anew, from the settings and their commented default file
	@$(BIN)/python -m mtactl.settings_schema config/mtactl.toml > config/.mtactl.schema.json
	@mv config/.mtactl.schema.json config/mtactl.schema.json

format: $(INSTALLED) ## put all files into the form that check asks for
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

man: $(INSTALLED) ## make the manual pages, and the shells' completion scripts, in build/
	@$(BIN)/python -m tools.manuals build/man
	@mkdir -p build/completion
	@for shell in bash zsh fish; do $(BIN)/mtactl completion $$shell > build/completion/mtactl.$$shell; done

docs: $(INSTALLED) ## make the API's reference anew (docs/api.md), from the routes themselves
	@$(BIN)/python -m tools.api_reference

pictures: $(INSTALLED) ## take the pictures of a halt and of the live screen anew, from real runs (needs tmux)
	@$(BIN)/python -m tests.halt_picture docs/images/halt.svg
	@$(BIN)/python -m tests.top_picture docs/images/top.svg

bench: $(INSTALLED) ## measure, as ratios against a peer run in the same minute (ARGS="--list", "--only rates --scale 0.1")
	@$(BIN)/python -m tests.bench $(ARGS)

bench-micro: $(INSTALLED) ## measure the hot paths alone (ARGS="..." goes to pytest-benchmark)
	@$(BIN)/python -m pytest tests/bench/micro -o python_files='bench_*.py' -p no:cacheprovider --quiet \
		--benchmark-columns=median,iqr,ops,rounds --benchmark-group-by=func \
		--benchmark-storage=file://./var/bench-micro $(ARGS)

# prefix, bindir, sysconfdir, unitdir, … (packaging/folders) and DESTDIR are passed on, from the command line too.
export DESTDIR prefix bindir sysconfdir unitdir sysusersdir tmpfilesdir mandir docdir
MAN := $(if $(wildcard build/man),,$(shell grep -q '^man:' $(firstword $(MAKEFILE_LIST)) && echo man))

install: $(MAN) ## install below prefix=/usr/local, with its own copy of all that it runs on (DESTDIR=, prefix=)
	@PYTHON="$(PYTHON)" packaging/install

uninstall: ## take away what install put there, but not the configuration and the store
	@packaging/uninstall

deb: $(MAN) ## build a Debian package for this release of Debian, build/mtactl_*.deb
	@packaging/build-deb

boot-test: ## install the package in a fresh Debian, boot it with systemd and try it (as root; downloads it)
	@packaging/boot-test

constraints: ## take the newest versions of the libraries into install and deb
	@PYTHON="$(PYTHON)" packaging/renew-constraints

clean: ## remove what the other targets made
	rm -rf .venv var dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with venv is here: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into .venv with $(PYTHON)" >&2
	@$(BIN)/python -c 'import pip' 2>/dev/null || "$(PYTHON)" -m venv --clear .venv
	@$(PIP) install --upgrade 'pip >= 25.1'  # older ones have no --group
	@$(PIP) install --editable . --group dev
	@touch $@
