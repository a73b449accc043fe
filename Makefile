# Everything a newcomer needs: `make demo` and `make test`. Both set the machine up first (ops/setup).

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

# What ops/setup puts into the project comes first; rustup's cargo is found also where PATH lacks it, and so are `ip`
# and its kind.
CARGO_HOME ?= $(HOME)/.cargo
export PATH := $(CURDIR)/.tools/bin:$(PATH):$(CARGO_HOME)/bin:/usr/sbin:/sbin

.PHONY: help setup build demo test soak generate audit bench clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: ## Install what is missing (says what it installs)
	@ops/setup

build: setup ## Build every binary into target/debug
	cargo build --workspace --locked

demo: build ## Two nodes and a control plane on this machine, explained step by step
	@ops/demo

test: setup ## Formatting, lints and every test, the kernel's included (root)
	@ops/check

FOR ?= 600
soak: build ## Kill at random under load, then look for anything lost: FOR=seconds, SEED=number (root)
	@.tools/venv/bin/python ops/soak/soak.py --seconds $(FOR) $(if $(SEED),--seed $(SEED))

generate: setup ## Write the generated files anew (schemas, samples, reference)
	OTHERIX_GENERATE=1 cargo nextest run --workspace --locked -E 'test(generated)'

audit: setup ## Licences, known vulnerabilities, sources of the dependencies (installs cargo-deny)
	@cargo deny --version >/dev/null 2>&1 || \
		{ echo 'audit: cargo-deny, compiled by cargo: this takes minutes, once'; cargo install cargo-deny --locked --version 0.20.2; }
	cargo deny --locked check

bench: setup ## Time from create to ready on three nodes, beside its floors
	cargo build --release --locked --workspace
	cargo run --release --locked --package otherix-bench

clean: ## Remove what was built and what ops/setup put into this folder
	cargo clean
	rm -rf .tools
