# Entry points: `make demo` and `make test`; both install their requirements first (ops/setup).

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

# The project's own tools come first; rustup's cargo and the tools of /sbin are found even if PATH lacks their folders.
CARGO_HOME ?= $(HOME)/.cargo
export PATH := $(CURDIR)/.tools/bin:$(PATH):$(CARGO_HOME)/bin:/usr/sbin:/sbin

.PHONY: help setup build demo test soak traffic machines test-debian-image generate conformance audit bench verify-go clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: ## Install missing requirements, and print which
	@ops/setup

build: setup ## Build every binary into target/debug
	cargo build --workspace --locked

demo: build ## Run two nodes and a control plane on this machine, explained step by step
	@ops/demo

test: setup ## Check formatting and lints, and run all tests, including kernel tests (root)
	@ops/check

FOR ?= 600
soak: build ## Inject faults under load, then check that nothing was lost: FOR=seconds, SEED=number (root)
	@.tools/venv/bin/python ops/soak/soak.py --seconds $(FOR) $(if $(SEED),--seed $(SEED))

BREAKS ?= 100
traffic: build ## Break and repair the networks of nodes, judged by traffic: BREAKS=number, SEED=number (root)
	@.tools/venv/bin/python ops/soak/traffic.py --breaks $(BREAKS) $(if $(SEED),--seed $(SEED))

ROUNDS ?= 100
VMS ?= 8
machines: build ## Boot VMs, and kill their agents, processes and nodes at random: ROUNDS=number, VMS=number (root)
	@.tools/venv/bin/python ops/soak/machines.py --rounds $(ROUNDS) --vms $(VMS) $(if $(SEED),--seed $(SEED))

test-debian-image: build ## Build a Debian image from packages, boot it in a lab and log in; takes minutes (root)
	@ops/setup debian
	@ops/image/debian/build
	@.tools/venv/bin/python ops/image/debian/test.py

generate: setup ## Regenerate schemas, samples and reference
	OTHERIX_GENERATE=1 cargo nextest run --workspace --locked -E 'test(generated)'

conformance: ## Check schemas, samples and AsyncAPI with other implementations (installs 70 MB of packages)
	@ops/setup conformance
	@ops/conformance

audit: setup ## Check licences, known vulnerabilities and sources of dependencies (installs cargo-deny)
	@cargo deny --version >/dev/null 2>&1 || \
		{ echo 'audit: installing cargo-deny, which takes some minutes'; \
		cargo install cargo-deny --locked --version 0.20.2; }
	cargo deny --locked check

bench: ## Measure write path beside etcd, many networks, long journal, create to ready (root, 15 minutes)
	@ops/setup bench
	cargo build --release --locked --workspace
	cargo run --release --locked --package otherix-bench

SAMPLE_LOG := target/sample-log
verify-go: build ## Verify transparency logs with Go's reference implementation (installs Go: 450 MB)
	@ops/setup go
	rm -rf $(SAMPLE_LOG)
	cargo run --quiet --locked --package otherix-tlog --example sample_log $(SAMPLE_LOG) 1 70 256 300 66000
	@GO111MODULE=off GOPATH=/usr/share/gocode go run ops/verify-go/main.go $(SAMPLE_LOG)
	cargo nextest run --locked --package otherixd --run-ignored only -E 'test(go_verifies_an_export)'

clean: ## Remove build results and what ops/setup installed into this folder
	cargo clean
	rm -rf .tools
