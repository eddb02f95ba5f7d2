#!/bin/bash
# Budgets of user instructions: the bdev layer with a null bdev at queue depth 32, one pass-through layer more, and a
# logical volume over a malloc bdev, reads and writes of clusters it has.
# Counts, not times: they are the same on a busy machine.
# limit: 600
. "$(dirname "$0")/../lib.sh"

command -v valgrind > /dev/null || skip "valgrind is not installed (make deps)"
[ -x "$VARVE" ] || fail "$VARVE is not built (make)"
! sanitized || skip "budgets are for release builds"
export VARVE_LOOP=epoll # valgrind knows no io_uring

cat > "$work/config.json" << 'END'
{"subsystems": [{"subsystem": "bdev", "config": [
  {"method": "bdev_null_create", "params": {"name": "Null0", "num_blocks": 2097152, "block_size": 512}},
  {"method": "bdev_passthru_create", "params": {"name": "Layer0", "base_bdev_name": "Null0"}}]}]}
END
cat > "$work/volume.json" << 'END'
{"subsystems": [{"subsystem": "bdev", "config": [
  {"method": "bdev_malloc_create", "params": {"name": "Malloc0", "num_blocks": 4096, "block_size": 4096}},
  {"method": "bdev_malloc_create", "params": {"name": "Malloc1", "num_blocks": 8192, "block_size": 4096}},
  {"method": "bdev_lvol_create_lvstore", "params": {"bdev_name": "Malloc1", "lvs_name": "lvs", "cluster_sz": 1048576}},
  {"method": "bdev_lvol_create", "params": {"lvs_name": "lvs", "lvol_name": "thick", "size_in_mib": 16}}]}]}
END

# count NAME SECONDS [OPTIONS]: the turns of the reactors of one `varve bench`, in NAME.profile and NAME.json
count() {
    local name=$1 seconds=$2
    shift 2
    show_on_failure+=("$work/$name.errors")
    valgrind -q --log-file="$work/$name.valgrind" --tool=callgrind --collect-atstart=no \
        --toggle-collect=varve_reactor_turn --callgrind-out-file="$work/$name.profile" \
        "$VARVE" bench -q 32 -t "$seconds" --json "$@" > "$work/$name.json" 2> "$work/$name.errors"
}
# A short and a long one: what the start costs is in both, and not in the difference.
ios() { sed -n 's/.*"ios": \([0-9]*\).*/\1/p' "$work/$1.json"; }
measure() {
    local name=$1 seconds=4
    shift
    count "$name-short" 1 "$@"
    count "$name-long" $seconds "$@"
    while [ $(($(ios "$name-long") - $(ios "$name-short"))) -lt 100000 ]; do # others had the processor
        seconds=$((seconds * 2))
        [ $seconds -le 64 ] || fail "the long run did no more than the short one"
        count "$name-long" $seconds "$@"
    done
}
measure null -o 512
measure layer -o 512 -c "$work/config.json" -T Layer0
for how in randread randwrite; do
    measure memory-$how -o 4096 -w $how -c "$work/volume.json" -T Malloc0
    measure volume-$how -o 4096 -w $how -c "$work/volume.json" -T lvs/thick
done

python3 - "$work" << 'END'
import json, re, sys

LOAD = ("src/app/", "src/metrics/")  # what asks and measures is not what is asked


def profile(name):
    """Instructions of the load generator and of everything else, and I/Os. Inlined code counts where it was written."""
    files, here, call = {}, None, False
    load = rest = 0
    for line in open(f"{sys.argv[1]}/{name}.profile"):
        place = re.match(r"(?:fl|fi|fe|cfi|cfl)=\((\d+)\)(?: (.*))?", line)
        if place:
            if place[2]:
                files[place[1]] = place[2]
            if not line.startswith("c"):
                here = files[place[1]]
        elif line.startswith("calls="):
            call = True  # the next line is what the callee cost: counted in the callee already
        elif cost := re.match(r"[+*\d-]\S* (\d+)$", line):
            if call:
                call = False
            elif any(part in here for part in LOAD):
                load += int(cost[1])
            else:
                rest += int(cost[1])
    with open(f"{sys.argv[1]}/{name}.json") as f:
        result = json.load(f)
    if result["errors"]:
        sys.exit(f"{name}: {result['errors']} errors")
    return load, rest, result["ios"]


def costs(name):
    load, rest, ios = (long - short for long, short in zip(profile(name + "-long"), profile(name + "-short")))
    return load / ios, rest / ios


load, null = costs("null")
load_on_layer, layer = costs("layer")
print(f"null bdev {null:.1f}, one layer more {layer - null:.1f} (the load itself {load:.1f} and {load_on_layer:.1f})")
volume = {}
for how in ("randread", "randwrite"):
    load_on_memory, memory = costs("memory-" + how)
    load_on_volume, with_volume = costs("volume-" + how)
    volume[how] = with_volume - memory
    print(f"{how} on a volume {volume[how]:.1f} more than on memory ({memory:.1f}; the load itself {load_on_memory:.1f} "
          f"and {load_on_volume:.1f})")
# Code the load generator does not have would be a profile that was not understood.
if not (50 < load < 400 and abs(load - load_on_layer) < 5 and null > 30):
    sys.exit("FAIL: these are no plausible figures")
if null > 120:
    sys.exit(f"FAIL: {null:.1f} instructions an I/O of a null bdev; at most 120")
if layer - null > 60:
    sys.exit(f"FAIL: {layer - null:.1f} instructions for a pass-through layer; at most 60")
for how, more in volume.items():
    if not 40 < more <= 100:
        sys.exit(f"FAIL: {more:.1f} instructions an I/O more on a volume than below it, {how}; at most 100")
END
