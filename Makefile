# The only entry points. Each does its own set-up; `make` alone explains them.

export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)
TARGET := $(or $(CARGO_TARGET_DIR),target)
LAB := $(TARGET)/debug/trustfleet-lab

AS_ROOT := $(filter 0,$(shell id -u))

.DEFAULT_GOAL := help
.PHONY: help setup demo test bench chaos lint layers fmt audit fuzz interop images

help:
	@echo 'make demo     enrol four devices through the whole system, renew a real nginx by itself (DEMO_EXIT=1: exit at the end; DEMO_TLS=1: all encrypted;'
	@echo '              DEMO_REPLICAS=3: three controllers, one of which is killed meanwhile)'
	@echo 'make test     all tests, inside a private PostgreSQL and RabbitMQ (TESTARGS="..." goes to cargo nextest run)'
	@echo 'make bench    speed and size of a release build beside openssl and beside targets (BENCHARGS="cmp --quick"; docs/benchmarks.md)'
	@echo 'make chaos    the agent killed before every single step that it takes (make test takes every fifth, by a seed);'
	@echo '              three controllers killed and frozen while 2,000 devices enrol, twenty seeds (make test: one, 160 devices)'
	@echo 'make lint     formatting, clippy, the walls between the layers, dependencies and licences'
	@echo 'make fuzz     look for inputs that break what reads messages of peers (FUZZ_SECONDS=600, docs/cmp.md)'
	@echo 'make interop  the Helm charts under the real tools, and the programs under the charts (docs/interop.md)'
	@echo 'make images   container images of controller and agent, by docker, podman or buildah'
	@echo 'make setup    install what is missing (Debian; elsewhere it says what to install)'
	@echo 'make fmt      format everything'
	@echo 'make audit    look for known vulnerabilities in dependencies (needs the network)'

setup:
	@scripts/setup.sh

demo: setup
	@cargo build --workspace --bins
	@$(LAB) demo $(DEMOARGS)

test:
	@scripts/setup.sh test
	cargo build --workspace --all-targets
	@$(if $(AS_ROOT),,echo 'make test: not root: strongSwan in network namespaces is LEFT OUT (docs/services.md)' >&2)
	$(if $(AS_ROOT),,TRUSTFLEET_WITHOUT_NAMESPACES=1) $(LAB) stack -- cargo nextest run --workspace $(if $(CI),--profile ci) $(TESTARGS)
	cargo test --quiet --workspace --doc

# A release build: what is measured is what is shipped.
bench: setup
	@cargo build --release --workspace --bins
	@cargo build --profile release-agent --package trustfleet-agent
	@$(TARGET)/release/trustfleet-lab bench $(BENCHARGS)

# All points of lab/tests/kill_at_every_step.rs, some minutes; and twenty seeds of lab/tests/replicas.rs with 2,000 devices each.
REPLICAS := TRUSTFLEET_REPLICAS_SEEDS=20 TRUSTFLEET_REPLICAS_DEVICES=2000
chaos:
	@scripts/setup.sh test
	cargo build --workspace --bins --test kill_at_every_step --test replicas
	TRUSTFLEET_CHAOS=1 $(LAB) stack -- cargo nextest run --workspace --test kill_at_every_step $(TESTARGS)
	$(REPLICAS) $(LAB) stack -- cargo nextest run --workspace --profile chaos --test replicas --no-capture

lint: layers
	@scripts/setup.sh lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo deny check bans licenses sources

# The walls between the layers: plain Rust without dependencies, so that it needs no build of the house.
layers:
	@mkdir -p $(TARGET)
	@CARGO_MANIFEST_DIR=$(CURDIR)/lab rustc --edition 2024 --test lab/tests/layering.rs -o $(TARGET)/layering
	@RUST_BACKTRACE=0 $(TARGET)/layering --quiet

fmt:
	cargo fmt --all

audit:
	@scripts/setup.sh lint
	cargo deny check advisories

# Needs no nightly toolchain; the corpus is replayed by `make test`.
fuzz:
	@scripts/setup.sh fuzz
	@scripts/fuzz.sh $(FUZZARGS)

# The demonstration's set-up: it runs the programs in a private PostgreSQL and RabbitMQ.
interop: setup
	@cargo build --workspace --bins
	@scripts/interop/run.sh

# Needs nothing but one of docker, podman and buildah: everything is built inside.
images:
	@scripts/images.sh
