#!/bin/bash
# What 1,000 bdevs took, created, exported over NVMe/TCP and deleted again, goes back to the operating system: resident
# memory comes back to within 5 % of what it was.
. "$(dirname "$0")/../lib.sh"

! sanitized || skip "resident memory is the release build's"
port=$(free_port)
start_server
python3 - "$sock" "$server_pid" "$port" << 'END'
import json, re, socket, sys, time

path, pid, port = sys.argv[1:]
nqn = "nqn.2016-06.io.spdk:memory"
s = socket.socket(socket.AF_UNIX)
s.settimeout(60)
s.connect(path)


def rpc(method, **params):
    s.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode())
    text = b""
    while True:
        data = s.recv(65536)
        if not data:
            sys.exit(f"{method}: the server closed the connection")
        text += data
        try:
            answer = json.loads(text)
        except ValueError:
            continue
        if "error" in answer:
            sys.exit(f"{method}: {answer['error']}")
        return


def resident():
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1])


def cycle(count):
    names = [f"N{i}" for i in range(count)]
    for name in names:
        rpc("bdev_null_create", name=name, num_blocks=2048, block_size=512)
    rpc("nvmf_create_subsystem", nqn=nqn, allow_any_host=True, max_namespaces=2000)
    for name in names:
        rpc("nvmf_subsystem_add_ns", nqn=nqn, namespace={"bdev_name": name})
    rpc("nvmf_subsystem_add_listener", nqn=nqn,
        listen_address={"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": port})
    full = resident()
    for nsid in range(1, count + 1):
        rpc("nvmf_subsystem_remove_ns", nqn=nqn, nsid=nsid)
    rpc("nvmf_delete_subsystem", nqn=nqn)
    for name in names:
        rpc("bdev_null_delete", name=name)
    return full


rpc("nvmf_create_transport", trtype="TCP")
# One bdev at a time, as many calls as fill what is kept on purpose: receive buffers, the events clients may ask for.
for _ in range(600):
    cycle(1)


def settled(enough):
    """Resident memory once it is `enough`, or has not changed for 20 seconds."""
    last, since = resident(), time.monotonic()
    while last > enough and time.monotonic() - since < 20:
        time.sleep(0.1)
        now = resident()
        if now != last:
            last, since = now, time.monotonic()
    return last


time.sleep(3)  # the second of quiet after which memory goes back, and more
before = resident()
full = cycle(1000)
after = settled(before * 1.05)
print(f"resident KiB: {before} before, {full} with 1,000 bdevs, {after} after ({(after - before) * 100 / before:+.1f} %)")
if full < before * 1.2:
    sys.exit("FAIL: 1,000 bdevs took next to nothing: this measures something else")
if after > before * 1.05:
    sys.exit("FAIL: more than 5 % stays")
END
stop_server
