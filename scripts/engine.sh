#!/bin/sh
# Runs a command with a container engine and the images of tests/containers:
#   scripts/engine.sh COMMAND [ARGUMENT...]
# The engine is the one that is there (`docker info` answers); else, for root, a dockerd started here and stopped at the end,
# which leaves the machine's network rules alone and keeps images and layers in ~/.cache/keybroker/engine. Its base image
# comes from debootstrap, so that no image registry is needed. COMMAND gets DOCKER_HOST, and in KEYBROKER_TEST_ENGINE
# "ready", or why there is no engine: it runs all the same.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
base=debian:bookworm-slim
dockerd_pid=""
scratch=$(mktemp -d)

stop() {
    status=$?
    trap - EXIT INT TERM
    if [ -n "$dockerd_pid" ]; then
        # Whatever a test that was killed has left; the image of the binary before.
        docker ps --all --quiet | xargs -r docker rm --force >/dev/null 2>&1 || true
        docker volume ls --quiet --filter dangling=true | xargs -r docker volume rm --force >/dev/null 2>&1 || true
        docker network prune --force >/dev/null 2>&1 || true
        docker image prune --force >/dev/null 2>&1 || true
        kill "$dockerd_pid" 2>/dev/null || true
        wait "$dockerd_pid" 2>/dev/null || true
        # It leaves the network namespaces that it has looked at mounted.
        umount "$scratch"/exec/netns/* 2>/dev/null || true
    fi
    rm -rf --one-file-system "$scratch"
    exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

has() { command -v "$1" >/dev/null 2>&1; }

# Waits until a dockerd of ours answers; fails if it ends before.
start_own() {
    home=${XDG_CACHE_HOME:-$HOME/.cache}/keybroker/engine
    mkdir -p "$home"
    # Two do not share it: the second waits until the first has ended.
    exec 9>"$home/lock"
    flock 9
    DOCKER_HOST=unix://$scratch/docker.sock
    export DOCKER_HOST
    dockerd --host "$DOCKER_HOST" --data-root "$home/data" --exec-root "$scratch/exec" --pidfile "$scratch/pid" \
        --bridge=none --iptables=false --ip6tables=false --ip-forward=false >"$home/log" 2>&1 9>&- &
    dockerd_pid=$!
    for _ in $(seq 300); do
        docker info >/dev/null 2>&1 && return
        kill -0 "$dockerd_pid" 2>/dev/null || break
        sleep 0.2
    done
    no_engine "dockerd does not start: $(grep -v level=info "$home/log" | tail -n 1)"
}

find_engine() {
    has docker || { no_engine "docker is not installed"; return; }
    if docker info >/dev/null 2>&1; then
        DOCKER_HOST=${DOCKER_HOST:-$(docker context inspect --format '{{.Endpoints.docker.Host}}')}
        export DOCKER_HOST
    elif [ "$(id -u)" != 0 ]; then
        no_engine "no engine answers, and only root can start one"
    elif ! has dockerd; then
        no_engine "no engine answers, and dockerd is not installed"
    else
        start_own
    fi
}

no_engine() { KEYBROKER_TEST_ENGINE=$1; }

base_image() {
    docker image inspect "$base" >/dev/null 2>&1 && return
    # Somebody's engine has a way to its registry; ours may not.
    [ -z "$dockerd_pid" ] && timeout 120 docker pull --quiet "$base" && return
    [ "$(id -u)" = 0 ] && has debootstrap || return 1
    echo "making $base by debootstrap" >&2
    debootstrap --variant=minbase bookworm "$scratch/root" >"$scratch/debootstrap.log" 2>&1 ||
        { tail -n 3 "$scratch/debootstrap.log" >&2; return 1; }
    tar --directory "$scratch/root" --create . | docker import - "$base" >/dev/null
}

# The host's network is for apt-get only.
image() { # TAG DOCKERFILE CONTEXT
    docker build --network host --tag "$1" --file "$2" "$3" >"$scratch/build.log" 2>&1 ||
        { tail -n 20 "$scratch/build.log" >&2; return 1; }
}

images() {
    base_image || return 1
    # The image that deploy/docker describes, with the binary that the tests are built with.
    context=$scratch/context
    mkdir -p "$context/target/release" "$context/deploy/docker"
    cp "$target/debug/keybroker" "$context/target/release/"
    cp deploy/docker/ready "$context/deploy/docker/"
    image keybroker-test deploy/docker/Dockerfile "$context" &&
        image keybroker-test-postgres softhsm/images/postgres/Dockerfile softhsm/images/postgres &&
        image keybroker-test-postgres-official softhsm/images/postgres-official/Dockerfile softhsm/images/postgres-official
}

KEYBROKER_TEST_ENGINE=ready
find_engine
if [ "$KEYBROKER_TEST_ENGINE" = ready ]; then
    images || no_engine "the engine at $DOCKER_HOST cannot make the images"
fi
export KEYBROKER_TEST_ENGINE
if [ "$KEYBROKER_TEST_ENGINE" = ready ]; then
    echo "container engine: $DOCKER_HOST" >&2
else
    echo "no container engine: $KEYBROKER_TEST_ENGINE" >&2
fi
"$@"
