#!/bin/bash
# limit: 300
# A Linux kernel discovers and connects over NVMe/TCP, makes a file system, writes and fsyncs files, disconnects,
# reconnects, and finds them again; then the host's own tools find them in the backing file.
. "$(dirname "$0")/../lib.sh"
. "$tests/guest/guest.sh"

nqn=nqn.2025-01.io.varve:disk
port=$(free_port)
truncate -s 256M "$work/disk.img"

start_server
rpc bdev_aio_create '{"name": "file0", "filename": "'"$work/disk.img"'", "block_size": 512}'
export_tcp $nqn file0
rpc nvmf_subsystem_add_listener '{"nqn": "nqn.2014-08.org.nvmexpress.discovery", "listen_address":
    {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "'$port'"}}'

guest_start <<'END'
nqn=nqn.2025-01.io.varve:disk
nvme discover -t tcp -a $HOST -s $PORT > /tmp/discovered
grep -q "subnqn: *$nqn" /tmp/discovered || { cat /tmp/discovered; die "$nqn is not discovered"; }

disk=$(connect $nqn)
[ "$(sectors $disk)" = 524288 ] || die "$(sectors $disk) sectors"
controller=$(echo /sys/class/nvme/nvme*)
[ "$(cat $controller/serial | xargs)" = VARVE0001 ] || die "serial $(cat $controller/serial)"
[ "$(cat $controller/model | xargs)" = "Varve test disk" ] || die "model $(cat $controller/model)"
[ "$(cat /sys/class/block/${disk##*/}/uuid)" = c0ffee00-0000-4000-8000-000000000001 ] || die "uuid"
[ "$(cat /sys/class/block/${disk##*/}/queue/write_cache)" = "write back" ] || die "the disk hides its write cache"
nvme list-ns $disk | grep -q '0x1$' || die "list-ns"
nvme smart-log $disk > /dev/null || die "smart-log"
nvme flush $disk > /dev/null || die "flush"

mkfs.ext4 -q -F $disk
mount -t ext4 $disk /mnt
noise /tmp/a 12
mkdir /mnt/d
cp /tmp/a /mnt/d/a
for i in $(seq 200); do echo "file $i" > /mnt/d/small$i; done
dd if=/tmp/a of=/mnt/d/b bs=4k count=512 oflag=direct 2> /dev/null
dd if=/tmp/a of=/mnt/d/c bs=64k conv=fsync 2> /dev/null
sync
same /tmp/a /mnt/d/a
same /tmp/a /mnt/d/c
rm /mnt/d/c
fstrim /mnt || die "fstrim"
umount /mnt

# Below the file system: zeroes written by the device, and discards that leave the neighbours alone.
dd if=/tmp/a of=$disk bs=1M count=4 seek=250 oflag=direct 2> /dev/null
blkdiscard -z -o $((251 * 1048576)) -l 1048576 $disk 2> /dev/null || dd if=/dev/zero of=$disk bs=1M count=1 seek=251 oflag=direct 2> /dev/null
dd if=$disk of=/tmp/r bs=1M skip=250 count=4 iflag=direct 2> /dev/null
head -c 4194304 /tmp/a > /tmp/expected
dd if=/dev/zero of=/tmp/expected bs=1M count=1 seek=1 conv=notrunc 2> /dev/null
same /tmp/r /tmp/expected

nvme disconnect -n $nqn > /dev/null
until_true 10 [ ! -b $disk ]
disk=$(connect $nqn -W 1 -P 1)   # extra queues: one for writes, one polled
e2fsck -fn $disk > /tmp/fsck 2>&1 || { cat /tmp/fsck; die "e2fsck"; }
mount -t ext4 $disk /mnt
same /tmp/a /mnt/d/a
dd if=/tmp/a of=/tmp/b bs=4k count=512 2> /dev/null
same /tmp/b /mnt/d/b
[ "$(cat /mnt/d/small* | wc -l)" = 200 ] || die "small files"
echo "sum $(sha256sum < /mnt/d/a)"
umount /mnt
nvme disconnect -n $nqn > /dev/null
! dmesg | grep -i 'i/o error' > /dev/console || die "the kernel met errors nobody made"
END
guest_finish 120

# What the kernel left is a clean file system with the same bytes, without any of our code between.
stop_server
PATH=$PATH:/usr/sbin:/sbin
e2fsck -fn "$work/disk.img" > "$work/fsck.log" 2>&1 || { cat "$work/fsck.log"; fail "e2fsck of the backing file"; }
debugfs -R "dump /d/a $work/a" "$work/disk.img" 2> /dev/null
grep -q "^sum $(sha256sum < "$work/a")" <(tr -d '\r' < "$console") || fail "the file differs in the backing file"
