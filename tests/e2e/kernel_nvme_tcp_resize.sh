#!/bin/bash
# While a Linux kernel writes to a namespace over NVMe/TCP: the namespace grows, another appears, disappears in the
# middle of I/O, and comes back. The kernel sees each change by itself, and the first namespace never errs.
. "$(dirname "$0")/../lib.sh"
. "$tests/guest/guest.sh"

nqn=nqn.2025-01.io.varve:disk
port=$(free_port)
truncate -s 64M "$work/disk.img"

start_server
rpc bdev_aio_create '{"name": "file0", "filename": "'"$work/disk.img"'", "block_size": 512}'
rpc bdev_malloc_create '{"name": "memory0", "num_blocks": 8192, "block_size": 4096}'
export_tcp $nqn file0

guest_start <<'END'
nqn=nqn.2025-01.io.varve:disk
is_size() { [ "$(sectors $1)" = $2 ]; }
gone() { ! find_disk $nqn $1; }

disk=$(connect $nqn)
is_size $disk 131072 || die "$(sectors $disk) sectors"
mkfs.ext4 -q -F $disk
mount -t ext4 $disk /mnt
noise /tmp/a 4
( while [ ! -e /tmp/enough ]; do
    dd if=/tmp/a of=/mnt/load bs=64k oflag=direct 2> /tmp/load.err && cmp -s /tmp/a /mnt/load || { touch /tmp/load.failed; exit 1; }
    echo round >> /tmp/load.rounds
done ) &
load=$!
until_true 30 [ -e /tmp/load.rounds ]
mark connected

until_true 20 is_size $disk 262144
resize2fs $disk > /tmp/resize.out 2>&1 || { cat /tmp/resize.out; die "resize2fs"; }
[ "$(df -m /mnt | tail -n 1 | awk '{print $2}')" -gt 100 ] || die "the file system did not grow"
mark resized

until_true 20 find_disk $nqn 2
second=$(find_disk $nqn 2)
is_size $second 65536 || die "$(sectors $second) sectors in the second namespace"
[ "$(cat /sys/class/block/${second##*/}/queue/logical_block_size)" = 4096 ] || die "block size"
dd if=/tmp/a of=$second bs=1M oflag=direct 2> /dev/null
dd if=$second of=/tmp/b bs=1M count=4 iflag=direct 2> /dev/null
same /tmp/a /tmp/b
( while dd if=/tmp/a of=$second bs=64k oflag=direct 2> /dev/null && [ -b $second ]; do :; done; touch /tmp/second.ended ) &
mark added

until_true 20 gone 2
until_true 20 [ -e /tmp/second.ended ]
mark removed

until_true 20 find_disk $nqn 2
dd if=$(find_disk $nqn 2) of=/tmp/b bs=1M count=4 iflag=direct 2> /dev/null || die "read of what came back"

before=$(wc -l < /tmp/load.rounds)
until_true 20 eval '[ $(wc -l < /tmp/load.rounds) -gt $before ]'
touch /tmp/enough
wait $load
[ ! -e /tmp/load.failed ] || { cat /tmp/load.err; die "the first namespace erred"; }
umount /mnt
e2fsck -fn $disk > /tmp/fsck 2>&1 || { cat /tmp/fsck; die "e2fsck"; }
mark last

until_true 20 gone 1
nvme disconnect -n $nqn > /dev/null
END

guest_wait connected
truncate -s 128M "$work/disk.img"
rpc bdev_aio_rescan '{"name": "file0"}'
guest_wait resized
rpc nvmf_subsystem_add_ns '{"nqn": "'$nqn'", "namespace": {"bdev_name": "memory0", "nsid": 2}}'
guest_wait added
rpc nvmf_subsystem_remove_ns '{"nqn": "'$nqn'", "nsid": 2}'
guest_wait removed
rpc nvmf_subsystem_add_ns '{"nqn": "'$nqn'", "namespace": {"bdev_name": "memory0", "nsid": 2}}'
guest_wait last
rpc bdev_aio_delete '{"name": "file0"}' # takes its namespace with it
guest_finish
stop_server
