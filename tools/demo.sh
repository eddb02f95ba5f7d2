#!/bin/bash
# `make run`: a file becomes a disk that is served over NVMe/TCP on 127.0.0.1:4420, is written and verified through the whole
# path, and stays until Ctrl-C. The disk and the socket live in build/demo; the disk is kept for the next time.
set -euo pipefail
cd "$(dirname "$0")/.."

varve=${VARVE:-build/release/varve}
port=${PORT:-4420}
seconds=${SECONDS_OF_IO:-8}
folder=build/demo
sock=$folder/varve.sock
disk=$folder/disk.img
nqn=nqn.2016-06.io.spdk:demo
server=

say() { printf '\033[1m%s\033[0m\n' "$*"; }
die() {
    echo "demo: $*" >&2
    exit 1
}
end() {
    trap - EXIT INT TERM
    if [ -n "$server" ] && kill -0 "$server" 2> /dev/null; then
        kill -TERM "$server"
        wait "$server" || true
    fi
}
trap end EXIT
trap 'echo; exit 0' INT TERM

(: > "/dev/tcp/127.0.0.1/$port") 2> /dev/null && die "something listens on 127.0.0.1:$port already; PORT=4421 make run"

mkdir -p "$folder"
[ -f "$disk" ] || truncate -s 1G "$disk"
"$varve" serve -r "$sock" > "$folder/server.log" 2>&1 &
server=$!
for _ in {1..100}; do
    kill -0 "$server" 2> /dev/null || { cat "$folder/server.log" >&2; die "the server ended at its start"; }
    "$varve" rpc -s "$sock" spdk_get_version > /dev/null 2>&1 && break
    sleep 0.05
done

rpc() { "$varve" rpc -s "$sock" "$@" > /dev/null; }
rpc bdev_uring_create --name disk0 --filename "$PWD/$disk" --block_size 4096 --uuid 6c6f7665-6469-736b-8000-000000000001
rpc nvmf_create_transport --trtype TCP
rpc nvmf_create_subsystem --nqn "$nqn" --allow_any_host true --serial_number VARVE0000000001
rpc nvmf_subsystem_add_ns --nqn "$nqn" --namespace '{"bdev_name": "disk0"}'
rpc nvmf_subsystem_add_listener --nqn "$nqn" \
    --listen_address '{"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "'"$port"'"}'

say "$disk is a disk on NVMe/TCP 127.0.0.1:$port now. Writing and verifying it through the whole path:"
"$varve" bench --nvme "trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:$port subnqn:$nqn" -w verify -q 32 -o 4096 -t "$seconds"

say "The server (pid $server, socket $sock) goes on until Ctrl-C. In another terminal, try:"
cat << EOT
  sudo nvme connect -t tcp -a 127.0.0.1 -s $port -n $nqn      # mount it with a Linux kernel
  $varve rpc -s $sock bdev_get_bdevs
  $varve rpc -s $sock bdev_get_iostat --name disk0
  $varve rpc -s $sock nvmf_get_subsystems
  $varve rpc -s $sock save_config
EOT
wait "$server"
