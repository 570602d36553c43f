# make demo   from nothing: the whole story against a fresh SoftHSM2 token (N=VNFCIs, KEEP=DIR to look at afterwards)
# make test   everything that CI runs
# make kryoptic  the token, claims and crash points on a second, independent PKCS#11 module (part of make test)
# make containers  brokers and PostgreSQL in containers, killed, paused and cut off; says so where no engine can be had
# make storm  SIGKILL in the middle of everything, five times what `make test` does (STORM=times)
# make soak  two brokers, PostgreSQL and the token killed, stopped and made to fail under mixed load (SOAK=seconds, SEED=dice)
# make simulation  random steps against a model for longer than `make test` does (SIMULATION=seconds)
# make scale  1,000 VNFCIs at once and 20,000 credentials in a pool, with figures (SCALE=tenths of that)
# make decay  PostgreSQL's claims per second over six refills of one pool that nobody vacuums (DECAY=times 400 claims)
# make fuzz   every fuzz target under libFuzzer for a minute (FUZZ=seconds); installs cargo-fuzz if it is missing
# make lint   formatting and clippy
# make tools  target/python: what the tests check us with
# make docs   the code's documentation in target/doc, private items included
# make build  the release binary

.PHONY: help build demo test kryoptic containers storm soak simulation scale decay fuzz lint tools docs clean
.DEFAULT_GOAL := help

N ?=
KEEP ?=
STORM ?= 5
SOAK ?= 600
SEED ?=
SIMULATION ?= 600
SCALE ?= 10
DECAY ?= 10
FUZZ ?= 60

help:
	@sed -n '/^#/!q;s/^# //p' Makefile

build:
	@scripts/packages.sh build
	cargo build --release --locked

demo:
	@scripts/packages.sh demo
	cargo build --release --locked
	target/release/keybroker demo $(if $(N),--vnfcis $(N)) $(if $(KEEP),--keep $(KEEP))

tools:
	@scripts/packages.sh test
	@scripts/python-tools.sh

lint:
	@scripts/packages.sh build
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

# On kryoptic: what the token must do, claims from end to end, and a broker that dies at every crash point.
kryoptic: tools
	KEYBROKER_TEST_KRYOPTIC=$$(scripts/kryoptic.sh) cargo test --locked --test hsm_envelope --test hsm_token
	KEYBROKER_TEST_KRYOPTIC=$$(scripts/kryoptic.sh) cargo test --locked --test promises -- claims:: restart:: crashes::

# Without an engine each test says that it is skipped.
containers:
	@scripts/packages.sh test
	@scripts/packages.sh engine || true
	cargo build --locked
	scripts/engine.sh cargo test --locked --test containers -- --nocapture --test-threads 2

# The runner comes last: its closing line is the verdict.
test: lint tools kryoptic
	if cargo nextest --version >/dev/null 2>&1; then \
	    cargo nextest run --locked --no-fail-fast; \
	else \
	    cargo test --locked --no-fail-fast; \
	fi

# In release builds: what is tried is the program as it is delivered.
storm: tools
	KEYBROKER_STORM=$(STORM) cargo test --locked --release --test promises storms -- --test-threads 1

soak: tools
	KEYBROKER_SOAK=$(SOAK) $(if $(SEED),KEYBROKER_SOAK_SEED=$(SEED)) \
	    cargo test --locked --test promises soak -- --nocapture

simulation:
	@scripts/packages.sh test
	KEYBROKER_SIMULATION_SECONDS=$(SIMULATION) cargo test --locked --test simulation -- --nocapture

scale: tools
	KEYBROKER_SCALE=$(SCALE) cargo test --locked --release --test promises scale -- --test-threads 1 --nocapture

decay:
	KEYBROKER_DECAY=$(DECAY) cargo test --locked --release --test store_conformance drawing_from_a_pool_that_was_refilled -- --nocapture

# RUSTC_BOOTSTRAP: a stable toolchain takes the flags for coverage, too.
fuzz:
	@scripts/packages.sh build
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz
	@for target in $$(ls fuzz/seeds); do \
	    mkdir -p fuzz/corpus/$$target && \
	    RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	        -max_total_time=$(FUZZ) -max_len=16384 -print_final_stats=1 || exit 1; \
	done

docs:
	@scripts/packages.sh build
	RUSTDOCFLAGS="-D rustdoc::broken-intra-doc-links" cargo doc --locked --no-deps --document-private-items

clean:
	cargo clean
