# make demo   from nothing: the whole story against a fresh SoftHSM2 token (N=VNFCIs, KEEP=DIR to look at afterwards)
# make test   everything that CI runs
# make kryoptic  the tests of the token and of claims on a second, independent PKCS#11 module (part of make test)
# make lint   formatting and clippy
# make tools  target/python: what the tests check us with
# make docs   the code's documentation in target/doc, private items included
# make build  the release binary

.PHONY: help build demo test kryoptic lint tools docs clean
.DEFAULT_GOAL := help

N ?=
KEEP ?=

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

# On kryoptic: what the token must do, and claims from end to end.
kryoptic: tools
	KEYBROKER_TEST_KRYOPTIC=$$(scripts/kryoptic.sh) cargo test --locked --test hsm_envelope --test hsm_token
	KEYBROKER_TEST_KRYOPTIC=$$(scripts/kryoptic.sh) cargo test --locked --test promises -- claims:: restart::

# The runner comes last: its closing line is the verdict.
test: lint tools kryoptic
	if cargo nextest --version >/dev/null 2>&1; then \
	    cargo nextest run --locked --no-fail-fast; \
	else \
	    cargo test --locked --no-fail-fast; \
	fi

docs:
	@scripts/packages.sh build
	RUSTDOCFLAGS="-D rustdoc::broken-intra-doc-links" cargo doc --locked --no-deps --document-private-items

clean:
	cargo clean
