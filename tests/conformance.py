#!/usr/bin/env python3
"""conformance.py SCHEMA SOCKET OURS: does the server accept what SPDK's schema of its methods lists?

SCHEMA is SPDK's schema.yaml, SOCKET a server in its start-up state (--wait-for-rpc), OURS the output of
`varve rpc --schema`. Of every method that both have:
- each parameter the schema lists is sent with a value of its type. An unknown parameter is sent after it, so the server
  must complain about that one and not about ours, and nothing is carried out;
- every name of an enum must be accepted;
- what the schema does not require, we must not require.
Prints one line for each disagreement, and exits 1 when there is one.
"""
import json
import socket
import sys

import yaml

STRANGER = "no_such_parameter"
SAMPLES = {
    "string": ["x", "0x1", "posix"],
    "boolean": [True, False],
    "uuid": ["6ba7b810-9dad-11d1-80b4-00c04fd430c8"],
    "number": [1],
}
INTEGERS = [1, 0, 8, 512, 4096, 10000, 2 ** 15]
# What says that a value was of the right type but not one we allow; anything else about our parameter is a breach.
LIMITS = ("must be one of", "must be greater than", "must be at least", "must be at most", "must be between",
          "must be a multiple of", "must be a power of two", "must be not empty")


class Server:
    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(30)
        self.s.connect(path)

    def error(self, method, params=None):
        """(code, message), or None when the call succeeded."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method}
        if params is not None:
            request["params"] = params
        self.s.sendall(json.dumps(request).encode())
        text = b""
        while not text.endswith(b"\n"):
            text += self.s.recv(1 << 16) or sys.exit(f"{method}: the server closed the connection")
        e = json.loads(text).get("error")
        return e and (e["code"], e["message"])


class Conformance:
    def __init__(self, schema, ours):
        self.methods = {m["name"]: m for m in schema["methods"]}
        self.classes = {kind: {c["name"]: c for c in schema[kind]} for kind in ("enums", "objects", "arrays", "bitmasks")}
        self.ours = {m["name"]: m for m in ours}
        self.checked = 0
        self.breaches = []

    def breach(self, method, text):
        self.breaches.append(f"{method}: {text}")

    def samples(self, p):
        """Alternatives: one of them must be accepted. A list of lists: one of each inner list."""
        kind, name = p["type"], p.get("class")
        if kind == "enum":
            return [[f["name"]] for f in self.classes["enums"][name]["fields"]]
        if kind == "bitmask":
            names = [f["name"] for f in self.classes["enums"][self.classes["bitmasks"][name]["enum"]]["fields"]]
            return [[[n], n] for n in names]
        if kind == "object":
            fields = self.classes["objects"][name]["fields"] if name else []
            return [[{f["name"]: self.samples(f)[0][0] for f in fields}]]
        if kind == "array":
            c = self.classes["arrays"].get(name)
            item = {"type": c["item_type"], "class": c.get("class")} if c else {"type": "string"}
            return [[[self.samples(item)[0][0]]]]
        if kind in SAMPLES:
            return [SAMPLES[kind]]
        top = 2 ** (int(kind.lstrip("uint")) - (not kind.startswith("u"))) - 1
        return [INTEGERS + [top], [-1, 1, 0]] if not kind.startswith("u") else [INTEGERS + [top], [top, 1, 0]]

    def check_values(self, server, method):
        for p in self.methods[method]["params"]:
            for alternatives in self.samples(p):
                complaints = []
                for value in alternatives:
                    code, message = server.error(method, {p["name"]: value, STRANGER: 1}) or (0, "it was carried out")
                    complaints.append(f"{p['type']} {p['name']} = {json.dumps(value)}: {code} {message}")
                    if STRANGER in message or any(limit in message for limit in LIMITS) and p["type"] != "enum":
                        break
                else:
                    self.breach(method, complaints[0])
                self.checked += 1

    def check_required(self, method):
        theirs = {p["name"]: p for p in self.methods[method]["params"]}
        for p in self.ours[method]["params"]:
            required = theirs.get(p["name"], {}).get("required", False)
            # One of several that stand for each other may be required of us and not named by the schema.
            if p["required"] and not required:
                self.breach(method, f"{p['name']} is required here and not in SPDK")


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        schema = yaml.safe_load(f)
    with open(sys.argv[3], encoding="utf-8") as f:
        ours = json.load(f)
    c = Conformance(schema, ours)
    both = [name for name in c.methods if name in c.ours]
    server = Server(sys.argv[2])
    startup = [name for name in both if c.ours[name]["state"] == "startup"]
    for name in startup:
        c.check_values(server, name)
    if "framework_start_init" in both and (failed := server.error("framework_start_init")):
        sys.exit(f"framework_start_init: {failed}")
    for name in both:
        if name not in startup:
            c.check_values(server, name)
        c.check_required(name)
    for line in c.breaches:
        print(line)
    print(f"{len(both)} of SPDK's {len(c.methods)} methods offered, {c.checked} parameter values sent, "
          f"{len(c.breaches)} refused")
    return bool(c.breaches)


if __name__ == "__main__":
    sys.exit(main())
