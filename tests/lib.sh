# shellcheck shell=bash disable=SC2154
# Sourced by every end-to-end script: a folder of its own, a server of its own, and an end for all it started.
#
#   start_server [OPTIONS...]      `varve serve` on a socket of its own; returns when it answers
#   stop_server / crash_server     SIGTERM and status 0 expected / SIGKILL
#   rpc METHOD [PARAMS-JSON]       prints the result; fails on an error object
#   rpc_error METHOD [PARAMS]      prints the error object; fails on a result
#   export_tcp NQN BDEV...         serves bdevs as namespaces 1.. over NVMe/TCP on 127.0.0.1:$port (see free_port)
#   fail TEXT, skip TEXT           end the test
#   sanitized                      whether the program is built with a sanitizer
#
# VARVE is the program (default build/release/varve), VARVE_SERVE the whole server command to test instead, for one that
# answers the same methods.
set -euo pipefail

tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
VARVE=${VARVE:-$tests/../build/release/varve}
work=$(mktemp -d "${TMPDIR:-/tmp}/varve-e2e.XXXXXX")
sock=$work/rpc.sock
server_pid=
also_end=()
show_on_failure=()

fail() {
    echo "FAIL: $*" >&2
    exit 1
}

skip() {
    echo "SKIP: $*"
    exit 77
}

on_exit() {
    local status=$? file pid
    trap - EXIT ERR
    trap '' PIPE # whoever reads our output may be gone; what we started must end all the same
    set +e
    for pid in ${server_pid:+"$server_pid"} "${also_end[@]}"; do
        kill -TERM "$pid" 2> /dev/null || continue
        for _ in {1..50}; do kill -0 "$pid" 2> /dev/null || break; sleep 0.1; done
        kill -KILL "$pid" 2> /dev/null
    done
    if [ $status != 0 ] && [ $status != 77 ]; then
        for file in "${show_on_failure[@]}" "$work/server.log"; do
            [ ! -s "$file" ] || { echo "--- ${file##*/}"; tail -n 150 "$file" | tr -d '\r'; }
        done >&2
    fi
    rm -rf "$work"
    exit $status
}
trap on_exit EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
trap 'echo "FAIL: line $LINENO: $BASH_COMMAND" >&2' ERR

# A port of this host's loopback nobody listens on, below the range connections take theirs from.
free_port() {
    local p
    while :; do
        p=$((20000 + RANDOM % 12000))
        (: > "/dev/tcp/127.0.0.1/$p") 2> /dev/null || { echo $p; return; }
    done
}

# Whether VARVE is built with a sanitizer, so that times and memory are not its own.
sanitized() { grep -qaE '__[at]san_init' "$VARVE"; }

start_server() {
    local command
    if [ -n "${VARVE_SERVE:-}" ]; then
        read -ra command <<< "$VARVE_SERVE"
    else
        [ -x "$VARVE" ] || fail "$VARVE is not built (make)"
        command=("$VARVE" serve)
    fi
    "${command[@]}" -r "$sock" "$@" >> "$work/server.log" 2>&1 &
    server_pid=$!
    for _ in {1..300}; do
        kill -0 "$server_pid" 2> /dev/null || fail "the server ended at its start"
        [ ! -S "$sock" ] || ! "$tests/jsonrpc.py" "$sock" spdk_get_version > /dev/null 2>&1 || return 0
        sleep 0.05
    done
    fail "the server did not answer in 15 s"
}

stop_server() {
    local status=0
    kill -TERM "$server_pid"
    for _ in {1..200}; do kill -0 "$server_pid" 2> /dev/null || break; sleep 0.05; done
    ! kill -0 "$server_pid" 2> /dev/null || fail "the server did not end in 10 s of SIGTERM"
    wait "$server_pid" || status=$?
    server_pid=
    [ $status = 0 ] || fail "the server ended with status $status on SIGTERM"
}

crash_server() {
    kill -KILL "$server_pid"
    wait "$server_pid" 2> /dev/null || true
    server_pid=
}

rpc() { "$tests/jsonrpc.py" "$sock" "$@"; }
rpc_error() { "$tests/jsonrpc.py" --error "$sock" "$@"; }

export_tcp() {
    local nqn=$1 bdev nsid=0
    shift
    rpc nvmf_create_transport '{"trtype": "TCP"}'
    rpc nvmf_create_subsystem '{"nqn": "'"$nqn"'", "allow_any_host": true, "serial_number": "VARVE0001",
        "model_number": "Varve test disk"}'
    for bdev in "$@"; do
        # The same identifiers again after a restart: a client that comes back checks that it is the same namespace.
        ((++nsid))
        rpc nvmf_subsystem_add_ns '{"nqn": "'"$nqn"'", "namespace": {"bdev_name": "'"$bdev"'",
            "uuid": "c0ffee00-0000-4000-8000-00000000000'$nsid'", "nguid": "C0FFEE0000000000800000000000000'$nsid'"}}'
    done
    # Last, so that a client that is waiting to reconnect finds everything in place.
    rpc nvmf_subsystem_add_listener '{"nqn": "'"$nqn"'", "listen_address": {"trtype": "TCP", "adrfam": "IPv4",
        "traddr": "127.0.0.1", "trsvcid": "'"$port"'"}}'
}
