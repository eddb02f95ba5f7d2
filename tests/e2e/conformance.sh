#!/bin/bash
# Every method we offer accepts the parameters and types that SPDK's schema of it lists (tests/conformance.py).
# The schema is SPDK's file and not part of this repository: ../shared/rpc/schema.yaml, or VARVE_SPDK_SCHEMA.
. "$(dirname "$0")/../lib.sh"

schema=${VARVE_SPDK_SCHEMA:-$tests/../../shared/rpc/schema.yaml}
[ -f "$schema" ] || skip "SPDK's schema is not at $schema"
python3 -c 'import yaml' 2> /dev/null || skip "python3-yaml is not installed"

start_server --wait-for-rpc
"$VARVE" rpc --schema > "$work/ours.json"
"$tests/conformance.py" "$schema" "$sock" "$work/ours.json"
stop_server
