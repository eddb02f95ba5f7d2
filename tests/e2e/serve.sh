#!/bin/bash
# `varve serve` as a program: start, command line, configuration files, a second instance, signals, end.
. "$(dirname "$0")/../lib.sh"

now_ms() { date +%s%3N; }

# No options but the socket: answers at once, small, quiet, and ends in order.
start=$(now_ms)
"$VARVE" serve -r "$sock" > "$work/server.log" 2>&1 &
server_pid=$!
until "$VARVE" rpc -s "$sock" spdk_get_version > /dev/null 2>&1; do
    kill -0 "$server_pid" || fail "the server ended at its start"
    [ $(($(now_ms) - start)) -lt 5000 ] || fail "no answer in 5 s"
done
took=$(($(now_ms) - start))
rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$server_pid/status")
echo "first answer after $took ms, resident $rss KiB"
if ! sanitized; then
    [ "$took" -lt 1000 ] || fail "first answer after $took ms (100 on an idle machine)"
    [ "$rss" -lt 40960 ] || fail "resident memory is $rss KiB"
fi
[ "$(stat -c %a "$sock")" = 600 ] || fail "others may use the socket"

# A second instance on the same socket says so and goes; the first is unharmed.
status=0
"$VARVE" serve -r "$sock" > "$work/second.log" 2>&1 || status=$?
[ $status = 1 ] || fail "a second instance ended with $status"
grep -q "another server is there" "$work/second.log" || fail "a second instance says: $(cat "$work/second.log")"
rpc log_get_level > "$work/out"
grep -q NOTICE "$work/out" || fail "the first instance was harmed"

# varve rpc: results, errors, usage, nobody there.
"$VARVE" rpc -s "$sock" bdev_null_create --name Null0 --num_blocks 2048 --block_size 512 > "$work/out"
[ "$(cat "$work/out")" = '"Null0"' ] || fail "bdev_null_create gave $(cat "$work/out")"
expect_status() {
    local want=$1 got=0
    shift
    "$@" > "$work/out" 2> "$work/err" || got=$?
    [ "$got" = "$want" ] || fail "$*: status $got, not $want: $(cat "$work/err")"
}
expect_status 1 "$VARVE" rpc -s "$sock" bdev_null_create --name Null0 --num_blocks 2048 --block_size 512
grep -q "^error -17: File exists" "$work/err" || fail "$(cat "$work/err")"
expect_status 1 "$VARVE" rpc -s "$sock" no_such_method --a 1
expect_status 2 "$VARVE" rpc -s "$sock" bdev_null_create --nonsense 1
expect_status 3 "$VARVE" rpc -s "$work/nobody" bdev_get_bdevs
expect_status 0 "$VARVE" rpc bdev_null_create --help
grep -q -- --num_blocks "$work/out" || fail "help does not tell the parameters"
echo '[{"method":"log_get_level","id":1},{"method":"bdev_null_delete","params":{"name":"Null0"},"id":2}]' |
    "$VARVE" rpc -s "$sock" --json - > "$work/out"
grep -q '"result": true' "$work/out" || fail "a batch gave $(cat "$work/out")"
stop_server
[ ! -e "$sock" ] || fail "the socket is left behind"

# Signals: SIGINT, and the one a client asks for.
start_server
kill -INT "$server_pid"
wait "$server_pid" || fail "SIGINT ended the server with $?"
start_server
rpc spdk_kill_instance '{"sig_name": "SIGTERM"}' > /dev/null
wait "$server_pid" || fail "spdk_kill_instance ended the server with $?"

# A killed server leaves its socket; the next one takes it over.
start_server
crash_server
[ -S "$sock" ] || fail "no socket left to test with"

# Start-up by hand, saved configuration, and a start from it.
start_server --wait-for-rpc
rpc_error bdev_get_bdevs | grep -q "framework_start_init" || fail "bdev_get_bdevs at start-up"
rpc bdev_set_options '{"bdev_auto_examine": false}' > /dev/null
rpc framework_start_init > /dev/null
rpc_error bdev_set_options '{"bdev_auto_examine": true}' | grep -q '"code": -1' || fail "bdev_set_options at run time"
rpc bdev_malloc_create '{"name": "M0", "num_blocks": 2048, "block_size": 512}' > /dev/null
rpc save_config > "$work/saved.json"
stop_server
start_server -c "$work/saved.json"
rpc save_config > "$work/again.json"
cmp "$work/saved.json" "$work/again.json" || fail "a saved configuration does not load to the same"
stop_server

# By the name spdk_tgt, with its command line.
ln -s "$(realpath "$VARVE")" "$work/spdk_tgt"
"$work/spdk_tgt" -m 0x1 -s 512 -r "$sock" -i 0 -e 0xffff -u --no-huge --json "$work/saved.json" -L bdev -f "$work/pid" \
    > "$work/server.log" 2>&1 &
server_pid=$!
for _ in {1..100}; do [ -S "$sock" ] && rpc bdev_get_bdevs > "$work/out" 2> /dev/null && break; sleep 0.05; done
grep -q '"M0"' "$work/out" || fail "spdk_tgt did not load its configuration"
[ "$(cat "$work/pid")" = "$server_pid" ] || fail "the pid file says $(cat "$work/pid")"
stop_server

# What it cannot do, it says, and ends with 1 (2 for the command line).
cannot() {
    local want=$1 text=$2
    shift 2
    expect_status "$want" timeout 20 "$VARVE" serve "$@"
    grep -q "$text" "$work/err" || fail "varve serve $*: $(cat "$work/err")"
}
echo '{"subsystems": [{"subsystem": "bdev", "config": [{"method": "bdev_null_create", "params": {"name": "a"}}]}]}' > "$work/bad.json"
echo '{"subsystems": [' > "$work/half.json"
cannot 1 "num_blocks is missing" -r "$sock" -c "$work/bad.json"
cannot 1 "Parse error" -r "$sock" -c "$work/half.json"
cannot 1 "No such file or directory" -r "$sock" -c "$work/absent.json"
cannot 1 "No such file or directory" -r "$work/no/such/folder/sock"
cannot 1 "zz" -r "$sock" -m zz
cannot 1 "no log flag" -r "$sock" -L nonsense
cannot 2 "exclude each other" -r "$sock" -c "$work/saved.json" --wait-for-rpc
cannot 2 "not expected" -r "$sock" --nonsense
