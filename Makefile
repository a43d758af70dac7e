# Names of what can be done here. The logic is in `cargo xtask` (`cargo xtask --help`), so that a person, a test and
# another make run the same.
SHELL := /bin/sh
export SAMPAN_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sampan
export CARGO_TARGET_DIR ?= $(SAMPAN_CACHE)/target
# rustup puts cargo here, also where the caller's PATH does not have it.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

XTASK = cargo xtask

.DEFAULT_GOAL := help
.PHONY: help build demo test e2e kind bench conformance tools guests install uninstall prerequisites

help: ## What can be done
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

build: prerequisites ## The two binaries as they ship, static, in $CARGO_TARGET_DIR/dist
	$(XTASK) build

demo: prerequisites ## A real containerd pulls a Wasm artifact and runs it: everything is shown, nothing is left
	$(XTASK) demo

test: prerequisites ## Formatting, lints, licences, unit tests, tests with real containerds
	$(XTASK) test

e2e: prerequisites ## A real Kubernetes node with Sampan on it, and what people run there; with KUBECONFIG on that cluster
	$(XTASK) e2e

kind: prerequisites ## A cluster in Docker, the chart of this tree on it, and the end-to-end suite
	$(XTASK) kind

bench: prerequisites ## Numbers beside those of other shims, in one run; with BASE=REVISION beside that revision too
	$(XTASK) bench $(if $(BASE),--base $(BASE))

conformance: prerequisites ## critest with runc's handler and with ours, compared test by test
	$(XTASK) conformance

tools: prerequisites ## What the tests run against (containerd, runc, registry, CNI), fetched into the cache
	$(XTASK) tools

guests: prerequisites ## The WebAssembly programs that the tests run
	$(XTASK) guests

install: build ## Copies the two binaries and the link to $DESTDIR/usr/local/bin
	$(XTASK) install --to $(DESTDIR)/usr/local/bin

prerequisites:
	@test/tools/prerequisites
