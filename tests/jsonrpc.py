#!/usr/bin/env python3
"""jsonrpc.py [--error] SOCKET METHOD [PARAMS]: one JSON-RPC call over a Unix socket; prints the result as JSON.

Exit status 1, and the error object on standard error, when the answer is an error. With --error the other way round.
"""
import json
import socket
import sys

expect_error = sys.argv[1] == "--error"
path, method, *params = sys.argv[1 + expect_error:]
request = {"jsonrpc": "2.0", "id": 1, "method": method}
if params:
    request["params"] = json.loads(params[0])
with socket.socket(socket.AF_UNIX) as s:
    s.settimeout(60)
    s.connect(path)
    s.sendall(json.dumps(request).encode())
    answer, text = None, ""
    while answer is None:
        data = s.recv(65536)
        if not data:
            sys.exit(f"{method}: the server closed the connection after {text!r}")
        text += data.decode()
        try:
            answer = json.loads(text)
        except ValueError:
            pass  # not all of it yet
if ("error" in answer) != expect_error:
    sys.exit(f"{method}: {json.dumps(answer.get('error', answer.get('result')))}")
print(json.dumps(answer["error" if expect_error else "result"]))
