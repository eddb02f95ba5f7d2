#!/bin/bash
# One server at a time on a socket; what was configured comes back from its saved configuration; flushed data survives
# SIGKILL; SIGTERM drains under load and ends with status 0; an idle server takes next to no processor time.
. "$(dirname "$0")/../lib.sh"

port=$(free_port)
nqn=nqn.2016-06.io.spdk:life
truncate -s 64M "$work/disk.img"
trid="trtype:TCP traddr:127.0.0.1 trsvcid:$port subnqn:$nqn"

start_server
first=$server_pid
! "$VARVE" serve -r "$sock" > "$work/second.log" 2>&1 || fail "a second server started on the same socket"
grep -q "another server" "$work/second.log" || fail "the second server did not say why: $(cat "$work/second.log")"
kill -0 "$first"

[ "$(stat -c %a "$sock")" = 600 ] || fail "the socket's mode is $(stat -c %a "$sock")"
rpc bdev_aio_create '{"name": "disk0", "filename": "'"$work/disk.img"'", "block_size": 4096}' > /dev/null
rpc bdev_malloc_create '{"name": "mem0", "num_blocks": 4096, "block_size": 512}' > /dev/null
export_tcp "$nqn" disk0 mem0 > /dev/null
rpc save_config > "$work/config.json"

# Written, verified, flushed; then killed: what was there must be there again.
"$VARVE" bench --nvme "$trid" -w verify -q 8 -t 2 --json > "$work/bench.json"
"$VARVE" bench --nvme "$trid" -w flush -q 1 -t 1 --json > /dev/null
before=$(sha256sum "$work/disk.img")
crash_server
[ "$before" = "$(sha256sum "$work/disk.img")" ]

start_server -c "$work/config.json"
rpc save_config > "$work/again.json"
diff "$work/config.json" "$work/again.json" > "$work/diff" || { cat "$work/diff" >&2; fail "the configuration did not come back"; }
"$VARVE" bench --nvme "$trid" -w randread -q 8 -t 1 --json > /dev/null

# Idle: less than 1 % of a core.
ticks() { awk '{print $14 + $15}' "/proc/$server_pid/stat"; }
sleep 1
from=$(ticks)
sleep 5
used=$(($(ticks) - from))
[ "$used" -lt 5 ] || fail "an idle server used $used ticks of processor time in 5 s"

# Ending under load: the client sees its connection go, the server ends in order.
"$VARVE" bench --nvme "$trid" -w randread -q 32 -t 20 --json > "$work/load.json" 2> "$work/load.err" &
load=$!
also_end+=("$load")
sleep 1
stop_server
wait "$load" && fail "the load ended as if nothing had happened" || true
