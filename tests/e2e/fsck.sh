#!/bin/bash
# varve fsck and varve blob dump on images made from the format's document (tests/blobstore_image.py): each damage is
# found, repaired or left with the right exit status, no byte of a volume changes, and a repair can be taken back.
. "$(dirname "$0")/../lib.sh"

make_image="$tests/blobstore_image.py"
image=$work/store.img
cd "$work"

# fsck STATUS [OPTIONS]: runs it on the image, output in $work/out
fsck() {
    local wanted=$1 status=0
    shift
    "$VARVE" fsck "$@" "$image" > "$work/out" 2>&1 || status=$?
    [ $status = "$wanted" ] || { cat "$work/out" >&2; fail "varve fsck $*: status $status, not $wanted"; }
}
# The clusters of the volumes; metadata of this image is in the first.
data_sum() { tail -c +$((1024 * 1024 + 1)) "$image" | sha256sum; }

"$make_image" "$image"
fsck 0
fsck 0 --repair
"$VARVE" blob dump --json "$image" > dump.json
python3 - dump.json << 'EOF'
import json, sys
dump = json.load(open(sys.argv[1]))
blobs = {b["name"]: b for b in dump["blobs"]}
assert set(blobs) == {"lvs0", "thick", "thin", "snap1", "snap2", "snap3", "deep", "old"}, blobs.keys()
assert dump["store"]["super_blob"] == blobs["lvs0"]["id"]
assert blobs["thin"]["clusters"] == 1500 and blobs["thin"]["allocated"] == 3
assert blobs["deep"]["parent"] == blobs["snap3"]["id"] and blobs["snap3"]["parent"] == blobs["snap2"]["id"]
assert blobs["snap1"]["access"] == "read_only" and blobs["old"]["pages"] == [14, 15]
# The map of each volume leads to the clusters that say so.
image = open("store.img", "rb")
for b in blobs.values():
    at = 0
    for run in b["map"]:
        for i in range(run["count"] if run["first"] else 0):
            image.seek((run["first"] + i) * dump["store"]["cluster_size"])
            want = f"{b['name']}:{at + i}".encode()
            assert image.read(len(want)) == want, (b["name"], at + i)
        at += run["count"]
    assert at == b["clusters"]
EOF

# damage, status of check, status of repair, kind of finding, other options of the image
while read -r damage check repair kind options; do
    # shellcheck disable=SC2086
    "$make_image" "$image" --damage "$damage" $options
    before=$(data_sum)
    whole=$(sha256sum < "$image")
    fsck "$check" --json
    grep -q "\"kind\": \"$kind\"" out || { cat out >&2; fail "$damage: no $kind was found"; }
    fsck "$check" --repair --dry-run
    [ "$whole" = "$(sha256sum < "$image")" ] || fail "$damage: --dry-run changed the image"
    rm -f journal
    fsck "$repair" --repair --journal journal
    [ "$before" = "$(data_sum)" ] || fail "$damage: the repair changed data"
    left=$((repair & ~1))
    fsck "$left"
    fsck "$left" --repair --journal journal2
    [ ! -e journal2 ] || fail "$damage: a second repair found something to change"
    if [ -e journal ]; then
        repaired=$(sha256sum < "$image")
        fsck 0 --undo journal --dry-run
        [ "$repaired" = "$(sha256sum < "$image")" ] || fail "$damage: --undo --dry-run changed the image"
        fsck 1 --undo journal
        fsck 0 --undo journal # nothing is left to take back
        [ "$whole" = "$(sha256sum < "$image")" ] || fail "$damage: --undo did not bring back what was there"
    fi
done << 'EOF'
bad-chain-page 4 1 bad_page
bad-extent-page 4 1 bad_page
bad-mask 4 1 bad_mask
bad-root 4 4 bad_root
bad-root 4 5 bad_root --damage flipped-bit
bad-super 4 1 lost_super
flipped-bits-super 4 1 lost_super
flipped-bits-super 4 1 lost_super --copy
flipped-bits-super 4 1 lost_super --dirty
super-lost 4 1 lost_super
super-lost 4 1 lost_super --copy
super-lost 4 1 lost_super --copy --dirty
super-lost 8 8 bad_super --dirty
super-rubbish 4 1 lost_super
super-rubbish 4 1 lost_super --copy --md-page 16384
bad-copy 4 1 bad_copy --copy
flipped-super 4 1 flipped_bit
flipped-bit 4 1 flipped_bit
cleared-id-bit 4 1 unmarked
chain-of-another 4 1 bad_page
cluster-outside 4 1 bad_page
endless-chain 4 1 bad_page
leaked-cluster 4 1 leaked
leaked-page 4 1 leaked
missing-parent 4 4 missing_parent
no-name 4 4 bad_volume
same-names 4 4 bad_volume
shared-cluster 4 1 shared_clusters
snapshot-in-progress 0 0 half_made_snapshot
stale-chain-page 4 1 bad_page
torn-super 4 1 torn_super
unknown-descriptor 0 0 bad_blob
unmarked-cluster 4 1 unmarked
EOF

# A super block that is lost together with the masks: nobody looks for its copy unasked. What two stores may have been
# is decided by the operator.
"$make_image" "$image" --damage lost-front --copy
fsck 8
fsck 4 --search
grep -q "known from the copy in page 63" out || { cat out >&2; fail "the copy was not found"; }
"$VARVE" blob dump --search "$image" > out || fail "no dump of a store with a lost super block"
grep -q "known from the copy in page 63" out && grep -q "blob 0x10000000c deep" out || fail "what was dumped?"
before=$(data_sum)
fsck 8 --repair
grep -q -e "--search looks" out || fail "it is not said what can be done"
fsck 1 --repair --search
[ "$before" = "$(data_sum)" ] || fail "the repair changed data"
fsck 0
"$make_image" "$image" --damage super-lost --dirty
whole=$(sha256sum < "$image")
fsck 8 --repair --search
grep -q -e "--cluster-size decides" out || { cat out >&2; fail "it is not said what is missing"; }
[ "$whole" = "$(sha256sum < "$image")" ] || fail "something was changed all the same"
fsck 1 --repair --search --cluster-size 1048576
fsck 0
start_server
rpc bdev_aio_create "{\"name\": \"store\", \"filename\": \"$image\", \"block_size\": 512}" > /dev/null
rpc bdev_lvol_get_lvols '{}' > out
grep -q '"lvs0/deep"' out || { cat out >&2; fail "a repaired store is not served"; }
rpc bdev_aio_delete '{"name": "store"}' > /dev/null
stop_server

# Other shapes: not unloaded, larger metadata pages, small clusters.
for shape in "--dirty" "--md-page 16384" "--cluster 65536 --size 8388608" "--damage version-1"; do
    # shellcheck disable=SC2086
    "$make_image" "$image" $shape
    fsck 0
done
"$make_image" "$image" --dirty
rm -f journal
fsck 1 --repair --journal journal
grep -q "super block: unloaded" out

# A store that a server has open is not repaired, and none is served while it is repaired.
"$make_image" "$image" --damage leaked-page
start_server
rpc bdev_aio_create "{\"name\": \"store\", \"filename\": \"$image\", \"block_size\": 512}" > /dev/null
fsck 8 --repair
grep -q "in use" out || fail "it is not said why"
fsck 4
grep -q "is in use: what" out || fail "it is not said that a server has it"
rpc bdev_aio_delete '{"name": "store"}' > /dev/null
exec 9< "$image"
flock --shared 9 # as another check
fsck 4
! grep -q "is in use: what" out || fail "a check was taken for a server"
fsck 8 --repair
exec 9<&-
fsck 1 --repair
exec 9< "$image"
flock --exclusive 9
rpc_error bdev_aio_create "{\"name\": \"store\", \"filename\": \"$image\", \"block_size\": 512}" > out
grep -q "locked" out || fail "a locked file was served"
exec 9<&-
stop_server

# What is no journal; and a repair and its undo as JSON.
"$make_image" "$image" --damage leaked-page
rm -f journal
fsck 4 --json
python3 -c 'import json, sys; o = json.load(sys.stdin); assert not o["repaired"] and len(o["left"]) == 1, o' < out ||
    fail "a check says that it repaired something"
fsck 1 --repair --journal journal --json
python3 - << 'EOF' || fail "the JSON does not tell what came of the repair"
import json
o = json.load(open("out"))
assert o["repaired"] and o["journal"] == "journal" and o["left"] == [] and o["errors"] == 1, o
assert o["changes_written"] == len(o["changes"]) > 0, o
EOF
fsck 8 --undo "$work"
grep -q "not a file" out || fail "it is not said that a folder is no journal"
fsck 8 --undo journal.none
for dry in "--dry-run" ""; do
    # shellcheck disable=SC2086
    fsck "$([ -n "$dry" ] && echo 0 || echo 1)" --undo journal --json $dry
    python3 -c 'import json, sys; assert len(json.load(sys.stdin)["taken_back"]) == 1' < out ||
        fail "no JSON of what was taken back"
done
# A server has used the store since the repair, and left its masks as they were.
fsck 1 --repair --journal journal3
start_server
rpc bdev_aio_create "{\"name\": \"store\", \"filename\": \"$image\", \"block_size\": 512}" > /dev/null
rpc bdev_lvol_rename '{"old_name": "lvs0/thin", "new_name": "thinner"}' > /dev/null
rpc bdev_aio_delete '{"name": "store"}' > /dev/null
stop_server
fsck 8 --undo journal3
grep -q "somebody has written since" out || fail "a repair was taken back under what was written since"

fsck 16 --no-such-option
image=$work/nothing
fsck 8
: > "$image"
fsck 8
status=0
"$VARVE" fsck --json "$image" 2> /dev/null > out || status=$?
[ $status = 8 ] && python3 -c 'import json, sys; assert json.load(sys.stdin)["findings"][0]["kind"] == "bad_super"' < out ||
    fail "no JSON of a file without a store"
