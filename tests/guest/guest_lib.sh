# shellcheck shell=ash
# Sourced by a guest's /test.sh. The host sees what is printed; `mark` and `await` are how the two sides keep step.
HOST=10.0.2.2

mark() { echo "MARK $*"; }

# await WORD: until the host says WORD (`guest_say WORD`).
await() {
    local line
    while read -r line; do
        [ "$line" != "$1" ] || return 0
    done
    die "the console ended while waiting for $1"
}

die() { echo "guest: FAIL: $*" > /dev/console; exit 1; }

# until_true SECONDS COMMAND...: polls until the command succeeds.
until_true() {
    local left=$(($1 * 10))
    shift
    until "$@" > /dev/null; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || die "waited in vain for: $*"
        sleep 0.1
    done
}

# connect NQN [nvme connect's options]: prints the block device of namespace 1 once it is there, e.g. /dev/nvme0n1.
connect() {
    local nqn=$1
    shift
    nvme connect -t tcp -a "$HOST" -s "$PORT" -n "$nqn" "$@" > /tmp/connect.out 2>&1 || {
        cat /tmp/connect.out > /dev/console
        die "nvme connect $nqn $*"
    }
    until_true 20 find_disk "$nqn" 1
    find_disk "$nqn" 1
}

# find_disk NQN NSID: the block device, if the kernel has it now. With and without native multipath.
find_disk() {
    local disk
    for disk in /sys/class/block/nvme*n*; do
        [ -b "/dev/${disk##*/}" ] && [ "$(cat "$disk/nsid" 2> /dev/null)" = "$2" ] || continue
        [ "$(cat "$disk/device/subsysnqn" 2> /dev/null)" = "$1" ] || continue
        echo "/dev/${disk##*/}"
        return 0
    done
    return 1
}

# sectors DISK: its size in 512-byte sectors, as the kernel sees it.
sectors() { cat "/sys/class/block/${1##*/}/size"; }

# same FILE FILE: their bytes are equal, read from the disk and not from memory.
same() {
    sync
    echo 3 > /proc/sys/vm/drop_caches
    cmp "$1" "$2" || die "$1 and $2 differ"
}

# noise FILE MIB: a file of bytes that are hard to get right by accident, and quick to make.
noise() { head -c $(($2 * 1048576)) /dev/urandom > "$1"; }
