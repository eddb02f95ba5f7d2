#!/bin/bash
# limit: 300
# The server is killed, and later stopped, while a Linux kernel writes through it; each time it starts again, the kernel
# reconnects by itself, no I/O fails, and every file whose fsync was answered is whole.
. "$(dirname "$0")/../lib.sh"
. "$tests/guest/guest.sh"

nqn=nqn.2025-01.io.varve:disk
port=$(free_port)
truncate -s 128M "$work/disk.img"

serve() {
    start_server
    rpc bdev_aio_create '{"name": "file0", "filename": "'"$work/disk.img"'", "block_size": 512}'
    export_tcp $nqn file0
}
serve

guest_start <<'END'
nqn=nqn.2025-01.io.varve:disk
disk=$(connect $nqn --ctrl-loss-tmo=120 --reconnect-delay=1)
state() { [ "$(cat /sys/class/nvme/nvme*/state)" = $1 ]; }
check_writer() { [ ! -e /tmp/failed ] || { cat /tmp/dd.err > /dev/console; die "a write failed"; }; }
acked_beyond() { check_writer; [ "$(wc -l < /tmp/acked)" -gt $1 ]; }

mkfs.ext4 -q -F $disk
mount -t ext4 $disk /mnt
noise /tmp/a 1
# Linux 6.12 sends on behalf of the process that writes, without MSG_NOSIGNAL: when the connection is gone, the I/O is
# retried, but the process would be dead.
( trap '' PIPE
n=0
while [ ! -e /tmp/enough ]; do
    n=$((n + 1))
    { echo "file $n"; cat /tmp/a; } > /tmp/new
    dd if=/tmp/new of=/mnt/$((n % 50)) bs=64k conv=fsync 2> /tmp/dd.err || {
        echo "dd ended with $?" >> /tmp/dd.err
        touch /tmp/failed
        exit 1
    }
    echo $n >> /tmp/acked
done ) &
writer=$!
until_true 30 [ -e /tmp/acked ]

for round in killed stopped; do
    mark "ready to be $round"
    until_true 30 state connecting
    mark "$round"
    until_true 60 state live
    before=$(wc -l < /tmp/acked)
    until_true 60 acked_beyond $((before + 3))
done

touch /tmp/enough
wait $writer
check_writer
grep -q " /mnt ext4 rw" /proc/mounts || die "the file system is not writable any more"
umount /mnt
e2fsck -fn $disk > /tmp/fsck 2>&1 || { cat /tmp/fsck; die "e2fsck"; }
mount -t ext4 -o ro $disk /mnt
last=$(tail -n 1 /tmp/acked)
n=$last
while [ $n -gt 0 ] && [ $n -gt $((last - 50)) ]; do
    { echo "file $n"; cat /tmp/a; } | cmp - /mnt/$((n % 50)) || die "file $n"
    n=$((n - 1))
done
echo "$last files written, the kept ones compared"
umount /mnt
nvme disconnect -n $nqn > /dev/null
END

guest_wait "ready to be killed"
crash_server
guest_wait killed
serve
guest_wait "ready to be stopped" 90
stop_server
guest_wait stopped
serve
guest_finish 120
stop_server
