#!/bin/sh
# Sees to the system packages of a make target: installs what is missing if it can, else says what to install.
#   scripts/packages.sh build|demo|test|engine
# Non-interactive, and does nothing where everything is there. Debian and Ubuntu names; elsewhere it only says.
set -eu

missing=""
need() { # PACKAGE, then a command that succeeds if it is there
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
has() { command -v "$1"; }
postgres_server() { ls /usr/lib/postgresql/*/bin/initdb || has initdb; }
softhsm_module() {
    [ -n "${SOFTHSM2_MODULE:-}" ] && [ -f "$SOFTHSM2_MODULE" ] && return
    # The places that src/hsm/softhsm.rs looks in.
    for file in /usr/lib/softhsm /usr/lib/x86_64-linux-gnu/softhsm /usr/lib/aarch64-linux-gnu/softhsm \
        /usr/lib64/softhsm /usr/lib64/pkcs11 /usr/local/lib/softhsm; do
        [ -f "$file/libsofthsm2.so" ] && return
    done
    return 1
}

# One that answers, or one that scripts/engine.sh can start.
engine() { has docker && { docker info || has dockerd; }; }

compose() { docker compose version || has docker-compose; }

libclang() { ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so*; }

if ! has cargo >/dev/null; then
    echo "cargo is missing: install Rust 1.95 or newer (https://rustup.rs), then run make again" >&2
    exit 1
fi
# A C compiler builds SQLite and AWS-LC; protoc and cmake are not needed.
need build-essential has cc
case "${1:-}" in
build) ;;
demo) need softhsm2 softhsm_module ;;
test)
    need softhsm2 softhsm_module
    need opensc has pkcs11-tool
    need openssl has openssl
    need gdb has gdb
    need sqlite3 has sqlite3
    need postgresql postgres_server
    need curl has curl
    need strongswan-pki has pki
    # The compiler, too: the EST client in tests/interop is run from its source.
    need openjdk-17-jdk-headless has javac
    need libbcpkix-java test -f /usr/share/java/bcpkix.jar
    # kryoptic, the second PKCS#11 module, is built from its published source.
    need pkg-config has pkg-config
    need libclang-dev libclang
    need libssl-dev pkg-config --exists libcrypto
    need libsqlite3-dev pkg-config --exists sqlite3
    [ -x target/python/bin/python ] || need python3-venv python3 -c 'import ensurepip, venv'
    ;;
engine)
    need docker.io engine
    need debootstrap has debootstrap
    # For deploy/docker/compose.yml, unless the present plugin is there.
    need docker-compose compose
    ;;
*)
    echo "usage: $0 build|demo|test|engine" >&2
    exit 2
    ;;
esac
[ -n "$missing" ] || exit 0

as_root=""
if [ "$(id -u)" != 0 ]; then
    as_root="sudo -n"
    sudo -n true 2>/dev/null || as_root=no
fi
if [ "$as_root" = no ] || ! has apt-get >/dev/null; then
    echo "missing:$missing" >&2
    echo "install them (Debian: apt-get install$missing), then run make again" >&2
    exit 1
fi
echo "installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get -q -o DPkg::Lock::Timeout=300 update
# shellcheck disable=SC2086 # a list of names
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
    install --no-install-recommends $missing
