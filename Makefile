# The front door for people. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
PREFIX ?= /usr/local
export CARGO_TARGET_DIR ?= $(CURDIR)/target
TRIPLE := $(shell rustc -vV | sed -n 's/^host: //p')
RELEASE := $(CARGO_TARGET_DIR)/$(TRIPLE)/release
INVARLOCK := $(RELEASE)/invarlock
# Cargo's home directory must not be in the programs: it differs between machines.
CRATES := $(if $(CARGO_HOME),$(CARGO_HOME),$(HOME)/.cargo)
REMAP := --config 'target."cfg(target_env = \"gnu\")".rustflags = ["--remap-path-prefix=$(CRATES)=/cargo"]'
CRATES_OF_OURS := error seccomp security images registry runtime probe evidence evaluator launcher tests
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)

.PHONY: help build evaluator reproducible demo test check lint rules runtime-image python-image worker-image engine-upstream runtime-smoke container-default-smoke container-front-door-smoke \
        attack attack-images reproduction-trials slurm fuzz bench bench-eval bench-eval-plots bench-beside bench-verify bench-images bench-calibrate soak test-vm install clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 30

build: evaluator ## Build the two static programs: invarlock and invarlock-evaluator
	$(CARGO) build $(REMAP) --release --locked --bins -p invarlock

# Built alone, so that features which the launcher enables in shared crates do not change its bytes.
evaluator: ## Build invarlock-evaluator, the program in the default image
	$(CARGO) build $(REMAP) --release --locked --bins -p invarlock-evaluator

reproducible: build ## Build evaluator and default image in two directories and compare the bytes (two release builds)
	bash tests/tools/reproducible.sh $(INVARLOCK)

demo: ## Evaluate the demo checkpoints in containers, verify, render HTML, print a table
	$(CARGO) build --profile demo --locked --bins -p invarlock -p invarlock-evaluator
	bash demo/run.sh $(CARGO_TARGET_DIR)/$(TRIPLE)/demo/invarlock

test: ## Run all tests
	bash tests/tools/upstream-venvs.sh
	# Without fault injection, as a release. The other features are those of the tests below, so that most crates are built once.
	$(CARGO) test --locked --workspace --features verify,signing,schemas,html,export,fuzz --test fault_variables
ifeq ($(NEXTEST),yes)
	$(CARGO) nextest run --locked --workspace --all-features --no-fail-fast
	@test -s target/nextest/default/junit.xml
	@grep -ohE 'SKIPPED [^<]*' target/nextest/default/junit.xml | sort -u || echo "no test was skipped"
else
	$(CARGO) test --locked --workspace --all-features --no-fail-fast
endif

check: lint rules ## Format, clippy, house rules, import circles, rustdoc, dependency policy
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items
	# It runs once, for seconds: optimising it would take longer.
	$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --debug --locked cargo-deny --version 0.20.2 --no-default-features
	$(CARGO) deny --locked check bans licenses sources

lint: ## Format and clippy only
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets --all-features -- -D warnings
	# As `make build` builds it: alone, without the features that the launcher enables in shared crates.
	$(CARGO) clippy --locked -p invarlock-evaluator -- -D warnings

rules: ## House rules that no lint knows, and import circles
	bash tests/tools/house-rules.sh
	python3 tests/tools/import-circles.py $(CRATES_OF_OURS)

runtime-image: build ## Build invarlock-runtime:local from the evaluator
	$(INVARLOCK) runtime image build

python-image: build ## Build an image with upstream's Python package and PyTorch, 2.7 GB (needs mmdebstrap, pip, a network, 12 GB of disk)
	bash images/recipes/python/image.sh $(INVARLOCK) $${PYTHON_ROOT:-/var/tmp/invarlock-python-root} 0.8.0 0.12.1

worker-image: build ## Build an image with the workers of upstream's Python package 0.17.1 and PyTorch, 2 GB (needs what python-image needs)
	bash images/recipes/python/image.sh $(INVARLOCK) $${WORKER_ROOT:-/var/tmp/invarlock-worker-root} 0.17.1

engine-upstream: build ## Compare upstream's evaluate as a `delegate` image, on `runtime engine` and on Podman (needs what python-image needs, and 15 GB in ENGINE_ROOT)
	bash tests/tools/upstream-venvs.sh
	set -e; for version in $${UPSTREAM:-0.12.1 0.17.1}; do \
	    bash tests/tools/engine-upstream.sh $(INVARLOCK) $${ENGINE_ROOT:-/var/tmp/invarlock-engine} $$version; done

runtime-smoke: runtime-image ## Start the default image and run its self-test
	$(INVARLOCK) runtime run invarlock-runtime:local -- --self-test

container-default-smoke: build ## Check that evaluate runs in a container by default
	bash tests/tools/smoke.sh $(INVARLOCK) default

container-front-door-smoke: build ## Run evaluate, verify and report html
	bash tests/tools/smoke.sh $(INVARLOCK) front-door

bench: build ## Compare the boundary with crun, runc, podman and bwrap, step by step, and time an evaluation of the demo
	$(CARGO) build $(REMAP) --release --locked -p invarlock-tests --bins
	$(RELEASE)/invarlock-bench $(INVARLOCK)

bench-beside: build ## Time an honest run beside two hostile ones, for each shared resource
	$(CARGO) build $(REMAP) --release --locked -p invarlock-tests -p invarlock-runtime --bins
	$(RELEASE)/invarlock-beside $(INVARLOCK)

bench-verify: build ## Verify one report and 2,000 reports against upstream's verifier: time, rate, memory
	bash tests/tools/upstream-venvs.sh
	$(CARGO) build $(REMAP) --release --locked -p invarlock-tests --bins
	$(RELEASE)/invarlock-verify-bench $(INVARLOCK)

bench-eval: build ## Tokens per second against PyTorch and llama.cpp, and of a checkpoint larger than the memory limit (3 GB of disk)
	$(CARGO) run $(REMAP) --release --locked -q -p invarlock-evaluator --example bench_eval -- $(INVARLOCK)

bench-eval-plots: ## Draw the time of a measurement against windows, layers, width and vocabulary (docs/performance.svg)
	$(CARGO) run $(REMAP) --release --locked -q -p invarlock-evaluator --example bench_eval -- --plots docs/performance.svg

bench-images: ## Import, pull, unpack and verify against skopeo, umoci, podman and openssl (needs them, docker-registry, and 8 GB of disk)
	$(CARGO) bench --locked -p invarlock-images --bench images

attack: ## Run every attack of docs/attacks.md and of the probe, as root and as a user, and print a table
	$(CARGO) build --locked --workspace --all-features --bins
	$(CARGO_TARGET_DIR)/$(TRIPLE)/debug/invarlock-attack

attack-images: ## Import hostile archives and layouts, as root and as a user, and print a table
	$(CARGO) build --locked -p invarlock-images --tests
	$(CARGO) nextest run --locked -p invarlock-images --test hostile --test differential --no-fail-fast --success-output immediate 2>&1 | \
	    grep -E '^ *(root|user)[ :]|damaged archives|alike|^ *(PASS|FAIL)|Summary'

reproduction-trials: ## Verify by measuring again, 100 times each: honest, invented, lowered and relabelled evidence; print how many pass
	$(CARGO) build --locked --workspace --all-features --bins
	$(CARGO) test --locked --workspace --all-features --test reproduce a_hundred_trials -- --ignored --nocapture

fuzz: ## Fuzz the parsers of untrusted input, FUZZ_SECONDS (180) each, from the seeds in fuzz/ (needs a nightly compiler and cargo-fuzz)
	for target in $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs))); do \
	    mkdir -p fuzz/corpus/$$target; \
	    CARGO_TARGET_DIR=$(CURDIR)/fuzz/target $(CARGO) +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	        -max_total_time=$${FUZZ_SECONDS:-180} -timeout=20 -rss_limit_mb=1024 -print_final_stats=1 2>&1 | tail -n 12; \
	done

slurm: ## Sweep 50 runs through Slurm against the same here, and lose a node of two in the middle (needs slurm-wlm, munge; three minutes)
	$(CARGO) build --locked --workspace --all-features --bins
	$(CARGO) test --locked --workspace --all-features --test slurm -- --ignored --nocapture --test-threads=1

bench-calibrate: ## Calibrate with 20 runs, two jobs against one, each run with one thread (three minutes)
	$(CARGO) build --locked --workspace --all-features --bins
	$(CARGO) test --locked --workspace --all-features --test calibrate -- --ignored --nocapture

soak: build ## 1,000 runs in a row, 50 at once, and killed runs: print what they leave behind
	$(CARGO) build $(REMAP) --release --locked -p invarlock-tests --bins
	$(RELEASE)/invarlock-soak $(INVARLOCK)

test-vm: ## Boot Debian's 6.1 kernel with unified cgroups under QEMU and run a small suite in it (needs qemu-system-x86, e2fsprogs)
	$(CARGO) build --locked --workspace --all-features --bins
	bash tests/tools/vm.sh

install: build ## Install both programs to $(PREFIX)/bin
	install -D -m 0755 $(INVARLOCK) $(DESTDIR)$(PREFIX)/bin/invarlock
	install -D -m 0755 $(RELEASE)/invarlock-evaluator $(DESTDIR)$(PREFIX)/bin/invarlock-evaluator

clean: ## Remove everything built here
	$(CARGO) clean
