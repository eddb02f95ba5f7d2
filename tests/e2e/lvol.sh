#!/bin/bash
# Logical volumes over NVMe/TCP: thin ones, a snapshot and a clone, written and verified; all of it is there again after
# a restart and after SIGKILL under load, the snapshot has not changed by a byte, and fsck finds nothing.
. "$(dirname "$0")/../lib.sh"

port=$(free_port)
nqn=nqn.2016-06.io.spdk:lvol
trid="trtype:TCP traddr:127.0.0.1 trsvcid:$port subnqn:$nqn"
image=$work/disk.img
truncate -s 256M "$image"

# What every volume shows, from the image alone: "NAME SIZE SHA256" for those with a name.
contents() {
    "$VARVE" blob dump --json "$image" > "$work/dump.json"
    python3 - "$work/dump.json" "$image" << 'END'
import hashlib, json, sys
dump = json.load(open(sys.argv[1]))
image = open(sys.argv[2], "rb")
size = dump["store"]["cluster_size"]
blobs = {b["id"]: b for b in dump["blobs"]}
def clusters(b):
    out = []
    for run in b["map"]:
        out += [run["first"] + i if run["first"] else 0 for i in range(run["count"])]
    return out
maps = {id: clusters(b) for id, b in blobs.items()}
for id, b in sorted(blobs.items(), key=lambda each: each[1]["name"]):
    digest = hashlib.sha256()
    for at in range(b["clusters"]):
        look, found = id, 0
        while look in maps and not found:
            found = maps[look][at]
            look = blobs[look].get("parent")
        image.seek(found * size)
        digest.update(image.read(size) if found else bytes(size))
    print(b["name"], b["clusters"], digest.hexdigest())
END
}
volumes() { rpc bdev_lvol_get_lvols | python3 -c '
import json, sys
for v in sorted(json.load(sys.stdin), key=lambda v: v["name"]):
    print(v["alias"], v["uuid"], v["is_thin_provisioned"], v["is_snapshot"], v["is_clone"], v["is_degraded"])'; }
check_store() {
    "$VARVE" fsck "$image" > "$work/fsck.out" 2>&1 || { cat "$work/fsck.out" >&2; fail "fsck found something $1"; }
}
load() { "$VARVE" bench --nvme "$trid nsid:$1" -w verify -q 16 -t "$2" --json; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)'"$1"')'; }

start_server
rpc bdev_aio_create '{"name": "disk0", "filename": "'"$image"'", "block_size": 512}' > /dev/null
rpc construct_lvol_store '{"bdev_name": "disk0", "lvs_name": "lvs", "cluster_sz": 1048576}' > /dev/null
rpc bdev_lvol_create '{"lvs_name": "lvs", "lvol_name": "vol", "size_in_mib": 64, "thin_provision": true}' > /dev/null
rpc bdev_lvol_create '{"lvs_name": "lvs", "lvol_name": "thick", "size_in_mib": 8}' > /dev/null
export_tcp "$nqn" lvs/vol > /dev/null
load 1 2 > /dev/null
rpc bdev_lvol_snapshot '{"lvol_name": "lvs/vol", "snapshot_name": "snap"}' > /dev/null
rpc bdev_lvol_clone '{"snapshot_name": "lvs/snap", "clone_name": "copy"}' > /dev/null
[ "$(rpc bdev_get_bdevs '{"name": "lvs/snap"}' | field '[0]["supported_io_types"]["write"]')" = False ] ||
    fail "a snapshot seems to be writable"
rpc nvmf_subsystem_add_ns '{"nqn": "'"$nqn"'", "namespace": {"bdev_name": "lvs/copy"}}' > /dev/null
load 1 1 > /dev/null
load 2 1 > /dev/null
rpc bdev_lvol_resize '{"name": "lvs/thick", "size_in_mib": 12}' > /dev/null
volumes > "$work/volumes"
rpc save_config > "$work/config.json"
stop_server
check_store "after a clean end"
grep -q ", unloaded" "$work/fsck.out" || fail "the store was not unloaded: $(cat "$work/fsck.out")"
contents > "$work/contents"
[ "$(wc -l < "$work/contents")" = 5 ] || fail "volumes: $(cat "$work/contents")"

# The same volumes, the same bytes, the same namespaces.
same() {
    volumes > "$work/now"
    diff "$work/volumes" "$work/now" >&2 || fail "$1: other volumes"
    [ "$(rpc bdev_get_bdevs '{"name": "lvs/thick"}' | field '[0]["num_blocks"]')" = 24576 ] || fail "$1: another size"
}
start_server -c "$work/config.json"
same "after a restart"
rpc save_config > "$work/again.json"
cmp "$work/config.json" "$work/again.json" || fail "the configuration did not come back"
stop_server
contents | diff "$work/contents" - >&2 || fail "volumes changed by a restart"

# Killed under load, twice: nothing a host was told of is lost, and the snapshot is what it was.
grep "^snap " "$work/contents" > "$work/snap"
for round in 1 2; do
    start_server -c "$work/config.json"
    same "round $round"
    load "$round" 30 > /dev/null 2>&1 &
    also_end+=($!)
    writes() { rpc bdev_get_iostat '{"names": ["lvs/'"$1"'"]}' | field '["bdevs"][0]["num_write_ops"]'; }
    name=$([ $round = 1 ] && echo vol || echo copy)
    for _ in {1..300}; do [ "$(writes $name)" -lt 500 ] || break; sleep 0.1; done
    [ "$(writes $name)" -ge 500 ] || fail "no load on $name"
    crash_server
    check_store "after SIGKILL"
    contents > "$work/now"
    grep "^snap " "$work/now" | cmp - "$work/snap" || fail "the snapshot changed in round $round"
done
start_server -c "$work/config.json"
same "after SIGKILL"
load 1 1 > /dev/null
rpc bdev_lvol_decouple_parent '{"name": "lvs/copy"}' > /dev/null
"$VARVE" jobs -s "$sock" > "$work/jobs"
grep -Eq "^ +1  .*complete .*lvs/copy" "$work/jobs" || fail "jobs: $(cat "$work/jobs")"
! "$VARVE" jobs -s "$sock" cancel 1 2> "$work/jobs" || fail "a job that has ended was cancelled"
grep -q "job 1 has ended" "$work/jobs" || fail "jobs: $(cat "$work/jobs")"
[ "$(rpc bdev_lvol_check '{"lvs_name": "lvs"}' | field '["errors"]')" = 0 ] || fail "the check found errors"
rpc bdev_lvol_delete '{"name": "lvs/copy"}' > /dev/null
rpc bdev_lvol_delete '{"name": "lvs/snap"}' > /dev/null
[ "$(rpc bdev_lvol_get_lvols | field '.__len__()')" = 2 ] || fail "what was deleted is there"
load 1 1 > /dev/null
stop_server
check_store "at the end"
