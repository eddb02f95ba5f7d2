#!/bin/bash
# A Linux kernel with header digests, data digests, both and none: the same bytes come back, whichever wrote them. The
# kernel refuses a connection on which the digests it asked for are not in use.
. "$(dirname "$0")/../lib.sh"
. "$tests/guest/guest.sh"

nqn=nqn.2025-01.io.varve:disk
port=$(free_port)

start_server
rpc bdev_malloc_create '{"name": "memory0", "num_blocks": 131072, "block_size": 512}'
export_tcp $nqn memory0

guest_start <<'END'
nqn=nqn.2025-01.io.varve:disk
noise /tmp/a 6
n=0
for digests in "--hdr-digest --data-digest" "--hdr-digest" "--data-digest" ""; do
    disk=$(connect $nqn $digests)
    # Inside the capsule, beyond it, large; sizes that are no multiple of anything but the block.
    for bs in 512 4096 7680 65536 1048576; do
        n=$((n + 1))
        head -c $((bs * 4)) /tmp/a > /tmp/x
        dd if=/tmp/x of=$disk bs=$bs seek=1 oflag=direct 2> /dev/null
        dd if=$disk of=/tmp/y bs=$bs skip=1 count=4 iflag=direct 2> /dev/null
        same /tmp/x /tmp/y
    done
    [ $n = 5 ] || { dd if=$disk of=/tmp/y bs=64k count=64 skip=128 iflag=direct 2> /dev/null; same /tmp/kept /tmp/y; }
    head -c 4194304 /tmp/a > /tmp/kept
    dd if=/tmp/kept of=$disk bs=64k seek=128 oflag=direct 2> /dev/null
    nvme disconnect -n $nqn > /dev/null
    until_true 10 [ ! -b $disk ]
    echo "done: ${digests:-no digests}"
done
! dmesg | grep -i 'digest error' || die "the kernel met a wrong digest"
END
guest_finish
stop_server
