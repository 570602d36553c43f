#!/bin/sh
# Builds kryoptic, the second PKCS#11 module of the tests, and prints its path. Takes libclang and the headers of
# OpenSSL and SQLite (scripts/packages.sh test installs them).
set -eu
cd "$(dirname "$0")/../softhsm/kryoptic"
cargo build --quiet --locked --target-dir ../../target/kryoptic >&2
echo "$(cd ../.. && pwd)/target/kryoptic/debug/libpkcs11_kryoptic.so"
