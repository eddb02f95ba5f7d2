# shellcheck shell=bash disable=SC2154
# Sourced after tests/lib.sh by scripts whose client is a real Linux kernel in an emulator.
#
#   guest_start <<'END' ... END    boots a guest that runs the shell script on standard input (see guest_lib.sh)
#   guest_wait TEXT [SECONDS]      until the guest printed a line "MARK TEXT"
#   guest_say WORD                 lets the guest's `await WORD` return
#   guest_finish                   waits for the script's end and fails the test with its console unless it was a success
#
# The guest reaches this host's loopback as 10.0.2.2 and nothing else; it has one processor, for two emulated ones are
# slower on a busy machine. It is ended by its own process id, at the latest by tests/lib.sh's clean-up.

guest_pid=
# QEMU 7.2 takes what cmpxchg16b leaves in the flags from an operation that is long over: an interrupt right behind it
# saves rubbish, trap flag and all, and the kernel dies of that or goes astray. Without it the kernel does otherwise.
guest_cpu=max,la57=off,cx16=off

guest_cannot() {
    [ "${VARVE_REQUIRE_GUEST:-0}" = 1 ] && fail "a guest is required here (VARVE_REQUIRE_GUEST=1) but: $*"
    skip "$*"
}

guest_start() {
    local image status=0
    command -v qemu-system-x86_64 > /dev/null || guest_cannot "no qemu-system-x86_64 here (make deps installs it)"
    image=$("$tests/guest/image" 2> "$work/image.log") || status=$?
    image=${image##*$'\n'}
    [ $status = 0 ] || guest_cannot "${image#SKIP: }$(tail -n 1 "$work/image.log")"

    # The script is a second archive behind the first; the kernel unpacks both.
    mkdir -p "$work/overlay"
    { echo ". /guest_lib.sh"; echo "PORT=${port:-}"; cat; } > "$work/overlay/test.sh"
    { cat "$image/initramfs"; (cd "$work/overlay" && echo test.sh | cpio -o -H newc --quiet); } > "$work/initrd"

    console=$work/console
    : > "$console"
    mkfifo "$work/console.in"
    exec {guest_in}<> "$work/console.in" # read-write, so that neither side waits for the other to open it
    qemu-system-x86_64 -accel tcg,thread=multi -cpu $guest_cpu -smp 1 -m 512M -nodefaults -display none -no-reboot \
        -kernel "$image/vmlinuz" -initrd "$work/initrd" -append "console=ttyS0 loglevel=4 panic=-1 tsc=unstable ${guest_append:-}" \
        -chardev stdio,id=console,signal=off -serial chardev:console \
        -netdev user,id=net,ipv6=off -device virtio-net-pci,netdev=net,romfile= \
        < "$work/console.in" > "$console" 2> "$work/qemu.log" {guest_in}>&- &
    guest_pid=$!
    also_end+=("$guest_pid")
    show_on_failure+=("$console" "$work/qemu.log")
}

guest_running() { kill -0 "$guest_pid" 2> /dev/null; }

guest_wait() {
    local tenths=$((${2:-60} * 10))
    until tr -d '\r' < "$console" | grep -qx "MARK $1"; do
        guest_running || fail "the guest ended before it said '$1'"
        ((tenths-- > 0)) || fail "the guest did not say '$1' in ${2:-60} s"
        sleep 0.1
    done
}

guest_say() { echo "$1" >&"$guest_in"; }

guest_finish() {
    local tenths=$((${1:-90} * 10)) status
    while guest_running; do
        ((tenths-- > 0)) || fail "the guest did not end in ${1:-90} s"
        sleep 0.1
    done
    wait "$guest_pid" || true
    status=$(tr -d '\r' < "$console" | sed -n 's/^guest: status //p' | tail -n 1)
    [ "$status" = 0 ] || fail "the guest's script ended with status ${status:-unknown}"
    exec {guest_in}>&-
    rm -f "$work/console.in" "$work/initrd"
}
