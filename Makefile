# A short front for Meson. `make help` lists the targets.
SHELL := /bin/bash
BUILD ?= build
ISLAND ?= var/island
# the project's own model, or any GGUF file: make run MODEL=file.gguf
MODEL ?= models/polder-tiny.gguf
NAME ?= $(basename $(notdir $(MODEL)))
ONCE ?=
T ?=
MESON = meson
export LC_ALL := C.UTF-8

.PHONY: all help run test asan tsan fuzz lint bench accept install clean packages

all: packages                ## build the release program at build/polder
	@scripts/build $(BUILD)
	@ln -sf src/cli/polder $(BUILD)/polder

help:                        ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

packages:
	@scripts/install-packages build

run: all                     ## build, make an island, import a model, serve it (ONCE=1: one question, then stop)
	@mkdir -p "$(dir $(ISLAND))"; test -f $(ISLAND)/island.yaml || $(BUILD)/polder init $(ISLAND)
	@$(BUILD)/polder --island $(ISLAND) --json model show $(NAME) >/dev/null 2>&1 || \
	  $(BUILD)/polder --island $(ISLAND) model add $(MODEL) --name $(NAME)
	@scripts/once.sh $(BUILD)/polder $(ISLAND) $(NAME) "$(ONCE)"

test:                        ## install what the tests need, build, run them all
	@scripts/install-packages build test
	@scripts/build $(BUILD)
	@ln -sf src/cli/polder $(BUILD)/polder
	@tests/run $(BUILD)

asan:                        ## unit, fault and corpus tests under address and undefined-behaviour sanitizers
	@scripts/install-packages build test
	@scripts/build build-asan -Db_sanitize=address,undefined -Db_lundef=false --buildtype=debugoptimized
	@ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 tests/run build-asan unit fault fuzz server

tsan:                        ## unit and fault tests under the thread sanitizer
	@scripts/install-packages build test
	@CC=clang scripts/build build-tsan -Db_sanitize=thread -Db_lundef=false --buildtype=debugoptimized
	@TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 tests/run build-tsan unit fault server

fuzz:                        ## fuzz every parser for SECONDS each (default 600)
	@scripts/install-packages build test
	@scripts/fuzz $${SECONDS_EACH:-600}

lint:                        ## formatting, static checks, layers
	@scripts/install-packages build test
	@scripts/lint

bench: all                   ## ratios against peers and limits measured in the same run
	@scripts/build $(BUILD)
	@bench/run $(BUILD)

accept: all                  ## the lines of an issue: make accept T=first-island
	@test -n "$(T)" || { echo "make accept T=NAME, one of: $$(ls tests/acceptance)" >&2; exit 2; }
	@scripts/install-packages build test
	@tests/acceptance/$(T)/run

install: all                 ## install program, man page and completion under PREFIX (default /usr/local)
	@packaging/install $(BUILD) "$${DESTDIR:-}$${PREFIX:-/usr/local}"

clean:                       ## remove build folders (not the island)
	rm -rf build build-asan build-tsan build-fuzz build-mutant
