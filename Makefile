# mod_listen and pylisten. `make help` lists the targets.
#
# FREESWITCH_PREFIX=/opt/freeswitch   where FreeSWITCH is installed, if pkg-config cannot know
# PYTHON=python3.12                   the Python to build the virtual environment with
# PREFIX=/usr/local                   where `make install` puts pylisten

PREFIX ?= /usr/local
FUZZ_S ?= 60
VENV := .venv
BIN := $(VENV)/bin
SHM := $(wildcard mod_listen/shm/*.[ch])

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export PKG_CONFIG_PATH := $(if $(FREESWITCH_PREFIX),$(FREESWITCH_PREFIX)/lib/pkgconfig:)$(if \
	$(PKG_CONFIG_PATH),$(PKG_CONFIG_PATH):)/usr/local/freeswitch/lib/pkgconfig

HAVE_FREESWITCH := pkg-config --exists freeswitch

.DELETE_ON_ERROR:
# The targets share one tree and one processor or two: run them one after the other.
.NOTPARALLEL:
.PHONY: help demo test test-c test-python module install lint bench fuzz clean


help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.compiled ## a call, a worker and an echo bot without a switch: writes demo-out/
	@$(BIN)/pylisten demo

test: test-c $(VENV)/.dev ## all tests; those on FreeSWITCH too where one is installed
	@if $(HAVE_FREESWITCH); then $(MAKE) --no-print-directory module; fi
	@$(MAKE) --no-print-directory test-python
	@if $(HAVE_FREESWITCH); then echo "== tested with FreeSWITCH $$(pkg-config --modversion freeswitch)"; \
	else $(no_freeswitch); fi

test-c: $(VENV)/.system ## the tests of the shared memory: plain, ASan + UBSan, TSan
	@echo "== C tests of mod_listen/shm"
	@$(MAKE) --no-print-directory -C mod_listen/shm/tests check

test-python: $(VENV)/.compiled $(VENV)/.dev ## the Python tests
	@echo "== pytest"
	@$(BIN)/python -m pytest -q

module: $(VENV)/.system ## build mod_listen/mod_listen.so (needs FreeSWITCH's headers)
	@$(HAVE_FREESWITCH) || { $(no_freeswitch); exit 1; }
	@echo "== mod_listen for FreeSWITCH $$(pkg-config --modversion freeswitch)"
	@$(MAKE) --no-print-directory -C mod_listen

install: module ## install mod_listen.so for FreeSWITCH, and pylisten under PREFIX
	@$(MAKE) --no-print-directory -C mod_listen install
	@echo "== pylisten in $(PREFIX)/lib/pylisten"
	@install -d $(PREFIX)/lib $(PREFIX)/bin
	@"$$(cat $(VENV)/.system)" -m venv $(PREFIX)/lib/pylisten
	@$(PREFIX)/lib/pylisten/bin/pip install -q --upgrade .
	@ln -sf ../lib/pylisten/bin/pylisten $(PREFIX)/bin/pylisten
	@$(PREFIX)/bin/pylisten --version

lint: $(VENV)/.compiled $(VENV)/.dev ## ruff, mypy --strict, C warnings as errors
	@echo "== ruff"
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .
	@echo "== mypy"
	@$(BIN)/mypy
	@$(BIN)/mypy examples
	@echo "== C"
	@$(MAKE) --no-print-directory -C mod_listen/shm/tests lint

bench: $(VENV)/.compiled ## what it costs to take frames from the shared memory and send them
	@$(BIN)/python -m tests.bench.frames

fuzz: $(VENV)/.compiled $(VENV)/.dev ## feed the parsers what nobody would send; FUZZ_S seconds each
	@$(BIN)/pip install -q atheris
	@for target in verb wire audio esl; do \
		$(BIN)/python -m tests.fuzz.targets $$target -max_total_time=$(FUZZ_S) -max_len=8192 || exit 1; \
	done

clean: ## remove all that was built; the virtual environment too
	@$(MAKE) --no-print-directory -C mod_listen/shm/tests clean
	@if [ -f mod_listen/Makefile ]; then $(MAKE) --no-print-directory -C mod_listen clean; fi
	rm -rf $(VENV) build demo-out pylisten.egg-info pylisten/_shm.c pylisten/_shm.*.so
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis


# Stamps: each says that a step of the set-up is done and holds for what it was made from.

$(VENV)/.system: .ci/system-packages
	@mkdir -p $(VENV)
	@.ci/system-packages > $@

$(VENV)/.python: $(VENV)/.system pyproject.toml setup.py
	@echo "== virtual environment in $(VENV) (the first time takes a minute)"
	@[ -x $(BIN)/python ] || "$$(cat $(VENV)/.system)" -m venv $(VENV)
	@$(BIN)/python -m pip install -q "pip>=25.1" "setuptools>=70.1" "cffi>=2.0"
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.python
	@echo "== tools for tests"
	@$(BIN)/python -m pip install -q --group dev
	@touch $@

$(VENV)/.compiled: $(VENV)/.python pylisten/_shm_build.py $(SHM)
	@echo "== compiled part of pylisten"
	@$(BIN)/python setup.py -q build_ext --inplace --force
	@touch $@

define no_freeswitch
{ echo; \
  echo "*********************************************************************"; \
  echo "*  NO FREESWITCH WAS FOUND: mod_listen is not built and not tested. *"; \
  echo "*  Set FREESWITCH_PREFIX, or PKG_CONFIG_PATH to the directory with   *"; \
  echo "*  freeswitch.pc. What ran, ran on the simulator.                    *"; \
  echo "*********************************************************************"; } >&2
endef
