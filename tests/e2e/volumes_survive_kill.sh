#!/bin/bash
# A server with volumes on a file is killed at moments of chance while `varve bench` writes, reads back and flushes over
# NVMe/TCP, and others make and delete volumes. After each start everything that was acknowledged and flushed must be
# there; now and then fsck looks, too. `volumes_survive_kill.sh 1000` does it a thousand times.
# limit: 300
. "$(dirname "$0")/../lib.sh"

kills=${1:-20}
[ -x "$VARVE" ] || fail "$VARVE is not built (make)"
nqn=nqn.2016-06.io.spdk:kill
port=$(free_port)
truncate -s 512M "$work/disk"
show_on_failure+=("$work/bench.json" "$work/bench.errors" "$work/fsck.text")

cat > "$work/config.json" << END
{"subsystems": [
  {"subsystem": "bdev", "config": [
    {"method": "bdev_aio_create", "params": {"name": "disk", "filename": "$work/disk", "block_size": 512}},
    {"method": "bdev_wait_for_examine"}]},
  {"subsystem": "nvmf", "config": [
    {"method": "nvmf_create_transport", "params": {"trtype": "TCP"}},
    {"method": "nvmf_create_subsystem", "params": {"nqn": "$nqn", "allow_any_host": true}},
    {"method": "nvmf_subsystem_add_ns", "params": {"nqn": "$nqn", "namespace": {"bdev_name": "lvs/volume"}}},
    {"method": "nvmf_subsystem_add_listener", "params": {"nqn": "$nqn", "listen_address": {
      "trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "$port"}}}]}]}
END

start_server
rpc bdev_aio_create '{"name": "disk", "filename": "'"$work/disk"'", "block_size": 512}' > /dev/null
rpc bdev_lvol_create_lvstore '{"bdev_name": "disk", "lvs_name": "lvs", "cluster_sz": 65536}' > /dev/null
rpc bdev_lvol_create '{"lvs_name": "lvs", "lvol_name": "volume", "size_in_mib": 64, "thin_provision": true}' > /dev/null
stop_server

# Reads what earlier lives wrote, then goes on, until SECONDS are over or the server is gone.
bench() {
    "$VARVE" bench --nvme "trtype:TCP traddr:127.0.0.1 trsvcid:$port subnqn:$nqn" -w verify --record "$work/record" \
        -q 8 -t "$1" --json > "$work/bench.json" 2> "$work/bench.errors"
}
not_wrong() { ! grep -q '"wrong": true' "$work/bench.json" || fail "life $life: what was flushed is not there"; }
# Volumes come and go meanwhile: changes of metadata to be killed in. Whatever is refused is refused.
others() {
    local n=0
    while :; do
        "$tests/jsonrpc.py" "$sock" bdev_lvol_create '{"lvs_name": "lvs", "lvol_name": "other'$((n % 3))'",
            "size_in_mib": 1}' || "$tests/jsonrpc.py" "$sock" bdev_lvol_delete '{"name": "lvs/other'$((n % 3))'"}' || return 0
        ((++n))
    done > /dev/null 2>&1
}

RANDOM=${SEED:-$$}
verified=0
for ((life = 1; life <= kills; ++life)); do
    start_server -c "$work/config.json"
    bench 60 &
    bench_pid=$!
    others &
    others_pid=$!
    sleep "0.$((RANDOM % 600 + 100))" # when, does not matter
    crash_server
    wait $bench_pid || true
    kill $others_pid 2> /dev/null || true
    wait $others_pid || true
    not_wrong
    ((verified += $(sed -n 's/.*"verified": \([0-9]*\).*/\1/p' "$work/bench.json" | grep . || echo 0))) || true
    if ((life % 10 == 0)); then
        status=0
        "$VARVE" fsck --dry-run "$work/disk" > "$work/fsck.text" 2>&1 || status=$?
        [ $status = 0 ] || [ $status = 4 ] || fail "life $life: fsck ended with $status"
        # What a kill may leave, and the next start mends: volumes half made, leaks, marks of use.
        ! grep -iE "two|also|damaged|cannot be read|set aside" "$work/fsck.text" || fail "life $life: fsck"
    fi
done
start_server -c "$work/config.json"
bench 1 || fail "the last life could not be verified"
((verified > 0)) || fail "nothing was compared between the kills"
not_wrong
stop_server
"$VARVE" fsck "$work/disk" > "$work/fsck.text" 2>&1 || fail "fsck after the end: status $?"
echo "$kills kills, $verified reads compared"
